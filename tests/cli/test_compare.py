from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.cli.report import compare as command
from lmoe_tune.errors import UsageError
from lmoe_tune.report.comparison import compare, lines, make_comparison_page
from lmoe_tune.sweep.ledger import Ledger

Cli = Callable[..., Any]


def test_sweeps_stand_side_by_side_with_what_differs(sweep: Callable[..., Ledger]) -> None:
    first = sweep("first", 0.7, 0.9, 0.8)
    second = sweep("second", 0.85, 0.95, more=["search.seed=1", "fixed.mix_weight=2"])

    found = compare([first, second])

    one, two = found.rows
    assert (one["sweep"], one["trials"]["complete"]) == ("first", 3)
    assert (one["best"]["value"], one["best"]["trial"]) == (0.9, 1)
    assert (one["median"], one["quartile_1"], one["quartile_3"]) == pytest.approx((0.8, 0.75, 0.85))
    assert two["best"]["value"] == 0.95 and two["best"]["params"]
    assert found.differences["search.seed"] == {"first": 0, "second": 1}
    assert found.differences["fixed.mix_weight"] == {"first": None, "second": 2.0}
    assert "name" not in found.differences
    assert any("none is confirmed" in line for line in found.cautions)
    assert found.png.startswith(b"\x89PNG")


def test_what_cannot_be_compared_is_said(sweep: Callable[..., Ledger]) -> None:
    first, second = sweep("first", 0.9), sweep("second", 0.9, more=["objective.score=energy"])
    second.set_attr("fingerprint", "other")

    cautions = " ".join(compare([first, second]).cautions)

    assert "different metrics or scores" in cautions
    assert "different images or splits" in cautions
    assert "not all of them are complete" in cautions


def test_a_sweep_without_a_complete_trial_is_compared_all_the_same(
    sweep: Callable[..., Ledger],
) -> None:
    found = compare([sweep("empty"), sweep("running", None), sweep("one", 0.9)])

    assert [row["best"] is None for row in found.rows] == [True, True, False]
    page = make_comparison_page(found)
    assert lines([{"wall_s": 4000.0}]) == [{"wall_s": 4000.0, "wall": "1h 06m"}]
    assert "empty against running against one" in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compare_prints_and_writes_what_is_asked_for(
    cli: Cli, sweep: Callable[..., Ledger], tmp_path: Path
) -> None:
    sweep("a", 0.7, 0.9)
    sweep("b", 0.8, more=["search.seed=1"])

    table = cli("compare", "a", "b")
    assert table.returncode == 0, table.stderr
    assert "search.seed" in table.stdout and "confirmed" in table.stderr
    page = cli("compare", "a", "b", "--format", "html")
    assert (tmp_path / "lmoe_runs" / "compare-a-b.html").read_text(encoding="utf-8")
    assert page.stdout.strip().endswith("compare-a-b.html")


@pytest.mark.parametrize("form", ["json", "csv"])
def test_compare_is_printed_for_programs(
    sweep: Callable[..., Ledger],
    tmp_path: Path,
    form: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep("a", 0.7, 0.9)
    sweep("b", 0.8, more=["search.seed=1"])

    command(["a", "b"], form=form, home=str(tmp_path / "lmoe_runs"))

    printed = capsys.readouterr().out
    read = {
        "json": lambda text: json.loads(text)["sweeps"],
        "csv": lambda text: list(csv.DictReader(io.StringIO(text))),
    }
    rows = read[form](printed)
    best = [row["best"]["value"] if form == "json" else float(row["best_value"]) for row in rows]
    assert ([row["sweep"] for row in rows], best) == (["a", "b"], [0.9, 0.8])


@pytest.mark.parametrize(
    ("names", "form", "said"),
    [
        (["a"], "table", "needs two or more"),
        (["a", "a"], "table", "needs two or more"),
        (["a", "bb"], "table", "no sweep 'bb'"),
    ],
)
def test_what_cannot_be_compared_is_bad_usage(
    sweep: Callable[..., Ledger], tmp_path: Path, names: list[str], form: str, said: str
) -> None:
    sweep("a", 0.7)

    with pytest.raises(UsageError, match=said):
        command(names, form=form, home=str(tmp_path / "lmoe_runs"))
