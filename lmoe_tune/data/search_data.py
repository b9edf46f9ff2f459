"""What a search may see: training and validation images, and nothing of the sealed test set."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lmoe_tune.data.decode import DECODER_VERSION
from lmoe_tune.data.decoded_cache import ImageFile, files_of
from lmoe_tune.data.embedded import UInt8Array, load_digits, load_photo_patches
from lmoe_tune.data.search_plan import SearchPlan, plan_search
from lmoe_tune.data.splits import ClassSplit, IntArray, derived_seed, split_classes, split_images
from lmoe_tune.errors import UsageError
from lmoe_tune.readers import READERS
from lmoe_tune.spec import DataSpec

PHOTOS: dict[str, Literal["china", "flower"]] = {"photo_china": "china", "photo_flower": "flower"}


@dataclass(frozen=True)
class SearchData:
    """Images are uint8 (N, C, H, W); labels int64 (N,), numbered 0... over the `classes` trained on.

    `val_fine` holds images of in-distribution classes that are held out while searching, `val_coarse` the
    outliers' validation pool. `mean` and `std` are those of the training images, per channel, in 0-255.
    """

    train_images: UInt8Array
    train_labels: npt.NDArray[np.int64]
    outliers: UInt8Array
    val_images: UInt8Array
    val_labels: npt.NDArray[np.int64]
    val_fine: UInt8Array
    val_coarse: UInt8Array
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        return int(self.train_images.shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        return int(self.train_images.shape[2]), int(self.train_images.shape[3])


@dataclass(frozen=True, eq=False)
class PlannedData:
    """What `SearchData` is, of image files: the plan says which, and their pixels stay where they are.

    `mean` and `std` are ImageNet's, per channel, in 0-255.
    """

    spec: DataSpec
    plan: SearchPlan
    in_channels = 3
    mean = tuple(255 * value for value in (0.485, 0.456, 0.406))
    std = tuple(255 * value for value in (0.229, 0.224, 0.225))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.plan.classes

    @property
    def num_classes(self) -> int:
        return len(self.plan.classes)

    @property
    def image_size(self) -> tuple[int, int]:
        return self.spec.image_crop, self.spec.image_crop

    @property
    def fingerprint(self) -> str:
        """Of the files, and of everything that makes numbers of them."""
        made = {
            "files": self.plan.fingerprint,
            "decoder": DECODER_VERSION,
            "side": self.spec.image_side,
            "crop": self.spec.image_crop,
            "augmentation": self.spec.augmentation.model_dump(mode="json"),
            "normalise": self.spec.normalise,
        }
        return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]

    def files(self) -> list[ImageFile]:
        """All files a search may see: train, outliers, val, val_fine, val_coarse, one after the other."""
        plan = self.plan
        parts = (
            plan.train,
            *([plan.outliers] if plan.outliers else []),
            plan.val,
            plan.val_fine,
            plan.val_coarse,
        )
        return [file for part in parts for file in files_of(part)]


def load_search_data(data: DataSpec, home: Path | None = None) -> SearchData | PlannedData:
    """The training and validation part of a split: pixels where they are embedded, else the files and their roles.

    Args:
        home: where the hashes of image files are kept, so that they need not be read again.

    Raises:
        UsageError: the data set cannot be read, or the split asks for more classes than there are.
    """
    if READERS[data.id.dataset].is_embedded:
        return load_embedded(data)
    return _planned(data, home)


@lru_cache(maxsize=2)  # a worker runs many trials of one sweep
def _planned(data: DataSpec, home: Path | None) -> PlannedData:
    return PlannedData(data, plan_search(data, home))


@lru_cache(maxsize=2)
def load_embedded(data: DataSpec) -> SearchData:
    """The digits, with patches of a photograph as outliers."""
    images, labels = embedded_images(data)
    class_split = class_split_of(data)
    image_split = split_images(labels, split=data.split)
    # Nothing of a held-out class is trained on, so its training part makes the estimate steadier.
    unseen = np.concatenate([image_split.train, image_split.val])
    return embedded_data(
        data,
        images,
        labels,
        train=of_classes(labels, image_split.train, class_split.train),
        val=of_classes(labels, image_split.val, class_split.train),
        val_fine=of_classes(labels, unseen, class_split.val_novel),
        classes=class_split.train,
    )


def embedded_images(data: DataSpec) -> tuple[UInt8Array, IntArray]:
    """The digits that a spec leaves in: images (N, 8, 8), labels (N,). Raises UsageError for what they cannot be."""
    _refuse_unreadable(data)
    images, labels = load_digits()
    if data.id.limit is not None:
        chosen = kept(len(images), data.id.limit)
        images, labels = images[chosen], labels[chosen]
    return images, labels


def of_classes(labels: IntArray, indices: IntArray, classes: tuple[int, ...]) -> IntArray:
    """Those of the indices whose images are of these classes; labels (N,) of all images."""
    chosen: IntArray = indices[np.isin(labels[indices], classes)]
    return chosen


def embedded_data(
    data: DataSpec,
    images: UInt8Array,
    labels: IntArray,
    *,
    train: IntArray,
    val: IntArray,
    val_fine: IntArray | None,
    classes: tuple[int, ...],
) -> SearchData:
    """The digits with these indices in each part, and the outliers' pools for training and validation.

    `val_fine` is None where no class is held out to validate with.
    """
    train_images = channels_first(images[train])
    outliers, val_coarse = _outlier_pools(data)
    if not (len(train) and len(val) and (val_fine is None or len(val_fine))):
        raise UsageError(
            f"data.id.limit is {data.id.limit}, but must leave images to train on and to validate with"
        )
    train_labels, val_labels = numbered(labels[train], classes), numbered(labels[val], classes)
    val_images = channels_first(images[val])
    val_fine_images = channels_first(images[[] if val_fine is None else val_fine])
    pixels = train_images.astype(np.float64)
    return SearchData(
        train_images=train_images,
        train_labels=train_labels,
        outliers=outliers,
        val_images=val_images,
        val_labels=val_labels,
        val_fine=val_fine_images,
        val_coarse=val_coarse,
        classes=tuple(str(label) for label in classes),
        mean=tuple(float(value) for value in pixels.mean(axis=(0, 2, 3))),
        std=tuple(float(value) for value in pixels.std(axis=(0, 2, 3))),
        fingerprint=fingerprint_of(
            train_images,
            train_labels,
            outliers,
            val_images,
            val_labels,
            val_fine_images,
            val_coarse,
        ),
    )


def numbered(labels: IntArray, classes: tuple[int, ...]) -> IntArray:
    """Labels (N,) of these classes, numbered 0... over them."""
    return np.searchsorted(np.asarray(classes), labels).astype(np.int64)


def class_split_of(data: DataSpec) -> ClassSplit:
    """The class split a spec asks for, with the data set's own defaults filled in."""
    info = READERS[data.id.dataset]
    assert info.num_classes is not None, (
        f"{data.id.dataset}: the number of classes is read from its folder"
    )
    num_id = data.num_id_classes or info.num_id_classes or round(0.75 * info.num_classes)
    num_val_novel = data.num_val_novel or info.num_val_novel or max(1, round(num_id / 10))
    try:
        return split_classes(
            info.num_classes, num_id=num_id, num_val_novel=num_val_novel, split=data.split
        )
    except ValueError as error:
        raise UsageError(f"data: {error} ({info.title} has {info.num_classes} classes)") from error


