from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lmoe_tune.data.batches import Batch, PairedBatches
from lmoe_tune.data.image_set import ImageSet
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.data.search_data import SearchData
from lmoe_tune.spec import Dataset, DataSpec

MakeBatches = Callable[..., PairedBatches]


def numbered(num_train: int, num_outliers: int) -> ImageSource:
    """Images that hold their own number in every pixel; the label is the number modulo 5."""

    def count(number: int, start: int = 0) -> ImageSet:
        assert start + number <= 256
        values = np.arange(start, start + number, dtype=np.uint8)
        pixels = np.broadcast_to(values[:, None, None, None], (number, 1, 2, 2)).copy()
        return ImageSet(pixels=pixels)

    data = SearchData(
        spec=DataSpec(id=Dataset(dataset="digits")),
        train=count(num_train),
        train_labels=np.arange(num_train, dtype=np.int64) % 5,
        outliers=count(num_outliers),
        val=count(3, start=10),
        val_labels=np.zeros(3, dtype=np.int64),
        val_fine=count(4, start=20),
        val_coarse=count(5, start=30),
        classes=tuple("abcde"),
        mean=(0.0,),
        std=(1.0,),
        fingerprint="-",
    )
    return ImageSource(data, torch.device("cpu"))


def batches(
    num_train: int = 96,
    num_outliers: int = 50,
    *,
    ratio: float = 1.0,
    batch_size: int = 16,
    seed: int = 0,
) -> PairedBatches:
    return PairedBatches(
        numbered(num_train, num_outliers),
        batch_size=batch_size,
        outlier_ratio=ratio,
        seed=seed,
    )


def numbers(images: torch.Tensor) -> list[int]:
    return [int(value) for value in images[:, 0, 0, 0]]


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(value, getattr(second, name)) for name, value in vars(first).items())


@pytest.mark.parametrize("batch_size", [2, 7, 16, 96, 500])
def test_every_image_comes_once_per_epoch_with_its_label(batch_size: int) -> None:
    stream = batches(96, batch_size=batch_size)
    for number in (1, 2, 3):
        seen = []
        for batch in stream.epoch(number):
            seen += numbers(batch.images)
            assert batch.labels.tolist() == [number % 5 for number in numbers(batch.images)]
            assert batch.labels.dtype == torch.int64
        assert sorted(seen) == list(range(96))


def test_the_order_differs_from_epoch_to_epoch_and_from_seed_to_seed() -> None:
    stream, other = batches(), batches(seed=1)
    orders = [
        [number for batch in source.epoch(epoch) for number in numbers(batch.images)]
        for source, epoch in ((stream, 1), (stream, 2), (other, 1))
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_the_same_seed_gives_the_same_batches() -> None:
    first, second = batches(ratio=0.6), batches(ratio=0.6)
    for epoch in (1, 2, 3):
        pairs = zip(first.epoch(epoch), second.epoch(epoch), strict=True)
        assert all(same(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("num_train", "sizes"), [(33, [32]), (34, [32, 2]), (64, [32, 32]), (65, [32, 32])]
)
def test_only_a_single_left_over_image_is_left_out(num_train: int, sizes: list[int]) -> None:
    stream = batches(num_train, batch_size=32)
    assert stream.steps_per_epoch == len(sizes)
    assert [len(batch.images) for batch in stream.epoch(1)] == sizes


def test_an_image_left_out_in_one_epoch_comes_in_another() -> None:
    stream = batches(33, batch_size=32)
    seen = {
        number
        for epoch in range(1, 11)
        for batch in stream.epoch(epoch)
        for number in numbers(batch.images)
    }
    assert seen == set(range(33))


@pytest.mark.parametrize("num_train", [96, 90])
def test_every_step_has_the_same_number_of_outliers_and_at_least_two(num_train: int) -> None:
    counts = {0.01: 2, 0.1: 2, 0.25: 4, 0.3: 5, 0.6: 10, 1.0: 16, 1.5: 24, 2.7: 43}
    for ratio, num_outliers in counts.items():
        stream = batches(num_train, ratio=ratio)
        for epoch in (1, 2, 3):
            assert {len(batch.outliers) for batch in stream.epoch(epoch)} == {num_outliers}, ratio
        assert stream.outlier_ratio == num_outliers / 16


def test_a_batch_larger_than_the_set_counts_as_large_as_the_set() -> None:
    stream = batches(10, ratio=0.5, batch_size=500)
    assert [len(batch.outliers) for batch in stream.epoch(1)] == [5]
    assert stream.outlier_ratio == 0.5


def test_a_ratio_of_zero_draws_no_outliers_and_needs_none() -> None:
    for batch in batches(num_outliers=0, ratio=0).epoch(1):
        assert batch.outliers.shape == (0, 1, 2, 2)
        assert batch.pairs.shape == (0,)


def test_outliers_asked_for_but_absent_are_a_broken_invariant() -> None:
    with pytest.raises(AssertionError, match="outliers"):
        batches(num_outliers=0, ratio=1)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.7])
