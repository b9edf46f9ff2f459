"""The parts of MATLAB's .mat files that annotations need."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmoe_tune.readers.layout import LayoutError
from lmoe_tune.wording import shown

ORIGINAL = "use the original files, all from one download"


def read_mat(path: Path) -> dict[str, Any]:
    """The variables of a .mat file, without MATLAB's dimensions of one. Raises LayoutError."""
    import scipy.io  # half a second: only where there is such a file

    try:
        variables: dict[str, Any] = scipy.io.loadmat(str(path), squeeze_me=True)
    except Exception as error:  # scipy raises all sorts of errors for a damaged file
        raise LayoutError(
            f"{path} is not a readable MATLAB file ({error})", "download it again"
        ) from error
    return variables


def strings(values: Any) -> list[str]:
    """The texts of a cell array; MATLAB pads those of a character matrix with blanks."""
    if isinstance(values, str):
        return [values.strip()]
    return [str(text).strip() for text in values.reshape(-1).tolist()]


def texts(path: Path, variables: dict[str, Any], *names: str) -> list[str]:
    """A field of texts of the annotations, under the first of its names that is there.

    Raises LayoutError if there is no such field, or with the entry that is not a text.
    """
    found = []
    for entry, value in _values(path, variables, *names):
        if not isinstance(value, str) or not value:
            raise LayoutError(f"{entry} is {_in_words(value)}, but must be a name", ORIGINAL)
        found.append(value)
    return found


def numbers(path: Path, variables: dict[str, Any], name: str) -> list[int]:
    """A field of whole numbers of the annotations; MATLAB may hold them as 1.0.

    Raises LayoutError if there is no such field, or with the entry that is not a whole number.
    """
    found = []
    for entry, value in _values(path, variables, name):
        if not isinstance(value, int | float) or not math.isfinite(value) or value % 1:
            raise LayoutError(
                f"{entry} is {_in_words(value)}, but must be a whole number", ORIGINAL
            )
        found.append(int(value))
    return found


def _values(path: Path, variables: dict[str, Any], *names: str) -> Iterator[tuple[str, Any]]:
    """Every entry of a field: where it is, and its value; an array of one is that one."""
    structs: Any = variables.get("annotations")
    known = getattr(getattr(structs, "dtype", None), "names", None) or ()
    name = next((name for name in names if name in known), None)
    if name is None:
        raise LayoutError(f"{path} has no annotations.{' or '.join(names)}", ORIGINAL)

    values = structs[name].reshape(-1).tolist()
    if not values:
        raise LayoutError(f"{path} has no entry in annotations", ORIGINAL)
    for number, value in enumerate(values, start=1):
        one = value
        if getattr(value, "size", 0) == 1:
            one = value.item()
        yield f"{path}: annotations({number}).{name}", one


def _in_words(value: Any) -> str:
    size = getattr(value, "size", None)
    if size:
        return f"{size} values"
    if size == 0 or value == "":
        return "empty"
    return shown(value)
