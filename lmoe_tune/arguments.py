"""What a caller gives, checked before anything else happens."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from lmoe_tune.errors import UsageError

_WORDS = {
    str: "a text",
    Path: "a path",
    int: "a whole number",
    Integral: "a whole number",
    Mapping: "a mapping",
    Callable: "a function",
    type(None): "None",
}


def refuse_other(value: object, called: str, *kinds: Any) -> None:
    """Raises UsageError unless it is of one of these types; True and False are no numbers."""
    if not isinstance(value, kinds) or isinstance(value, bool):
        must_be = " or ".join(_WORDS.get(kind) or _with_article(kind.__name__) for kind in kinds)
        raise UsageError(f"{called} is {reprlib.repr(value)}, but must be {must_be}")


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def refuse_other_items(values: Sequence[Any], called: str, *kinds: type) -> None:
    """The same for each of several; a text is not several."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise UsageError(f"{called} is {reprlib.repr(values)}, but must be a list")
    for place, value in enumerate(values):
        refuse_other(value, f"{called}[{place}]", *kinds)