def test_within_an_epoch_all_outliers_come_equally_often(ratio: float) -> None:
    for num_outliers, epoch in itertools.product((2, 5, 50, 96, 250), (1, 2, 5)):
        stream = batches(num_outliers=num_outliers, ratio=ratio)
        seen = Counter(n for batch in stream.epoch(epoch) for n in numbers(batch.outliers))
        counts = [seen[number] for number in range(num_outliers)]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0])
def test_up_to_a_ratio_of_one_no_outlier_comes_again_before_the_set_is_through(
    ratio: float,
) -> None:
    """Of 250 outliers two epochs take at most 96 each; the next two have an order of their own."""
    stream = batches(num_outliers=250, ratio=ratio)
    orders = []
    for first in (1, 3):
        seen = [
            number
            for epoch in (first, first + 1)
            for batch in stream.epoch(epoch)
            for number in numbers(batch.outliers)
        ]
        assert len(seen) == len(set(seen)) == 2 * 6 * round(ratio * 16)
        orders.append(seen)
    assert orders[0] != orders[1]


def test_over_many_epochs_every_outlier_comes_whatever_the_ratio() -> None:
    stream = batches(num_outliers=250, ratio=0.25)
    seen = {
        n
        for epoch in range(1, 80)
        for batch in stream.epoch(epoch)
        for n in numbers(batch.outliers)
    }
    assert seen == set(range(250))


RATIOS = (0.1, 0.5, 1.0, 1.7, 3.1)


@pytest.mark.parametrize("num_train", [96, 90])  # 90: the last batch has ten images
@pytest.mark.parametrize("num_outliers", [7, 50, 96, 250])
def test_a_slot_of_a_step_is_the_same_whatever_the_ratio(num_train: int, num_outliers: int) -> None:
    """Images, their labels and order; and of every slot that two ratios have: outlier and partner."""
    most = batches(num_train, num_outliers, ratio=4.0)
    for ratio in (0.0, *RATIOS):
        some = batches(num_train, num_outliers, ratio=ratio)
        for epoch in range(1, 8):
            for a, b in zip(some.epoch(epoch), most.epoch(epoch), strict=True):
                slots = slice(len(a.outliers))
                assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
                assert torch.equal(a.outliers, b.outliers[slots])
                assert torch.equal(a.pairs, b.pairs[slots])


@pytest.mark.parametrize("ratio", [0.25, 1.0, 2.5])
def test_outliers_are_paired_in_turn_and_cycle_when_there_are_more(ratio: float) -> None:
    for batch in batches(ratio=ratio).epoch(1):
        assert batch.pairs.tolist() == [j % 16 for j in range(len(batch.outliers))]
        assert batch.pairs.dtype == torch.int64


def test_an_epoch_does_not_depend_on_those_before_it() -> None:
    """So a trial that goes on after a kill needs no state of its batches."""
    stream, fresh = batches(ratio=0.6), batches(ratio=0.6)
    for epoch in (1, 2, 3):
        list(stream.epoch(epoch))
    for epoch in (4, 2):
        assert all(same(a, b) for a, b in zip(stream.epoch(epoch), fresh.epoch(epoch), strict=True))


def test_images_are_normalised_by_the_training_images(tiny_data: SearchData) -> None:
    images = ImageSource(tiny_data, torch.device("cpu"))
    found = next(PairedBatches(images, batch_size=72, outlier_ratio=0, seed=0).epoch(1)).images
    assert found.dtype == torch.float32 and tiny_data.train.pixels is not None
    expected = (tiny_data.train.pixels.astype(np.float64) - tiny_data.mean[0]) / tiny_data.std[0]
    np.testing.assert_allclose(np.sort(found.numpy(), axis=0), np.sort(expected, axis=0), atol=1e-6)


def test_the_validation_parts_lie_one_after_the_other() -> None:
    images = numbered(10, 10)
    found = [number for chunk in images.val_chunks(5) for number in numbers(chunk)]
    assert found == [10, 11, 12, 20, 21, 22, 23, 30, 31, 32, 33, 34]
    assert (images.num_val, images.num_val_fine) == (3, 4)
