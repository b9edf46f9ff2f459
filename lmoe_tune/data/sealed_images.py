"""The sealed test images, opened: what a confirmation trains on and measures. Nothing else may
import this.

`sealed_plan` knows the same images by path and hash only, for the inspection of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmoe_tune.data.decoded_cache import ImageFile
from lmoe_tune.data.embedded import PHOTOS, digits_of, kept, load_photo_patches, numbered
from lmoe_tune.data.image_set import ImageSet
from lmoe_tune.data.sealed_plan import TestPlan, plan_test
from lmoe_tune.data.search_data import SearchData, data_of_plan, embedded_data, fingerprint_of
from lmoe_tune.data.splits import IntArray
from lmoe_tune.errors import UsageError
from lmoe_tune.readers import READERS
from lmoe_tune.spec import DataSpec

if TYPE_CHECKING:
    from torch import Tensor

ID, FINE, COARSE, OUTLIERS = "id", "fine", "coarse_", "outliers"


@dataclass(frozen=True, eq=False)
class TestImages:
    """The sealed sets of one split, one after the other: `id`, `fine`, each `coarse_<set>`, and
    `outliers`.

    `sizes` holds their numbers of images in that order, `labels` (N,) the classes of the first,
    numbered like those trained on, `novel_labels` (M,) the classes of the second. `outliers` is the
    training outliers' own sealed pool, absent if the spec has none. The fingerprint of embedded
    sets does not cover it.
    """

    __test__ = False  # not a pytest test

    images: ImageSet
    sizes: dict[str, int]
    labels: IntArray
    novel_labels: IntArray
    fingerprint: str

    def parts(self, rows: Tensor) -> dict[str, Tensor]:
        """Values computed for all images (N, ...), set by set."""
        import torch

        return dict(zip(self.sizes, torch.split(rows, list(self.sizes.values())), strict=True))


@dataclass(frozen=True, eq=False)
class Opened:
    """What a confirmation trains on, and what it measures at the end."""

    training: SearchData
    test: TestImages

    def files(self) -> list[ImageFile]:
        """All image files of both; none of embedded data."""
        return [*self.training.files(), *self.test.images.files]


@lru_cache(maxsize=2)  # a worker runs many jobs of one split
def open_test_data(
    data: DataSpec, home: Path | None = None, *, with_held_out: bool = True
) -> Opened:
    """The data of a split with its seal broken. The caller must record that first.

    Args:
        with_held_out: the classes that the search held out are in-distribution, too; else they are
            left out.

    Raises:
        UsageError: the data set cannot be read, or a part has no image.
    """
    if READERS[data.id.dataset].is_embedded:
        return _open_embedded(data, with_held_out=with_held_out)

    return _open_files(data, plan_test(data, home, with_held_out=with_held_out))


def _open_embedded(data: DataSpec, *, with_held_out: bool) -> Opened:
    digits = digits_of(data)
    known = digits.classes.known(with_held_out=with_held_out)
    training = embedded_data(data, digits, known, val_fine=np.zeros(0, dtype=np.int64))

    test = digits.of(digits.split.test, known)
    novel = digits.of(digits.every(), digits.classes.test_novel)
    sets = {ID: ImageSet.grey(digits.images[test]), FINE: ImageSet.grey(digits.images[novel])}
    for name, one in zip(_coarse_names(data), data.coarse_ood, strict=True):
        patches = load_photo_patches(PHOTOS[one.dataset], "test")
        sets[name] = ImageSet.grey(patches[kept(len(patches), one.limit)])

    test_labels = numbered(digits.labels[test], known)
    fingerprint = fingerprint_of(ImageSet.joined(list(sets.values())).pixels, test_labels)
    if data.outliers is not None:
        patches = load_photo_patches(PHOTOS[data.outliers.dataset], "test")
        sets[OUTLIERS] = ImageSet.grey(patches)

    test_images = TestImages(
        images=ImageSet.joined(list(sets.values())),
        sizes=_sizes(sets),
        labels=test_labels,
        novel_labels=digits.labels[novel],
        fingerprint=fingerprint,
    )
    return Opened(training, test_images)


def _open_files(data: DataSpec, plan: TestPlan) -> Opened:
    sets = {ID: ImageSet.of_part(plan.test), FINE: ImageSet.of_part(plan.test_fine)}
    for name, part in zip(_coarse_names(data), plan.test_coarse, strict=True):
        sets[name] = ImageSet.of_part(part)
    if plan.test_outliers is not None:
        sets[OUTLIERS] = ImageSet.of_part(plan.test_outliers)

    training = data_of_plan(data, plan)
    test = TestImages(
        images=ImageSet.joined(list(sets.values())),
        sizes=_sizes(sets),
        labels=plan.test_labels,
        novel_labels=plan.test_fine.labels,
        fingerprint=training.fingerprint,  # the plan's covers the sealed parts, too
    )
    return Opened(training, test)


def _coarse_names(data: DataSpec) -> list[str]:
    """`coarse_<set>` of each coarse set; a repeated one is numbered: `coarse_folder_2`."""
    names = [one.dataset for one in data.coarse_ood]
    counts = [names[:place].count(name) for place, name in enumerate(names)]
    return [
        f"{COARSE}{name}" + (f"_{count + 1}" if count else "")
        for name, count in zip(names, counts, strict=True)
    ]


def _sizes(sets: dict[str, ImageSet]) -> dict[str, int]:
    """How many images each set has. Raises UsageError if one that is needed has none."""
    sizes = {name: len(images) for name, images in sets.items()}
    for name, kind in ((ID, "an in-distribution"), (FINE, "a test-novel")):
        if not sizes[name]:
            raise UsageError(
                f"data.id: the sealed test set has no image of {kind} class, so nothing can be confirmed"
            )
    return sizes
