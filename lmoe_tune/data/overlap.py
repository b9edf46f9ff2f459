"""Whether images that one search has looked at are sealed in another. Compares identities, not
pixels.

An image is known by the hash of its file, an embedded digit by its place in the set. Copies that
were encoded again are not looked for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lmoe_tune.data.embedded import Digits, digits_of
from lmoe_tune.data.sealed_plan import plan_test_of
from lmoe_tune.data.search_plan import plan_of
from lmoe_tune.data.splits import IntArray
from lmoe_tune.data.table import Part
from lmoe_tune.data.usable_images import (
    ID,
    OUTLIERS,
    VAL_COARSE,
    UsableImages,
    coarse_sets,
    select_all,
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
        digits = digits_of(data)
        unseen = np.concatenate([digits.split.train, digits.split.val])
        known = digits.of(digits.split.val, digits.classes.train)
        return _named(digits, known, digits.of(unseen, digits.classes.val_novel))

    selected = select_all(data, home)
    plan = plan_of(data, selected)
    coarse = selected.get(VAL_COARSE) or selected.get(OUTLIERS)
    own = _hashes(selected[ID], plan.val) | _hashes(selected[ID], plan.val_fine)
    return own | _hashes(coarse, plan.val_coarse)


def sealed_images(data: DataSpec, home: Path) -> set[str]:
    """The images of every test: in-distribution, test-novel classes, outliers, coarse sets."""
    if READERS[data.id.dataset].is_embedded:
        digits = digits_of(data)
        known = digits.of(digits.split.test, digits.classes.in_distribution)
        return _named(digits, known, digits.of(digits.every(), digits.classes.test_novel))

    selected = select_all(data, home, sealed=True)
    plan = plan_test_of(data, selected)
    sealed = _hashes(selected[ID], plan.test) | _hashes(selected[ID], plan.test_fine)
    sealed |= _hashes(selected.get(OUTLIERS), plan.test_outliers)
    return sealed.union(*(_hashes(one, one) for one in coarse_sets(selected)))


def _named(digits: Digits, *parts: IntArray) -> set[str]:
    """The names of some digits. The patches of photographs need none: their pools never meet."""
    return {f"digit {place}" for part in parts for place in digits.places[part].tolist()}


def _hashes(found: UsableImages | None, part: Part | None) -> set[str]:
    """The hashes of the files of a part of the images that were found."""
    if found is None or part is None:
        return set()

    hashes = found.hashes
    return {hashes[index] for index in part.indices.tolist()}
