from __future__ import annotations

import math

import pytest

from lmoe_tune.spec import BoundExpression, duration_s, duration_text
from lmoe_tune.spec.quantity import bounds, size_bytes, size_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90s", 90),
        ("30m", 1800),
        ("8h", 28_800),
        ("2d", 172_800),
        ("1h30m", 5400),
        ("1d 2h 3m 4s", 93_784),
        ("1.5h", 5400),
    ],
)
def test_durations_are_read_in_seconds(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "90",
        "h",
        "30m1h",
        "1h1h",
        "-1h",
        "0s",
        0,
        -1,
        math.nan,
        math.inf,
        True,
        None,
        [],
        "1e9d",
        "9" * 99 + "d",
    ],
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="must be a duration"):
        duration_s(text)


@pytest.mark.parametrize(
    "seconds", [1.0, 59.0, 60.0, 5400.0, 43_200.0, 93_784.0, 0.5, 1e-3, 12_345.678]
)
def test_a_written_duration_reads_back_exactly(seconds):
    assert duration_s(duration_text(seconds)) == seconds


def test_a_written_duration_is_short():
    assert [duration_text(seconds) for seconds in (43_200.0, 5400.0, 90.0)] == [
        "12h",
        "1h30m",
        "1m30s",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (0.9, 0.9),
        (1, 1.0),
        ("baseline", 0.8),
        ("baseline - 0.02", 0.78),
        ("baseline+1e-2", 0.81),
        ("  baseline  -.5 ", 0.3),
    ],
)
def test_a_bound_is_a_number_or_relative_to_the_baseline(text, value):
    assert BoundExpression.parse(text).value(0.8) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "base",
        "baseline -",
        "baseline * 2",
        "baseline - x",
        "0.9",
        True,
        None,
        math.nan,
        math.inf,
        "baseline - 1e999",
    ],
)
def test_what_is_no_bound_is_refused(text):
    with pytest.raises(ValueError, match="must be a number, or an expression"):
        BoundExpression.parse(text)


@pytest.mark.parametrize(
    "text", [0.9, -3.0, "baseline", "baseline - 0.02", "baseline + 1e-05", "baseline - 0.1"]
)
def test_a_bound_reads_back_from_its_notation(text):
    bound = BoundExpression.parse(text)
    assert bound.notation() == text
    assert BoundExpression.parse(bound.notation()) == bound


def test_bounds_have_words():
    assert bounds(0, 1) == " between 0 and 1"
    assert bounds(0, None, low_exclusive=True) == " greater than 0"
    assert bounds(0, 1, low_exclusive=True) == " greater than 0 and at most 1"
    assert bounds(None, 4_294_967_295) == " of at most 4294967295"
    assert bounds(None, None) == ""


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (5, 5),
        ("7B", 7),
        ("500MB", 500_000_000),
        ("1.5TB", 1_500_000_000_000),
        (" 2 kB ", 2000),
        ("200GB", 200 * 10**9),
    ],
)
def test_a_size_in_all_its_notations(text: object, count: int) -> None:
    assert size_bytes(text) == count
    assert size_bytes(size_text(count)) == count


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, True, "", "GB", "5", "5 gb", "1e9", "5GiB", "0GB", None, "9" * 40 + "TB"]
)
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="a number of bytes, or a text such as 500MB"):
        size_bytes(value)


def test_sizes_are_written_in_their_largest_unit() -> None:
    assert [size_text(count) for count in (200 * 10**9, 1500, 2 * 10**6, 999)] == [
        "200GB",
        1500,
        "2MB",
        999,
    ]