def describe_splits(data: DataSpec, home: Path | None = None) -> dict[str, Any]:
    """Classes and image counts of the parts that a search sees, for the records of a sweep."""
    found = load_search_data(data, home)
    if isinstance(found, PlannedData):
        plan = found.plan
        return {
            "fingerprint": found.fingerprint,
            "split": data.split,
            "classes": {"train": list(plan.classes)},
            "images": {
                "train": len(plan.train),
                "val": len(plan.val),
                "val_fine": len(plan.val_fine),
                "outliers": len(plan.outliers) if plan.outliers is not None else 0,
                "val_coarse": len(plan.val_coarse),
            },
        }
    split = class_split_of(data)
    return {
        "fingerprint": found.fingerprint,
        "split": data.split,
        "classes": {
            "train": split.train,
            "val_novel": split.val_novel,
            "test_novel": split.test_novel,
        },
        "images": {
            "train": len(found.train_images),
            "val": len(found.val_images),
            "val_fine": len(found.val_fine),
            "outliers": len(found.outliers),
            "val_coarse": len(found.val_coarse),
        },
    }


def _outlier_pools(data: DataSpec) -> tuple[UInt8Array, UInt8Array]:
    if (
        data.outliers is None
    ):  # only methods that train without outliers come here; validation still needs some
        return np.zeros((0, 1, 8, 8), np.uint8), channels_first(load_photo_patches("china", "val"))
    photo = PHOTOS[data.outliers.dataset]
    validated = PHOTOS[data.val_coarse.dataset] if data.val_coarse else photo
    train = load_photo_patches(photo, "train")
    if data.outliers.limit is not None:
        train = train[kept(len(train), data.outliers.limit)]
    return channels_first(train), channels_first(load_photo_patches(validated, "val"))


def _refuse_unreadable(data: DataSpec) -> None:
    others = [one.dataset for one in (data.outliers, data.val_coarse) if one]
    if data.id.dataset != "digits" or not set(others) <= PHOTOS.keys():
        raise UsageError(
            "data: digits can be combined with the outliers photo_china and photo_flower only, "
            f"not {data.id.dataset} with {' and '.join(others)}"
        )
    if data.resize is not None or data.crop is not None or data.augment is not None:
        raise UsageError(
            "data: the embedded sets are 8 x 8 pixels and not augmented; leave resize, crop, augment out"
        )


def kept(count: int, limit: int) -> npt.NDArray[np.int64]:
    """Sorted indices of a fixed subset: the same for every split and seed."""
    return np.sort(np.random.default_rng(derived_seed("limit")).permutation(count)[:limit])


def channels_first(images: UInt8Array) -> UInt8Array:
    """(N, H, W) to (N, 1, H, W)."""
    return np.ascontiguousarray(images[:, None])


def fingerprint_of(*arrays: npt.NDArray[Any]) -> str:
    """16 hexadecimal digits that tell the shapes and the content of some arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
