"""The sealed parts of image folders, by path and hash: what only the final confirmation opens. The
inspection of the data knows them too, to find their images where they must not be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmoe_tune.data.leaks import Leak, copied, find_near_duplicates
from lmoe_tune.data.search_plan import (
    SearchPlan,
    coarse_part,
    fingerprint,
    no_images,
    outlier_parts,
    renumbered,
)
from lmoe_tune.data.splits import IntArray, of_classes
from lmoe_tune.data.table import Part
from lmoe_tune.data.usable_images import (
    ID,
    OUTLIERS,
    VAL_COARSE,
    Selected,
    UsableImages,
    class_split,
    coarse_sets,
    select,
    select_all,
    split_id,
)
from lmoe_tune.readers import READERS
from lmoe_tune.spec import DataSpec

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, kw_only=True)
class TestPlan(SearchPlan):
    """Training on the in-distribution classes, with or without those held out during the search,
    and the sealed tests.

    `val` has images of all `classes`, and `val_fine` is empty. `test_fine` are test-novel classes:
    their official test images, or all of their images where the set has no official split.
    `test_outliers` is the outliers' test pool, `test_coarse` one part per coarse set.
    """

    __test__ = False  # not a pytest test

    test: Part
    test_labels: IntArray
    test_fine: Part
    test_outliers: Part | None
    test_coarse: tuple[Part, ...]


def plan_test(data: DataSpec, home: Path | None = None, *, with_held_out: bool = True) -> TestPlan:
    """The plan of the final training and of the tests. Raises UsageError as `plan_search`.

    Args:
        with_held_out: the classes that the search held out are trained on and tested, too; else
            they are in no part.
    """
    selected = select_all(data, home, sealed=True)
    return plan_test_of(data, selected, with_held_out=with_held_out)


def plan_test_of(data: DataSpec, selected: Selected, *, with_held_out: bool = True) -> TestPlan:
    """The plan for the selected images."""
    found, outliers, coarse = selected[ID], selected.get(OUTLIERS), coarse_sets(selected)
    table = found.table
    classes = class_split(data, len(table.classes))
    images = split_id(data, found)
    known = classes.known(with_held_out=with_held_out)
    train, val, test = (
        Part(table, of_classes(table.labels, part, known))
        for part in (images.train, images.val, images.test)
    )
    has_official_test = any(table.official[index] == "test" for index in found.indices)
    unseen = images.test if has_official_test else found.indices
    test_fine = Part(table, of_classes(table.labels, unseen, classes.test_novel))
    pools = outlier_parts(outliers)
    val_coarse = coarse_part(selected)
    contents: list[tuple[UsableImages | None, list[Part | None]]] = [
        (found, [train, val, test, test_fine]),
        (outliers, [pools["train"], pools["test"]]),
        (selected.get(VAL_COARSE) or outliers, [val_coarse]),
    ]
    contents += [(one, [one]) for one in coarse]
    return TestPlan(
        train=train,
        train_labels=renumbered(train, known),
        val=val,
        val_labels=renumbered(val, known),
        val_fine=no_images(table),
        outliers=pools["train"],
        val_coarse=val_coarse,
        classes=tuple(table.classes[label] for label in known),
        fingerprint=fingerprint(contents),
        test=test,
        test_labels=renumbered(test, known),
        test_fine=test_fine,
        test_outliers=pools["test"],
        test_coarse=tuple(coarse),
    )


def seen_in_training(
    data: DataSpec, home: Path | None = None, *, with_held_out: bool = True
) -> dict[str, BoolArray]:
    """Which test images are near-duplicates of images that are trained on or validated with.

    Returns:
        A mask per in-distribution and test-novel image, `id` (N,) and `fine` (M,), in the order of
        `sealed_images.open_test_data`; embedded sets have no near-duplicates and give an empty
        dict.
    """
    if READERS[data.id.dataset].is_embedded:
        return {}

    plan = plan_test(data, home, with_held_out=with_held_out)
    pairs = find_near_duplicates(select(data, ID, home), home)
    return {
        name: copies_in(part, (plan.train, plan.val), pairs)
        for name, part in (("id", plan.test), ("fine", plan.test_fine))
    }


def copies_in(tested: Part, trained: Sequence[Part], pairs: Iterable[Leak]) -> BoolArray:
    """Which images (N,) of a part are near-duplicates of images in other parts of its table."""
    known = {path for part in trained for path in part.paths}
    seen = copied(pairs, tested.paths, known)
    return np.array([path in seen for path in tested.paths], dtype=bool)
