"""NumPy arrays in a file, an `.npz`: read whole, or refused as damaged."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    content = path.read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays}
    except Exception as error:  # zip, zlib and NumPy each have several
        raise ValueError(f"damaged: {str(error) or type(error).__name__}") from error
