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
from lmoe_tune.data.search_plan import coarse_part, fingerprint, outlier_parts, renumbered
from lmoe_tune.data.splits import IntArray
from lmoe_tune.data.table import Part
from lmoe_tune.data.usable_images import (
    Say,
    UsableImages,
    class_split,
    refuse_stopping,
    select_coarse,
    select_id,
    select_outliers,
    select_val_coarse,
    split_id,
)
from lmoe_tune.readers import READERS
from lmoe_tune.spec import DataSpec

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TestPlan:
    """Training on the in-distribution classes, with or without those held out during the search,
    and the sealed tests.

    Labels count from 0 over `classes`. `val` has images of all of them. `test_fine` are test-novel
    classes: their official test images, or all of their images where the set has no official split.
    `test_outliers` is the outliers' test pool, `test_coarse` one part per coarse set.
    """

    __test__ = False  # not a pytest test

    train: Part
    train_labels: IntArray
    val: Part
    val_labels: IntArray
    test: Part
    test_labels: IntArray
    test_fine: Part
    outliers: Part | None
    val_coarse: Part
    test_outliers: Part | None
    test_coarse: tuple[Part, ...]
    classes: tuple[str, ...]
    fingerprint: str


def plan_test(
    data: DataSpec, home: Path | None = None, say: Say | None = None, *, with_held_out: bool = True
) -> TestPlan:
    """The plan of the final training and of the tests. Raises UsageError as `plan_search`.

    Args:
        with_held_out: the classes that the search held out are trained on and tested, too; else
            they are in no part.
    """
    found, outliers = select_id(data, home, say), select_outliers(data, home, say)
    validated = select_val_coarse(data, home, say)
    coarse = [select_coarse(data, place, home, say) for place in range(len(data.coarse_ood))]
    refuse_stopping([found, outliers, validated, *coarse])
    return plan_test_of(data, found, outliers, validated, coarse, with_held_out=with_held_out)


def plan_test_of(
    data: DataSpec,
    found: UsableImages,
    outliers: UsableImages | None,
    validated: UsableImages | None,
    coarse: list[UsableImages],
    *,
    with_held_out: bool = True,
) -> TestPlan:
    """The plan for the selected images."""
    table = found.table
    classes = class_split(data, len(table.classes))
    images = split_id(data, found)
    if with_held_out:
        known = classes.in_distribution
    else:
        known = classes.train

    def of(indices: IntArray, chosen: tuple[int, ...]) -> Part:
        return Part(table, indices[np.isin(table.labels[indices], chosen)])

    train, val, test = (of(part, known) for part in (images.train, images.val, images.test))
    has_official_test = any(table.official[index] == "test" for index in found.indices)
    test_fine = of(images.test if has_official_test else found.indices, classes.test_novel)
    pools = outlier_parts(outliers)
    val_coarse = coarse_part(found, outliers, validated)
    test_coarse = tuple(Part(one.table, one.indices) for one in coarse)
    contents: list[tuple[UsableImages | None, list[Part | None]]] = [
        (found, [train, val, test, test_fine]),
        (outliers, [pools["train"], pools["test"]]),
        (validated or outliers, [val_coarse]),
    ]
    contents += [(one, [part]) for one, part in zip(coarse, test_coarse, strict=True)]
    return TestPlan(
        train=train,
        train_labels=renumbered(train, known),
        val=val,
        val_labels=renumbered(val, known),
        test=test,
        test_labels=renumbered(test, known),
        test_fine=test_fine,
        outliers=pools["train"],
        val_coarse=val_coarse,
        test_outliers=pools["test"],
        test_coarse=test_coarse,
        classes=tuple(table.classes[label] for label in known),
        fingerprint=fingerprint(contents),
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
    pairs = find_near_duplicates(select_id(data, home), home)
    return {
        name: copies_in(part, (plan.train, plan.val), pairs)
        for name, part in (("id", plan.test), ("fine", plan.test_fine))
    }


def copies_in(tested: Part, trained: Sequence[Part], pairs: Iterable[Leak]) -> BoolArray:
    """Which images (N,) of a part are near-duplicates of images in other parts of its table."""
    known = {part.table.paths[index] for part in trained for index in part.indices}
    paths = [tested.table.paths[index] for index in tested.indices]
    seen = copied(pairs, paths, known)
    return np.array([path in seen for path in paths], dtype=bool)
