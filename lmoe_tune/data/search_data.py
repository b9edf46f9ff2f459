"""What a search may see: training and validation images, and nothing of the sealed test set.

N images, C channels, H W pixels of the network's input.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmoe_tune.data.decode import DECODER_VERSION
from lmoe_tune.data.decoded_cache import ImageFile
from lmoe_tune.data.embedded import Digits, digits_of, embedded_outliers, numbered
from lmoe_tune.data.image_set import NO_IMAGES, ImageSet
from lmoe_tune.data.search_plan import SearchPlan, plan_search, renumbered
from lmoe_tune.data.splits import IntArray, of_classes
from lmoe_tune.data.table import Part
from lmoe_tune.data.usable_images import (
    ID,
    UnusableError,
    class_split,
    select,
    split_id,
)
from lmoe_tune.readers import READERS
from lmoe_tune.spec import DataSpec

IMAGENET_MEAN = tuple(255 * value for value in (0.485, 0.456, 0.406))
IMAGENET_STD = tuple(255 * value for value in (0.229, 0.224, 0.225))


@dataclass(frozen=True, eq=False)
class SearchData:
    """The images of a split, embedded ones and files alike; labels int64 (N,) count from 0 over the
    `classes`.

    `val_fine` holds images of in-distribution classes that are held out while searching (none in a
    confirmation), `outliers` the training pool, `val_coarse` the outliers' validation pool. `mean`
    and `std` are per channel, in 0-255: those of the training images if these are embedded, else
    ImageNet's. `crop_bottom` is the height of a banner on the in-distribution files. `fingerprint`
    identifies all of it.
    """

    spec: DataSpec
    train: ImageSet
    train_labels: IntArray
    outliers: ImageSet
    val: ImageSet
    val_labels: IntArray
    val_fine: ImageSet
    val_coarse: ImageSet
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    crop_bottom: int = 0

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def is_embedded(self) -> bool:
        """Whether the images are pixels in memory, not files."""
        return self.train.pixels is not None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of the network's input, (C, H, W)."""
        if self.train.pixels is None:
            return 3, self.spec.image_crop, self.spec.image_crop

        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    def parts(self) -> dict[str, ImageSet]:
        """All images by purpose, in the order in which they are kept together."""
        return {
            "train": self.train,
            "outliers": self.outliers,
            "val": self.val,
            "val_fine": self.val_fine,
            "val_coarse": self.val_coarse,
        }

    def files(self) -> list[ImageFile]:
        """All files; none for embedded images."""
        return list(ImageSet.joined(list(self.parts().values())).files)


@dataclass(frozen=True, eq=False)
class Validation:
    """In-distribution images that are neither trained on nor in a test; labels (N,) count over the
    `classes`.
    """

    images: ImageSet
    labels: IntArray
    classes: tuple[str, ...]
    fine: ImageSet = NO_IMAGES
    """Images of held-out classes; none if all classes are known."""
    coarse: ImageSet = NO_IMAGES
    """Outliers of the validation pool."""


def load_search_data(data: DataSpec, home: Path | None = None) -> SearchData:
    """The training and validation part of a split: pixels where they are embedded, else files.

    Args:
        home: where the hashes of image files are kept, so that the files need not be read again.

    Raises:
        UsageError: the data set cannot be read, or the split asks for more classes than there are.
    """
    if READERS[data.id.dataset].is_embedded:
        return load_embedded(data)

    return _load_files(data, home)


def validation_of_all_classes(data: DataSpec, home: Path) -> Validation:
    """What a confirmation validates with: images of all in-distribution classes, held-out ones
    included.
    """
    if READERS[data.id.dataset].is_embedded:
        digits = digits_of(data)
        known = digits.classes.in_distribution
        val = digits.of(digits.split.val, known)
        labels, names = numbered(digits.labels[val], known), tuple(map(str, known))
        return Validation(ImageSet.grey(digits.images[val]), labels, names)

    found = select(data, ID, home)
    table = found.table
    known = class_split(data, len(table.classes)).in_distribution
    part = Part(table, of_classes(table.labels, split_id(data, found).val, known))
    names = tuple(table.classes[label] for label in known)
    return Validation(ImageSet.of_part(part), renumbered(part, known), names)


