"""MATLAB's .mat files, as far as annotations need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lmoe_tune.data.readers.layout import LayoutError


def read_mat(path: Path) -> dict[str, Any]:
    """The variables of a .mat file, without MATLAB's dimensions of one. Raises LayoutError."""
    import scipy.io  # half a second: only where there is such a file

    try:
        variables: dict[str, Any] = scipy.io.loadmat(str(path), squeeze_me=True)
    except Exception as error:  # scipy raises whatever it trips over in a damaged file
        raise LayoutError(
            f"{path} is no MATLAB file that can be read ({error})", "download it again"
        ) from error
    return variables


def strings(values: Any) -> list[str]:
    """A cell array of texts; MATLAB pads those of a character matrix with blanks."""
    return [str(value).strip() for value in np.atleast_1d(np.asarray(values, dtype=object))]


def field(path: Path, variables: dict[str, Any], array: str, *names: str) -> list[Any]:
    """A field of a struct array under the first of its names that is there. Raises LayoutError."""
    structs: Any = np.atleast_1d(variables[array]) if array in variables else np.zeros(0)
    for name in names:
        if structs.dtype.names and name in structs.dtype.names:
            return [np.asarray(value).item() for value in structs[name]]
    raise LayoutError(
        f"{path} has no {array}.{' or '.join(names)}",
        f"use the original {path.name}, with that field in it",
    )
