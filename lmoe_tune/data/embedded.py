"""The data that need no download: scikit-learn's handwritten digits and its two photographs.

Read straight from scikit-learn's package folder, as importing scikit-learn would cost a second.
Source of the digits: UCI "Optical Recognition of Handwritten Digits" (test part), 1,797 images of 8
x 8, values 0-16.
"""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from lmoe_tune.data.splits import (
    ClassSplit,
    ImageSplit,
    IntArray,
    derived_seed,
    of_classes,
    split_images,
)
from lmoe_tune.data.usable_images import UnusableError, class_split
from lmoe_tune.errors import UsageError
from lmoe_tune.readers import READERS
from lmoe_tune.spec import DataSpec

# N images, H W pixels, C channels; images are uint8
UInt8Array = npt.NDArray[np.uint8]
Pool = Literal["train", "val", "test"]

PHOTOS: dict[str, Literal["china", "flower"]] = {"photo_china": "china", "photo_flower": "flower"}
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

    Without that, contrast alone would distinguish a patch of plain sky from a digit.

    The pools are vertical bands of the picture (60 / 20 / 20% of its width), with a gap of a patch
    between two of them: no pixel is in two pools, or next to a pixel of another.
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


@dataclass(frozen=True, eq=False)
class Digits:
    """The digits that a spec keeps: images (N, 8, 8), labels (N,), their places (N,) in the whole
    set, and how their classes and images are split."""

    images: UInt8Array
    labels: IntArray
    places: IntArray
    classes: ClassSplit
    split: ImageSplit

    def of(self, indices: IntArray, classes: tuple[int, ...]) -> IntArray:
        """The indices whose digits are of these classes."""
        return of_classes(self.labels, indices, classes)

    def every(self) -> IntArray:
        """The indices of all of them."""
        return np.arange(len(self.labels))


def digits_of(data: DataSpec) -> Digits:
    """The digits of a spec. Raises UsageError as `refuse_unreadable` and `class_split`."""
    refuse_unreadable(data)
    images, labels = load_digits()
    places = kept(len(labels), data.id.limit)
    images, labels = images[places], labels[places]
    classes = class_split(data, READERS[data.id.dataset].num_classes or 0)
    return Digits(images, labels, places, classes, split_images(labels, split=data.split))


def embedded_outliers(data: DataSpec) -> tuple[UInt8Array, UInt8Array]:
    """The patches (N, 8, 8) of the training and of the validation pool.

    A spec without outliers has none to train with; validation still needs some.
    """
    if data.outliers is None:
        return np.zeros((0, 8, 8), np.uint8), load_photo_patches("china", "val")

    train = load_photo_patches(PHOTOS[data.outliers.dataset], "train")
    validated = PHOTOS[(data.val_coarse or data.outliers).dataset]
    return train[kept(len(train), data.outliers.limit)], load_photo_patches(validated, "val")


def refuse_unreadable(data: DataSpec) -> None:
    """Raises UnusableError if a spec combines or changes the embedded sets in a forbidden way."""
    others = [one.dataset for one in (data.outliers, data.val_coarse, *data.coarse_ood) if one]
    if data.id.dataset != "digits" or not set(others) <= PHOTOS.keys():
        raise UnusableError(
            "digits can be combined with the outliers photo_china and photo_flower only, "
            f"not {data.id.dataset} with {' and '.join(others)}",
            "name these, or images of your own for both",
            "data",
        )
    if data.resize is not None or data.crop is not None or data.augment is not None:
        raise UnusableError(
            "the embedded sets are 8 x 8 pixels and not augmented",
            "leave out resize, crop and augment",
            "data",
        )


def kept(count: int, limit: int | None) -> IntArray:
    """Sorted indices of a fixed subset, the same for every split and seed; None: of all."""
    return np.sort(np.random.default_rng(derived_seed("limit")).permutation(count)[:limit])


def numbered(labels: IntArray, classes: tuple[int, ...]) -> IntArray:
    """Labels (N,) of these classes, renumbered from 0."""
    return np.searchsorted(np.asarray(classes), labels).astype(np.int64)


def _sklearn_file(name: str) -> Path:
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "the embedded data sets need scikit-learn; install it with: pip install scikit-learn"
        )
    path = Path(found.submodule_search_locations[0]) / "datasets" / name
    if not path.is_file():
        raise UsageError(
            f"{path}: this scikit-learn lacks the file; reinstall it with: pip install -U scikit-learn"
        )
    return path
