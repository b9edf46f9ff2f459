"""Three disjoint sets everywhere: train, val (what the search may look at), test (sealed).

Classes are split first (in-distribution, held out for validation, sealed), then the images of each
class. Everything is a pure function of the split number, so a split never has to be stored to be
repeated.
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
POOL_FRAC = 0.1
"""Share of the outliers for validation, and for the test: a few thousand images are enough for an
AUROC."""


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

    def known(self, *, with_held_out: bool) -> tuple[int, ...]:
        """The classes that a final training is on: with or without those held out by the search."""
        return self.in_distribution if with_held_out else self.train


@dataclass(frozen=True)
class ImageSplit:
    """Image indices of the three sets, each sorted."""

    train: IntArray
    val: IntArray
    test: IntArray


def split_classes(num_classes: int, *, num_id: int, num_val_novel: int, split: int) -> ClassSplit:
    """Choose the in-distribution classes as MixOE does, and hold some of them out as validation
    novelty.

    Source of the first choice: the public MixOE splits, `RandomState(split).choice(num_classes,
    num_id, replace=False)`. The held-out classes come from a generator of their own, so the first
    choice stays comparable with published work.

    Raises:
        ValueError: fewer than two classes are left to train on, or there are not enough classes.
    """
    if not 0 < num_id <= num_classes:
        raise ValueError(f"num_id_classes is {num_id}, but must be between 1 and {num_classes}")
    if num_id - num_val_novel < 2:
        raise ValueError(
            f"num_val_novel is {num_val_novel}, but must leave at least 2 of the {num_id} classes "
            "to train on"
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
    """Split 60 / 20 / 20% of every class; an image's place depends on its class's images and the
    split number alone.

    Args:
        labels: class of every image, shape (N,).
    """
    labels = np.asarray(labels, dtype=np.int64)
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []

    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = np.random.default_rng(derived_seed("images", split, int(label))).permutation(
            members
        )
        num_val, num_test = round(VAL_FRAC * len(members)), round(TEST_FRAC * len(members))
        val.extend(members[:num_val])
        test.extend(members[num_val : num_val + num_test])
        train.extend(members[num_val + num_test :])
    return ImageSplit(*(np.sort(np.asarray(part, dtype=np.int64)) for part in (train, val, test)))


def of_classes(labels: IntArray, indices: IntArray, classes: tuple[int, ...]) -> IntArray:
    """The indices whose images are of these classes; labels (N,) of all images."""
    chosen: IntArray = indices[np.isin(labels[indices], classes)]
    return chosen


def split_official(labels: IntArray, official: Sequence[str], *, split: int) -> ImageSplit:
    """The official split, with the parts that it lacks taken out of its training images, class by
    class.

    A set without both is split like one without any split. One without a validation part gives a
    fifth of each class's training images to it, at least one where a class has two; one with a
    validation, but no test part gives a fifth to the test.

    Args:
        labels: class of every image, shape (N,).
        official: "train", "val", "test" or "" for every image, shape (N,).
    """
    parts = np.asarray(official)
    has_val, has_test = bool((parts == "val").any()), bool((parts == "test").any())
    if not (has_val or has_test):
        return split_images(labels, split=split)

    train, taken = np.flatnonzero(parts == "train"), np.zeros(0, dtype=np.int64)
    if not (has_val and has_test):
        fraction = {True: VAL_FRAC, False: TEST_FRAC}[has_test]
        taken = _fraction_of_each_class(labels, train, fraction, split=split)
        train = np.setdiff1d(train, taken)

    val = test = taken
    if has_val:
        val = np.flatnonzero(parts == "val")
    if has_test:
        test = np.flatnonzero(parts == "test")
    return ImageSplit(
        train.astype(np.int64), np.sort(val).astype(np.int64), np.sort(test).astype(np.int64)
    )


def _fraction_of_each_class(
    labels: IntArray, members: IntArray, fraction: float, *, split: int
) -> IntArray:
    taken: list[int] = []
    for label in np.unique(labels[members]):
        own = members[labels[members] == label]
        own = np.random.default_rng(derived_seed("images", split, int(label))).permutation(own)
        taken.extend(own[: max(round(fraction * len(own)), int(len(own) > 1))])
    return np.asarray(taken, dtype=np.int64)


def pools(keys: Sequence[str]) -> ImageSplit:
    """Disjoint outlier pools, about 80 / 10 / 10% for train, val and test, whatever the split
    number.

    An image's place depends on its key alone: a smaller or larger limit, or more or fewer images,
    move no image from one pool to another. Only if a pool is left empty (with three images or more,
    hardly ever with 50) is the image nearest to it moved there.

    Args:
        keys: something that identifies an image, such as a hash of its content, (N,).
    """
    places = np.array([hashed("pool", key) / 2**64 for key in keys], dtype=np.float64)
    val, test = places < POOL_FRAC, (places >= POOL_FRAC) & (places < 2 * POOL_FRAC)

    if len(keys) > 2:
        order = np.argsort(places, kind="stable")
        if not val.any():
            val[order[0]], test[order[0]] = True, False
        if not test.any():
            nearest = [*order[~val[order]], order[-1]][0]
            val[nearest], test[nearest] = False, True

    train = ~(val | test)
    return ImageSplit(*(np.flatnonzero(part).astype(np.int64) for part in (train, val, test)))


def fixed_subset(keys: Sequence[str], limit: int | None) -> IntArray:
    """Sorted indices of at most `limit` images, chosen by a hash of their keys: the same for every
    split.

    A smaller limit's images are among those of a larger one.
    """
    if limit is None or limit >= len(keys):
        return np.arange(len(keys), dtype=np.int64)
    order = np.argsort(
        np.array([hashed("limit", key) for key in keys], dtype=np.uint64), kind="stable"
    )
    return np.sort(order[:limit]).astype(np.int64)


def hashed(purpose: str, key: str) -> int:
    """A 64-bit hash of a text."""
    digest = hashlib.sha256(f"{purpose}\x1f{key}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big")