def describe_splits(data: DataSpec, home: Path | None = None) -> dict[str, Any]:
    """Classes and image counts of the parts that a search sees, for the records of a sweep."""
    found = load_search_data(data, home)
    return {
        "fingerprint": found.fingerprint,
        "split": data.split,
        "classes": {"train": list(found.classes)},
        "images": {name: len(part) for name, part in found.parts().items()},
    }


# Image files


@lru_cache(maxsize=2)  # a worker runs many trials of one sweep
def _load_files(data: DataSpec, home: Path | None) -> SearchData:
    return data_of_plan(data, plan_search(data, home))


def data_of_plan(data: DataSpec, plan: SearchPlan) -> SearchData:
    """The files that a plan has chosen."""
    return SearchData(
        spec=data,
        train=ImageSet.of_part(plan.train),
        train_labels=plan.train_labels,
        outliers=ImageSet.of_part(plan.outliers),
        val=ImageSet.of_part(plan.val),
        val_labels=plan.val_labels,
        val_fine=ImageSet.of_part(plan.val_fine),
        val_coarse=ImageSet.of_part(plan.val_coarse),
        classes=plan.classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        fingerprint=_fingerprint_of_files(data, plan.fingerprint),
        crop_bottom=plan.train.table.crop_bottom,
    )


def _fingerprint_of_files(data: DataSpec, of_plan: str) -> str:
    """A fingerprint of the files and of everything that turns them into numbers."""
    made = {
        "files": of_plan,
        "decoder": DECODER_VERSION,
        "side": data.image_side,
        "crop": data.image_crop,
        "augmentation": data.augmentation.model_dump(mode="json"),
        "normalise": data.normalise,
    }
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


# Embedded images


@lru_cache(maxsize=2)
def load_embedded(data: DataSpec) -> SearchData:
    """The digits, with patches of a photograph as outliers."""
    digits = digits_of(data)
    classes, split = digits.classes, digits.split

    # Nothing of a held-out class is trained on, so its training part makes the estimate steadier.
    val_fine = digits.of(np.concatenate([split.train, split.val]), classes.val_novel)
    if not len(val_fine):
        raise _too_few(data)

    return embedded_data(data, digits, classes.train, val_fine)


def embedded_data(
    data: DataSpec, digits: Digits, classes: tuple[int, ...], val_fine: IntArray
) -> SearchData:
    """The digits of these classes to train and to validate with, those at the places `val_fine`,
    and the outliers' pools for training and validation. Raises UsageError if a part has no image.
    """
    train = digits.of(digits.split.train, classes)
    val = digits.of(digits.split.val, classes)
    if not (len(train) and len(val)):
        raise _too_few(data)

    images, labels = digits.images, digits.labels
    outliers, val_coarse = embedded_outliers(data)
    train_images = ImageSet.grey(images[train])
    assert train_images.pixels is not None
    values = train_images.pixels.astype(np.float64)
    made = SearchData(
        spec=data,
        train=train_images,
        train_labels=numbered(labels[train], classes),
        outliers=ImageSet.grey(outliers),
        val=ImageSet.grey(images[val]),
        val_labels=numbered(labels[val], classes),
        val_fine=ImageSet.grey(images[val_fine]),
        val_coarse=ImageSet.grey(val_coarse),
        classes=tuple(map(str, classes)),
        mean=tuple(float(value) for value in values.mean(axis=(0, 2, 3))),
        std=tuple(float(value) for value in values.std(axis=(0, 2, 3))),
        fingerprint="",
    )
    fingerprint = fingerprint_of(
        made.train.pixels,
        made.train_labels,
        made.outliers.pixels,
        made.val.pixels,
        made.val_labels,
        made.val_fine.pixels,
        made.val_coarse.pixels,
    )
    return replace(made, fingerprint=fingerprint)


def fingerprint_of(*arrays: npt.NDArray[Any] | None) -> str:
    """16 hexadecimal digits that identify the shapes and the content of pixels and labels."""
    digest = hashlib.sha256()
    for array in arrays:
        assert array is not None, "files have another fingerprint"
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _too_few(data: DataSpec) -> UnusableError:
    what = f"value is {data.id.limit}, but must leave images to train on and to validate with"
    return UnusableError(what, "raise it", "data.id.limit")
