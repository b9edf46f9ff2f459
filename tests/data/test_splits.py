from __future__ import annotations

import numpy as np
import pytest

from lmoe_tune.data.splits import derived_seed, split_classes, split_images


@pytest.mark.parametrize(("num_classes", "num_id"), [(10, 7), (196, 150), (100, 90), (200, 150)])
def test_the_in_distribution_classes_are_those_of_the_public_mixoe_splits(
    num_classes: int, num_id: int
) -> None:
    for split in range(5):
        chosen = np.random.RandomState(split).choice(num_classes, num_id, replace=False)
        found = split_classes(
            num_classes, num_id=num_id, num_val_novel=max(1, num_id // 10), split=split
        )
        assert found.in_distribution == tuple(sorted(chosen.tolist()))
        assert found.test_novel == tuple(sorted(set(range(num_classes)) - set(chosen.tolist())))


@pytest.mark.parametrize("split", range(8))
def test_the_parts_of_a_class_split_are_disjoint_and_complete(split: int) -> None:
    found = split_classes(10, num_id=7, num_val_novel=2, split=split)
    assert (len(found.train), len(found.val_novel), len(found.test_novel)) == (5, 2, 3)
    assert sorted(found.train + found.val_novel + found.test_novel) == list(range(10))
    for part in (found.train, found.val_novel, found.test_novel):
        assert list(part) == sorted(part)
        assert all(type(label) is int for label in part)


def test_how_many_classes_are_held_out_does_not_move_the_sealed_ones() -> None:
    sealed = {
        split_classes(196, num_id=150, num_val_novel=n, split=3).test_novel for n in (1, 15, 100)
    }
    assert len(sealed) == 1


def test_another_split_number_gives_other_classes() -> None:
    found = [split_classes(10, num_id=7, num_val_novel=2, split=split) for split in range(20)]
    assert len({part.test_novel for part in found}) > 10
    assert len({part.val_novel for part in found}) > 10


def test_a_class_split_is_repeatable() -> None:
    first, second = (split_classes(196, num_id=150, num_val_novel=15, split=1) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("num_id", "num_val_novel", "message"),
    [
        (11, 1, "num_id_classes is 11, but must be between 1 and 10"),
        (0, 1, "num_id_classes is 0"),
        (7, 6, "num_val_novel is 6, but must leave at least 2 of the 7 classes"),
        (1, 1, "must leave at least 2"),
    ],
)
def test_a_class_split_that_leaves_too_little_is_refused(
    num_id: int, num_val_novel: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        split_classes(10, num_id=num_id, num_val_novel=num_val_novel, split=0)


def test_the_parts_of_an_image_split_are_disjoint_and_complete() -> None:
    labels = np.random.default_rng(0).integers(0, 7, size=1000)
    found = split_images(labels, split=2)
    everything = np.concatenate([found.train, found.val, found.test])
    assert sorted(everything.tolist()) == list(range(1000))
    for part in (found.train, found.val, found.test):
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("members", [1, 2, 3, 5, 50, 177])
def test_every_class_is_split_60_20_20(members: int) -> None:
    labels = np.repeat([4, 9], members)
    found = split_images(labels, split=0)
    for label in (4, 9):
        sizes = [
            int((labels[part] == label).sum()) for part in (found.train, found.val, found.test)
        ]
        assert sizes[1] == sizes[2] == round(0.2 * members)
        assert sum(sizes) == members
        assert sizes[0] >= 1


def test_an_image_keeps_its_place_when_another_class_is_there_or_not() -> None:
    labels = np.array([0, 1] * 50)
    with_both, alone = split_images(labels, split=5), split_images(np.zeros(50, int), split=5)
    for name in ("train", "val", "test"):
        ours = getattr(with_both, name)
        np.testing.assert_array_equal(ours[labels[ours] == 0] // 2, getattr(alone, name))


def test_another_split_number_gives_other_images() -> None:
    labels = np.zeros(100, int)
    tests = {tuple(split_images(labels, split=split).test) for split in range(10)}
    assert len(tests) == 10


def test_labels_may_be_a_list() -> None:
    np.testing.assert_array_equal(
        split_images([0] * 20, split=0).train, split_images(np.zeros(20, int), split=0).train
    )


def test_derived_seeds_of_nearby_inputs_are_unrelated() -> None:
    seeds = [derived_seed("images", split, label) for split in range(30) for label in range(30)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed("a", 12) != derived_seed("a", 1, 2) != derived_seed("a1", 2)
    assert derived_seed("val-novel", 0) == derived_seed("val-novel", 0)
