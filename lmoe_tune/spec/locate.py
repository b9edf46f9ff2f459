"""Finding a spec: a path, or the name of a shipped search space."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath

from lmoe_tune.errors import UsageError
from lmoe_tune.wording import did_you_mean, shown

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_folder() -> Path:
    """Where the shipped search spaces are: inside an installed package, beside it in a checkout."""
    inside = _PACKAGE / "search_spaces"
    if inside.is_dir():
        return inside

    return _PACKAGE.parent / "search_spaces"


def shipped_specs() -> dict[str, Path]:
    """The shipped search spaces by name."""
    return {file.stem: file for file in sorted(shipped_folder().glob("*.yaml"))}


def find_spec(argument: str) -> Path:
    """The file that a command's SPEC means: a file that exists, else the shipped space of that
    stem.

    Raises UsageError with the shipped names where there is neither.
    """
    if os.path.isfile(argument):
        return Path(argument)

    shipped = shipped_specs()
    stem = re.sub(r"\.ya?ml$", "", PurePath(argument).name, flags=re.IGNORECASE)
    if stem in shipped:
        return shipped[stem]

    if os.path.isdir(argument):
        state = "is a folder"
    elif os.path.exists(argument):
        state = "is not a regular file"
    else:
        state = "there is no such file"
    raise UsageError(
        f"{shown(argument)}: {state}, and no shipped search space has that name{did_you_mean(stem, shipped)} "
        f"(shipped: {', '.join(shipped) or 'none'})"
    )
