"""Three disjoint sets everywhere: train, val (what the search may look at), test (sealed).

Classes are split first (in-distribution, held out for validation, sealed), then the images of each class.
Everything is a pure function of the split number, so a split never has to be stored to be repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

VAL_FRAC = 0.2
TEST_FRAC = 0.2


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that is a pure function of its parts; nearby inputs give unrelated seeds."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class ClassSplit:
    """Class indices of one split number, each sorted.

    `train` and `val_novel` together are the in-distribution classes; `test_novel` is sealed.
    """

    train: tuple[int, ...]
    val_novel: tuple[int, ...]
    test_novel: tuple[int, ...]

    @property
    def in_distribution(self) -> tuple[int, ...]:
        return tuple(sorted(self.train + self.val_novel))


@dataclass(frozen=True)
class ImageSplit:
    """Image indices of the three sets, each sorted."""

    train: IntArray
    val: IntArray
    test: IntArray


def split_classes(num_classes: int, *, num_id: int, num_val_novel: int, split: int) -> ClassSplit:
    """Choose the in-distribution classes as MixOE does, and hold some of them out as validation novelty.

    Source of the first choice: the public MixOE splits,
    `RandomState(split).choice(num_classes, num_id, replace=False)`. The held-out classes come from a
    generator of their own, so the first choice stays comparable with published work.

    Raises:
        ValueError: fewer than two classes are left to train on, or there are not enough classes.
    """
    if not 0 < num_id <= num_classes:
        raise ValueError(f"num_id_classes is {num_id}, but must be between 1 and {num_classes}")
    if num_id - num_val_novel < 2:
        raise ValueError(
            f"num_val_novel is {num_val_novel}, but must leave at least 2 of the {num_id} classes to train on"
        )
    chosen = np.random.RandomState(split).choice(num_classes, num_id, replace=False)
    held_out = np.random.default_rng(derived_seed("val-novel", split)).choice(
        np.sort(chosen), num_val_novel, replace=False
    )
    return ClassSplit(
        train=tuple(sorted(set(chosen.tolist()) - set(held_out.tolist()))),
        val_novel=tuple(sorted(held_out.tolist())),
        test_novel=tuple(sorted(set(range(num_classes)) - set(chosen.tolist()))),
    )


def split_images(labels: Sequence[int] | IntArray, *, split: int) -> ImageSplit:
    """Split 60 / 20 / 20% of every class; an image's place depends on its class and the split number alone.

    Args:
        labels: class of every image, shape (N,).
    """
    labels = np.asarray(labels, dtype=np.int64)
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = np.random.default_rng(derived_seed("images", split, int(label))).permutation(members)
        num_val, num_test = round(VAL_FRAC * len(members)), round(TEST_FRAC * len(members))
        val.extend(members[:num_val])
        test.extend(members[num_val : num_val + num_test])
        train.extend(members[num_val + num_test :])
    return ImageSplit(*(np.sort(np.asarray(part, dtype=np.int64)) for part in (train, val, test)))
