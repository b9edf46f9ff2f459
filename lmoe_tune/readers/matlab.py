"""The parts of MATLAB's .mat files that annotations need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmoe_tune.readers.layout import LayoutError


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


def field(path: Path, variables: dict[str, Any], array: str, *names: str) -> list[Any]:
    """A field of a struct array under the first of its names that is there. Raises LayoutError."""
    structs: Any = variables.get(array)
    known = getattr(getattr(structs, "dtype", None), "names", None) or ()

    for name in names:
        if name in known:
            return [_plain(value) for value in structs[name].reshape(-1).tolist()]
    raise LayoutError(
        f"{path} has no {array}.{' or '.join(names)}",
        f"use the original {path.name}, with that field in it",
    )


def _plain(value: Any) -> Any:
    """The value in an array of one, or the value itself."""
    if hasattr(value, "item"):
        return value.item()
    return value
