from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lmoe_tune.data.batches import Batch, Images, PairedBatches
from lmoe_tune.data.search_data import SearchData

MakeBatches = Callable[..., PairedBatches]


def numbered(num_train: int, num_outliers: int) -> Images:
    """Images that hold their own number in every pixel; the label is the number modulo 5."""

    def count(number: int, start: int = 0) -> np.ndarray:
        assert start + number <= 256
        values = np.arange(start, start + number, dtype=np.uint8)
        return np.broadcast_to(values[:, None, None, None], (number, 1, 2, 2)).copy()

    data = SearchData(
        train_images=count(num_train),
        train_labels=np.arange(num_train, dtype=np.int64) % 5,
        outliers=count(num_outliers),
        val_images=count(3, start=10),
        val_labels=np.zeros(3, dtype=np.int64),
        val_fine=count(4, start=20),
        val_coarse=count(5, start=30),
        classes=tuple("abcde"),
        mean=(0.0,),
        std=(1.0,),
        fingerprint="-",
    )
    return Images(data, torch.device("cpu"))


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
        rng=np.random.default_rng(seed),
    )


def numbers(images: torch.Tensor) -> list[int]:
    return [int(value) for value in images[:, 0, 0, 0]]


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(value, getattr(second, name)) for name, value in vars(first).items())


@pytest.mark.parametrize("batch_size", [2, 7, 16, 96, 500])
def test_every_image_comes_once_per_epoch_with_its_label(batch_size: int) -> None:
    stream = batches(96, batch_size=batch_size)
    for _ in range(3):
        seen = []
        for batch in stream.epoch():
            seen += numbers(batch.images)
            assert batch.labels.tolist() == [number % 5 for number in numbers(batch.images)]
            assert batch.labels.dtype == torch.int64
        assert sorted(seen) == list(range(96))


def test_the_order_differs_from_epoch_to_epoch_and_from_seed_to_seed() -> None:
    stream, other = batches(), batches(seed=1)
    orders = [
        [number for batch in source.epoch() for number in numbers(batch.images)]
        for source in (stream, stream, other)
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_the_same_seed_gives_the_same_batches() -> None:
    first, second = batches(ratio=0.6), batches(ratio=0.6)
    for _ in range(3):
        assert all(same(a, b) for a, b in zip(first.epoch(), second.epoch(), strict=True))


@pytest.mark.parametrize(
    ("num_train", "sizes"), [(33, [32]), (34, [32, 2]), (64, [32, 32]), (65, [32, 32])]
)
def test_only_a_single_left_over_image_is_left_out(num_train: int, sizes: list[int]) -> None:
    stream = batches(num_train, batch_size=32)
    assert stream.steps_per_epoch == len(sizes)
    assert [len(batch.images) for batch in stream.epoch()] == sizes


def test_an_image_left_out_in_one_epoch_comes_in_another() -> None:
    stream = batches(33, batch_size=32)
    seen = {
        number for _ in range(10) for batch in stream.epoch() for number in numbers(batch.images)
    }
    assert seen == set(range(33))


@pytest.mark.parametrize("ratio", [0.25, 0.3, 0.6, 1.0, 1.5, 2.7])
@pytest.mark.parametrize("num_train", [96, 90])
def test_the_ratio_is_exact_over_an_epoch(ratio: float, num_train: int) -> None:
    stream = batches(num_train, ratio=ratio)
    for _ in range(3):
        drawn = [(len(batch.images), len(batch.outliers)) for batch in stream.epoch()]
        assert abs(sum(num for _, num in drawn) - ratio * num_train) <= 0.5
        assert all(abs(num - ratio * size) <= 1 for size, num in drawn)


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.1])
def test_at_least_two_outliers_come_in_every_step(ratio: float) -> None:
    assert all(len(batch.outliers) == 2 for batch in batches(ratio=ratio).epoch())


def test_a_ratio_of_zero_draws_no_outliers_and_needs_none() -> None:
    for batch in batches(num_outliers=0, ratio=0).epoch():
        assert batch.outliers.shape == (0, 1, 2, 2)
        assert batch.pairs.shape == (0,)


def test_outliers_asked_for_but_absent_are_a_broken_invariant() -> None:
    with pytest.raises(AssertionError, match="outliers"):
        batches(num_outliers=0, ratio=1)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.7])
@pytest.mark.parametrize("num_outliers", [2, 5, 50, 250])
def test_all_outliers_are_seen_equally_often(ratio: float, num_outliers: int) -> None:
    stream, seen = batches(num_outliers=num_outliers, ratio=ratio), Counter[int]()
    for _ in range(6):
        for batch in stream.epoch():
            seen.update(numbers(batch.outliers))
            counts = [seen[number] for number in range(num_outliers)]
            assert max(counts) - min(counts) <= 1


def test_outliers_come_in_another_order_once_they_are_exhausted() -> None:
    stream = batches(48, 48, batch_size=16)
    first, second = (
        [n for batch in stream.epoch() for n in numbers(batch.outliers)] for _ in range(2)
    )
    assert sorted(first) == sorted(second) == list(range(48))
    assert first != second


@pytest.mark.parametrize("ratio", [0.25, 1.0, 2.5])
def test_outliers_are_paired_in_turn_and_cycle_when_there_are_more(ratio: float) -> None:
    for batch in batches(ratio=ratio).epoch():
        assert batch.pairs.tolist() == [j % 16 for j in range(len(batch.outliers))]
        assert batch.pairs.dtype == torch.int64


@pytest.mark.parametrize("epochs_before", [1, 2, 3])
def test_a_stream_continues_from_its_state_in_the_middle_of_the_outliers(
    epochs_before: int,
) -> None:
    rng = np.random.default_rng(7)
    images = numbered(96, 50)
    stream = PairedBatches(images, batch_size=16, outlier_ratio=0.6, rng=rng)
    for _ in range(epochs_before):
        list(stream.epoch())
    state, generator_state = stream.state_dict(), rng.bit_generator.state
    assert 0 < state["outlier_position"] < 50, "the point of the test"
    expected = [list(stream.epoch()) for _ in range(3)]

    fresh_rng = np.random.default_rng(0)
    continued = PairedBatches(images, batch_size=16, outlier_ratio=0.6, rng=fresh_rng)
    continued.load_state_dict(state)
    fresh_rng.bit_generator.state = generator_state
    for epoch in expected:
        assert all(same(a, b) for a, b in zip(epoch, continued.epoch(), strict=True))


def test_a_state_does_not_change_when_its_stream_goes_on() -> None:
    stream = batches(ratio=0.6)
    list(stream.epoch())
    state = stream.state_dict()
    order, position = state["outlier_order"].clone(), state["outlier_position"]
    for _ in range(3):
        list(stream.epoch())
    assert torch.equal(state["outlier_order"], order)
    assert state["outlier_position"] == position


def test_images_are_normalised_by_the_training_images(tiny_data: SearchData) -> None:
    images = Images(tiny_data, torch.device("cpu"))
    for tensor, pixels in (
        (images.train, tiny_data.train_images),
        (images.outliers, tiny_data.outliers),
    ):
        expected = (pixels.astype(np.float64) - tiny_data.mean[0]) / tiny_data.std[0]
        np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-6)
        assert tensor.dtype == torch.float32


def test_the_validation_parts_lie_one_after_the_other() -> None:
    images = numbered(10, 10)
    assert numbers(images.val) == [10, 11, 12, 20, 21, 22, 23, 30, 31, 32, 33, 34]
    assert (images.num_val, images.num_val_fine) == (3, 4)
