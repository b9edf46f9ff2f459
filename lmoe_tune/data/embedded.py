"""The data that need no download: scikit-learn's handwritten digits and its two photographs.

Read straight from scikit-learn's package folder, as importing scikit-learn would cost a second. Source of
the digits: UCI "Optical Recognition of Handwritten Digits" (test part), 1,797 images of 8 x 8, values 0-16.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from lmoe_tune.errors import UsageError

# N images, H W pixels, C channels; images are uint8
UInt8Array = npt.NDArray[np.uint8]
Pool = Literal["train", "val", "test"]

PATCH_SIZE = 16  # pixels of the photograph a patch covers, halved to 8 x 8
STRIDES: dict[Pool, int] = {
    "train": 8,
    "val": 16,
    "test": 16,
}  # overlap is augmentation in training, noise elsewhere
POOL_FRACS: dict[Pool, tuple[float, float]] = {
    "train": (0.0, 0.6),
    "val": (0.6, 0.8),
    "test": (0.8, 1.0),
}


def load_digits() -> tuple[UInt8Array, npt.NDArray[np.int64]]:
    """Images (1797, 8, 8), scaled from 0-16 to 0-255, and labels (1797,)."""
    with gzip.open(_sklearn_file("data/digits.csv.gz"), "rb") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    pixels = np.rint(table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return pixels, table[:, 64]


def load_photo_patches(photo: Literal["china", "flower"], pool: Pool) -> UInt8Array:
    """Grey 8 x 8 patches (N, 8, 8) of one region of a photograph, each stretched to the full 0-255.

    Without that a patch of plain sky would be told from a digit by its contrast alone.

    The pools are vertical bands of the picture (60 / 20 / 20% of its width), with a gap of a patch between two
    of them: no pixel is in two pools, or beside one of another.
    """
    from PIL import Image

    with Image.open(_sklearn_file(f"images/{photo}.jpg")) as image:
        grey = np.asarray(image.convert("L"))

    start, stop = (round(frac * grey.shape[1]) for frac in POOL_FRACS[pool])
    if stop < grey.shape[1]:
        stop -= PATCH_SIZE  # the gap
    band, stride = grey[:, start:stop], STRIDES[pool]
    windows = np.lib.stride_tricks.sliding_window_view(band, (PATCH_SIZE, PATCH_SIZE))[
        ::stride, ::stride
    ]
    patches = windows.reshape(-1, PATCH_SIZE // 2, 2, PATCH_SIZE // 2, 2).mean(axis=(2, 4))
    darkest, brightest = (
        patches.min(axis=(1, 2), keepdims=True),
        patches.max(axis=(1, 2), keepdims=True),
    )
    stretched = (patches - darkest) * (255 / np.maximum(brightest - darkest, 1))
    rounded: UInt8Array = np.rint(stretched).astype(np.uint8)
    return rounded


def _sklearn_file(name: str) -> Path:
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "the embedded data sets need scikit-learn; install it with: pip install scikit-learn"
        )
    path = Path(found.submodule_search_locations[0]) / "datasets" / name
    if not path.is_file():
        raise UsageError(
            f"{path}: this scikit-learn does not bring the file; reinstall it with: pip install -U scikit-learn"
        )
    return path
