"""Whether images that one search has looked at are sealed in another. Compares identities, not
pixels.

An image is known by the hash of its file, an embedded digit by its place in the set. Copies that
were encoded again are not looked for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lmoe_tune.data.embedded import kept, load_digits
from lmoe_tune.data.sealed_plan import plan_test_of
from lmoe_tune.data.search_plan import plan_of
from lmoe_tune.data.splits import ClassSplit, ImageSplit, IntArray, split_images
from lmoe_tune.data.table import Part
from lmoe_tune.data.usable_images import (
    UsableImages,
    class_split,
    select_coarse,
    select_id,
    select_outliers,
    select_val_coarse,
)
from lmoe_tune.readers import READERS
from lmoe_tune.spec import DataSpec


def validated_there_sealed_here(there: DataSpec, here: DataSpec, home: Path) -> int:
    """How many images that a search over `there` validates with are test images of `here`.

    Args:
        home: where the hashes of image files are kept.

    Raises:
        UsageError: the data of one of them cannot be read.
    """
    return len(validated_images(there, home) & sealed_images(here, home))


def validated_images(data: DataSpec, home: Path) -> set[str]:
    """The images that a search's choice rests on: in-distribution, held-out classes, coarse."""
    if READERS[data.id.dataset].is_embedded:
        places, labels, classes, images = _digits(data)
        unseen = np.concatenate([images.train, images.val])
        known = np.isin(labels[images.val], classes.train)
        held_out = np.isin(labels[unseen], classes.val_novel)
        return _named(places, images.val[known], unseen[held_out])

    found, outliers = select_id(data, home), select_outliers(data, home)
    coarse = select_val_coarse(data, home)
    plan = plan_of(data, found, outliers, coarse)

    own = _hashes(found, plan.val) | _hashes(found, plan.val_fine)
    return own | _hashes(coarse or outliers, plan.val_coarse)


def sealed_images(data: DataSpec, home: Path) -> set[str]:
    """The images of every test: in-distribution, test-novel classes, outliers, coarse sets."""
    if READERS[data.id.dataset].is_embedded:
        places, labels, classes, images = _digits(data)
        known = np.isin(labels[images.test], classes.in_distribution)
        return _named(
            places, images.test[known], np.flatnonzero(np.isin(labels, classes.test_novel))
        )

    found, outliers = select_id(data, home), select_outliers(data, home)
    validated = select_val_coarse(data, home)
    coarse = [select_coarse(data, place, home) for place in range(len(data.coarse_ood))]
    plan = plan_test_of(data, found, outliers, validated, coarse)

    sealed = _hashes(found, plan.test) | _hashes(found, plan.test_fine)
    sealed |= _hashes(outliers, plan.test_outliers)
    for one, part in zip(coarse, plan.test_coarse, strict=True):
        sealed |= _hashes(one, part)
    return sealed


def _digits(data: DataSpec) -> tuple[IntArray, IntArray, ClassSplit, ImageSplit]:
    """The digits that a spec keeps: their places in the whole set, labels and splits.

    The patches of photographs need no check: their pools are bands that never meet.
    """
    _, labels = load_digits()
    places = np.arange(len(labels), dtype=np.int64)
    if data.id.limit is not None:
        places = kept(len(labels), data.id.limit)

    labels = labels[places]
    classes = class_split(data, READERS[data.id.dataset].num_classes or 0)
    return places, labels, classes, split_images(labels, split=data.split)


def _named(places: IntArray, *parts: IntArray) -> set[str]:
    return {f"digit {place}" for part in parts for place in places[part].tolist()}


def _hashes(found: UsableImages | None, part: Part | None) -> set[str]:
    """The hashes of the files of a part of the images that were found."""
    if found is None or part is None:
        return set()

    chosen = set(part.indices.tolist())
    return {
        digest.sha256
        for index, digest in zip(found.indices.tolist(), found.digests, strict=True)
        if index in chosen
    }
