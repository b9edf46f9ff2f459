"""Quantities with a notation of their own: bounds, durations, bounds relative to the baseline.

Nothing here knows about YAML or pydantic; `model.py` gives these their place in the spec.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypeGuard

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_DURATION = re.compile(
    r"(?:(?P<d>\d+(?:\.\d+)?)\s*d)?\s*(?:(?P<h>\d+(?:\.\d+)?)\s*h)?\s*"
    r"(?:(?P<m>\d+(?:\.\d+)?)\s*m)?\s*(?:(?P<s>\d+(?:\.\d+)?)\s*s)?"
)
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
MAX_DURATION_S = 10 * 365 * 86400.0
DURATION = "a duration greater than 0 such as 90 (seconds), 30m, 8h, 2d or 1h30m"

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kMGT]?)B")
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZE = "a number of bytes, or a text such as 500MB, 200GB or 1.5TB"

_EXPRESSION = re.compile(rf"\s*baseline\s*(?:(?P<sign>[+-])\s*(?P<offset>{_NUMBER}))?\s*")
EXPRESSION = "a number, or an expression such as 'baseline' or 'baseline - 0.02'"
MAX_TEXT = 100  # characters: no quantity is longer, and no pattern meets more than that


def is_number(value: object, *, whole: bool = False) -> TypeGuard[int | float]:
    """Whether a value is a number; a bool is not, and where it must be `whole`, 1.0 is not."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and not whole)


def bounds(
    low: float | None,
    high: float | None,
    *,
    low_exclusive: bool = False,
    high_exclusive: bool = False,
) -> str:
    """The words for a range, to follow "a number": " greater than 0", " between 0 and 1", or
    nothing.
    """
    if low is not None and high is not None and not (low_exclusive or high_exclusive):
        return f" between {figure(low)} and {figure(high)}"

    words = []
    if low is not None:
        words.append(
            f"greater than {figure(low)}" if low_exclusive else f"of at least {figure(low)}"
        )

    if high is not None:
        noun = "less than" if high_exclusive else "at most" if words else "of at most"
        words.append(f"{noun} {figure(high)}")

    if words:
        return " " + " and ".join(words)

    return ""


def figure(number: float) -> str:
    """A number as people write it: 4294967295 and 0.1, not 4.29497e+09."""
    if abs(number) < 1e15 and number == int(number):
        return str(int(number))

    return f"{number:g}"


def duration_s(value: object) -> float:
    """Seconds of `90`, `"90s"`, `"30m"`, `"8h"`, `"2d"` or `"1h30m"`. Raises ValueError for
    anything else.
    """
    seconds = math.nan
    if is_number(value):
        seconds = float(value)
    elif isinstance(value, str) and value.strip() and len(value) <= MAX_TEXT:
        match = _DURATION.fullmatch(value.strip())
        if match is not None:
            seconds = sum(
                float(number) * _SECONDS[unit]
                for unit, number in match.groupdict().items()
                if number
            )

    if not 0 < seconds <= MAX_DURATION_S:
        raise ValueError(f"must be {DURATION}")

    return seconds


def duration_text(seconds: float) -> str | float:
    """The shortest notation that reads back as exactly these seconds: 43200 is "12h", 0.5 stays
    0.5.
    """
    if seconds != int(seconds):
        return seconds

    rest, text = int(seconds), ""
    for unit, size in _SECONDS.items():
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""

    return text


def size_bytes(value: object) -> int:
    """Bytes of `1000`, `"500MB"`, `"200GB"` or `"1.5TB"`. Raises ValueError for anything else."""
    count = 0
    if isinstance(value, int) and not isinstance(value, bool):
        count = value
    elif isinstance(value, str) and len(value) <= MAX_TEXT:
        match = _SIZE.fullmatch(value.strip())
        if match is not None:
            count = round(float(match["number"]) * _BYTES[match["unit"]])

    if not 0 < count <= 10**18:
        raise ValueError(f"must be {SIZE}")

    return count


def size_text(count: int) -> str | int:
    """The shortest notation that reads back as exactly these bytes: 200000000000 is "200GB"."""
    for unit, size in reversed(_BYTES.items()):
        if unit and count % size == 0:
            return f"{count // size}{unit}B"

    return count


@dataclass(frozen=True)
class BoundExpression:
    """A bound on a metric: a number, or one relative to what the baseline reached."""

    relative: bool
    """Whether `offset` is added to the baseline's value of the metric."""
    offset: float
    """In the metric's unit."""

    def value(self, baseline: float) -> float:
        """The bound itself, given the baseline's value of the metric."""
        if self.relative:
            return baseline + self.offset

        return self.offset

    @classmethod
    def parse(cls, value: object) -> BoundExpression:
        """From `0.9`, `"baseline"` or `"baseline - 0.02"`. Raises ValueError for anything else."""
        if isinstance(value, BoundExpression):
            return value
        if is_number(value) and math.isfinite(value):
            return cls(relative=False, offset=float(value))

        if isinstance(value, str) and len(value) <= MAX_TEXT:
            match = _EXPRESSION.fullmatch(value)
            if match is not None:
                offset = float(match["offset"] or 0.0)
                if math.isfinite(offset):
                    return cls(relative=True, offset=-offset if match["sign"] == "-" else offset)

        raise ValueError(f"must be {EXPRESSION}")

    def notation(self) -> str | float:
        """As written in a spec; reads back as an equal bound."""
        if not self.relative:
            return self.offset
        if self.offset == 0:
            return "baseline"

        return f"baseline {'-' if self.offset < 0 else '+'} {abs(self.offset)!r}"
