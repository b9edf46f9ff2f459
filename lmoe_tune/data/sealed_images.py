"""The sealed test images, opened: what a confirmation trains on and measures. Nothing else may import this.

`sealed` knows the same images by path and hash only, for the inspection of the data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmoe_tune.data.decoded_cache import ImageFile, files_of
from lmoe_tune.data.embedded import UInt8Array, load_photo_patches
from lmoe_tune.data.sealed_plan import TestPlan, plan_test
from lmoe_tune.data.search_data import (
    PHOTOS,
    PlannedData,
    SearchData,
    channels_first,
    class_split_of,
    embedded_data,
    embedded_images,
    fingerprint_of,
    kept,
    numbered,
    of_classes,
)
from lmoe_tune.data.search_plan import SearchPlan
from lmoe_tune.data.splits import IntArray, split_images
from lmoe_tune.data.table import Part
from lmoe_tune.errors import UsageError
from lmoe_tune.readers import READERS
from lmoe_tune.spec import DataSpec

if TYPE_CHECKING:
    from torch import Tensor

    from lmoe_tune.data.batches import ImageSource

ID, FINE, COARSE, OUTLIERS = "id", "fine", "coarse_", "outliers"


@dataclass(frozen=True, eq=False)
class TestImages:
    """The sealed sets of one split, one after the other: `id`, `fine`, each `coarse_<set>`, and `outliers`.

    `sizes` holds their numbers of images in that order, `labels` (N,) the classes of the first, numbered as those
    trained on, `novel_labels` (M,) those of the second. `outliers` is the training outliers' own sealed pool; it is
    not there where the spec has none. The fingerprint is not of these. Of embedded data `pixels` has the images, else
    `files` has their places.
    """

    __test__ = False  # no test of pytest's

    sizes: dict[str, int]
    labels: IntArray
    novel_labels: IntArray
    fingerprint: str
    pixels: UInt8Array | None = None
    files: tuple[ImageFile, ...] = ()

    def chunks(
        self, images: ImageSource, spec: DataSpec, home: Path, size: int
    ) -> Iterable[Tensor]:
        """All of them on the device of `images`, normalised like those, at most `size` at a time."""
        import torch

        from lmoe_tune.data.batches import Images
        from lmoe_tune.data.file_images import FileImages
        from lmoe_tune.data.loaders import open_loader
        from lmoe_tune.data.rows import open_rows

        if self.pixels is not None:
            assert isinstance(images, Images), "embedded test images go with embedded ones"
            return torch.split(images.normalised(self.pixels), size)
        assert isinstance(images, FileImages), "files of test images go with files"
        rows = open_rows(self.files, spec, home)
        # Read once at the end: no reason to fill the device's memory with them.
        from_host = spec if spec.cache == "off" else spec.model_copy(update={"cache": "disk"})
        return images.centred(open_loader(rows, from_host, images.device), 0, len(self.files), size)

    def parts(self, rows: Tensor) -> dict[str, Tensor]:
        """What was computed of all images (N, ...), set by set."""
        import torch

        return dict(zip(self.sizes, torch.split(rows, list(self.sizes.values())), strict=True))


@dataclass(frozen=True, eq=False)
class Opened:
    """What a confirmation trains on, and what it measures at the end."""

    training: SearchData | PlannedData
    test: TestImages

    def files(self) -> list[ImageFile]:
        """All image files of both; none of embedded data."""
        trained_on = self.training.files() if isinstance(self.training, PlannedData) else []
        return [*trained_on, *self.test.files]


@lru_cache(maxsize=2)  # a worker runs many jobs of one split
def open_test_data(
    data: DataSpec, home: Path | None = None, *, with_held_out: bool = True
) -> Opened:
    """The data of a split with its seal broken. Whoever calls this has recorded it before.

    Args:
        with_held_out: the classes that the search held out are in-distribution, too; else they are left out.

    Raises:
        UsageError: the data set cannot be read, or a part has no image.
    """
    if READERS[data.id.dataset].is_embedded:
        return _open_embedded(data, with_held_out=with_held_out)
    return _open_planned(data, plan_test(data, home, with_held_out=with_held_out))


def _open_embedded(data: DataSpec, *, with_held_out: bool) -> Opened:
    images, labels = embedded_images(data)
    classes, split = class_split_of(data), split_images(labels, split=data.split)
    known = classes.in_distribution if with_held_out else classes.train
    training = embedded_data(
        data,
        images,
        labels,
        train=of_classes(labels, split.train, known),
        val=of_classes(labels, split.val, known),
        val_fine=None,
        classes=known,
    )
    test = of_classes(labels, split.test, known)
    novel = of_classes(labels, np.arange(len(labels)), classes.test_novel)
    sets = {ID: channels_first(images[test]), FINE: channels_first(images[novel])}
    for name, one in zip(_coarse_names(data), data.coarse_ood, strict=True):
        if one.dataset not in PHOTOS:
            raise UsageError(
                f"data.coarse_ood: digits go with photo_china and photo_flower only, not {one.dataset}"
            )
        patches = load_photo_patches(PHOTOS[one.dataset], "test")
        if one.limit is not None:
            patches = patches[kept(len(patches), one.limit)]
        sets[name] = channels_first(patches)
    test_labels = numbered(labels[test], known)
    fingerprint = fingerprint_of(np.concatenate(list(sets.values())), test_labels)
    if data.outliers is not None:
        sets[OUTLIERS] = channels_first(load_photo_patches(PHOTOS[data.outliers.dataset], "test"))
    sizes = {name: len(of) for name, of in sets.items()}
    _refuse_empty(sizes)

    test_images = TestImages(
        sizes=sizes,
        labels=test_labels,
        novel_labels=labels[novel],
        fingerprint=fingerprint,
        pixels=np.concatenate(list(sets.values())),
    )
    return Opened(training, test_images)


def _open_planned(data: DataSpec, plan: TestPlan) -> Opened:
    nothing = Part(plan.train.table, np.zeros(0, dtype=np.int64))
    search_plan = SearchPlan(
        train=plan.train,
        train_labels=plan.train_labels,
        val=plan.val,
        val_labels=plan.val_labels,
        val_fine=nothing,
        outliers=plan.outliers,
        val_coarse=plan.val_coarse,
        classes=plan.classes,
        fingerprint=plan.fingerprint,
    )
    parts = {ID: plan.test, FINE: plan.test_fine} | dict(
        zip(_coarse_names(data), plan.test_coarse, strict=True)
    )
    if plan.test_outliers is not None:
        parts[OUTLIERS] = plan.test_outliers
    sizes = {name: len(part) for name, part in parts.items()}
    _refuse_empty(sizes)
    training = PlannedData(data, search_plan)
    test = TestImages(
        sizes=sizes,
        labels=plan.test_labels,
        novel_labels=plan.test_fine.labels,
        fingerprint=training.fingerprint,  # the plan's is of the sealed parts too
        files=tuple(file for part in parts.values() for file in files_of(part)),
    )
    return Opened(training, test)


def _coarse_names(data: DataSpec) -> list[str]:
    """`coarse_<set>` of each coarse set; one that is there again is counted: `coarse_folder_2`."""
    names = [one.dataset for one in data.coarse_ood]
    counts = [names[:place].count(name) for place, name in enumerate(names)]
    return [
        f"{COARSE}{name}" + (f"_{count + 1}" if count else "")
        for name, count in zip(names, counts, strict=True)
    ]


def _refuse_empty(sizes: dict[str, int]) -> None:
    if not sizes[ID] or not sizes[FINE]:
        missing = "in-distribution" if not sizes[ID] else "test-novel"
        raise UsageError(
            f"data.id: the sealed test set has no image of an {missing} class, so nothing can be confirmed"
        )
