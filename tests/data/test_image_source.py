from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lmoe_tune.data import image_source
from lmoe_tune.data.batches import Batch, PairedBatches
from lmoe_tune.data.decode import CorruptImageError, decode_resized
from lmoe_tune.data.image_set import NO_IMAGES, ImageSet
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.data.loaders import made_ahead
from lmoe_tune.data.search_data import SearchData, data_of_plan
from lmoe_tune.data.search_plan import SearchPlan
from lmoe_tune.data.table import ImageTable, Part
from lmoe_tune.spec import AugmentSpec, Dataset, DataSpec

Open = Callable[..., ImageSource]
SIDE, CROP = 20, 16
PLAIN = AugmentSpec(random_crop=False, flip=False, brightness=0, saturation=0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ImageTable:
    """60 images; number n is grey with level 4 n, but for a white corner at the upper left."""
    root = tmp_path_factory.mktemp("images")
    for number in range(60):
        array = np.full((SIDE, SIDE, 3), 4 * number, np.uint8)
        array[:4, :4] = 255
        Image.fromarray(array).save(root / f"{number:02d}.png")
    paths = tuple(f"{number:02d}.png" for number in range(60))
    labels = np.arange(60, dtype=np.int64) % 3
    return ImageTable("folder", "folder", root, paths, labels, ("a", "b", "c"), ("",) * 60)


@pytest.fixture
def planned(table: ImageTable) -> Callable[..., SearchData]:
    def make(**spec: object) -> SearchData:
        def part(start: int, stop: int) -> Part:
            return Part(table, np.arange(start, stop))

        train, val = part(0, 21), part(40, 45)
        plan = SearchPlan(
            train=train,
            train_labels=train.labels,
            val=val,
            val_labels=val.labels,
            val_fine=part(45, 49),
            outliers=part(21, 40),
            val_coarse=part(49, 55),
            classes=table.classes,
            fingerprint="-",
        )
        whole = {"resize": SIDE, "crop": CROP, **spec}
        return data_of_plan(
            DataSpec(id=Dataset(dataset="folder", root=str(table.root)), **whole), plan
        )

    return make


@pytest.fixture
def open_images(planned: Callable[..., SearchData], tmp_path: Path) -> Open:
    return lambda **spec: ImageSource(planned(**spec), CPU, tmp_path)


def stream(images: ImageSource, seed: int = 0, ratio: float = 0.7) -> PairedBatches:
    return PairedBatches(images, batch_size=8, outlier_ratio=ratio, seed=seed)


def numbers(images: ImageSource, batch: torch.Tensor) -> list[int]:
    """Which images these are, by the grey of their last pixel."""
    levels = batch[:, 0, -1, -1] * images.preprocessing.std[0] + images.preprocessing.mean[0]
    return [round(float(level) / 4) for level in levels]


def same(first: Batch, second: Batch) -> bool:
    return all(torch.equal(value, getattr(second, name)) for name, value in vars(first).items())


def test_every_image_comes_once_per_epoch_with_its_label_and_outliers_are_outliers(
    open_images: Open,
) -> None:
    images = open_images(augment=PLAIN)
    batches = stream(images)
    for epoch in (1, 2):
        seen: list[int] = []
        for batch in batches.epoch(epoch):
            seen += numbers(images, batch.images)
            assert batch.labels.tolist() == [number % 3 for number in numbers(images, batch.images)]
            assert all(21 <= number < 40 for number in numbers(images, batch.outliers))
            assert batch.images.shape[1:] == batch.outliers.shape[1:] == (3, CROP, CROP)
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert sorted(seen) == list(range(21))


def test_validation_is_cropped_from_the_centre_and_comes_in_order(
    open_images: Open, table: ImageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_images()
    monkeypatch.setattr(image_source, "EVALUATION_PIXELS", 4 * CROP**2)
    chunks = list(images.val_chunks(512))
    assert [len(chunk) for chunk in chunks] == [4, 4, 4, 3]
    found = torch.cat(chunks)
    assert numbers(images, found) == list(range(40, 55))
    assert (images.num_val, images.num_val_fine) == (5, 4)
    for number, image in zip(range(40, 55), found, strict=True):
        expected = decode_resized(table.root / table.paths[number], 0, SIDE)[2:18, 2:18].astype(
            np.float64
        )
        expected = (expected - images.preprocessing.mean) / images.preprocessing.std
        np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("other", ["device", "off"])
def test_all_caches_give_the_same_batches(open_images: Open, other: str) -> None:
    first, second = open_images(), open_images(cache=other)
    for epoch in (1, 2):
        for a, b in zip(stream(first).epoch(epoch), stream(second).epoch(epoch), strict=True):
            assert same(a, b)
    for a, b in zip(first.val_chunks(6), second.val_chunks(6), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("ahead", [0, 1, 7])
def test_how_far_is_read_ahead_changes_nothing(
    open_images: Open, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_images()
    expected = list(stream(images, ratio=1.3).epoch(1))
    monkeypatch.setattr(made_ahead, "__kwdefaults__", {"ahead": ahead})
    found = list(stream(images, ratio=1.3).epoch(1))
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))


def test_epochs_differ_and_seeds_differ(open_images: Open) -> None:
    images = open_images()
    batches = stream(images)
    first, second = next(iter(batches.epoch(1))), next(iter(batches.epoch(2)))
    assert not torch.equal(first.images, second.images)
    assert not torch.equal(first.images, next(iter(stream(images, seed=1).epoch(1))).images)
    assert same(first, next(iter(stream(images).epoch(1))))


def test_images_outliers_and_their_augmentation_are_the_same_whatever_the_ratio(
    open_images: Open,
) -> None:
    """21 images in batches of 8: the last has five. 19 outliers: the larger ratio takes them more than once."""
    images = open_images()
    for epoch in (1, 2, 3, 4):
        few, many = (stream(images, ratio=ratio).epoch(epoch) for ratio in (0.5, 2.0))
        without = stream(images, ratio=0).epoch(epoch)
        for a, b, c in zip(few, many, without, strict=True):
            assert torch.equal(a.images, b.images) and torch.equal(a.images, c.images)
            assert (len(a.outliers), len(b.outliers)) == (4, 16)
            assert torch.equal(a.outliers, b.outliers[:4])


def test_an_epoch_that_is_left_early_leaves_no_thread_behind(open_images: Open) -> None:
    import threading

    before = threading.active_count()
    epoch = stream(open_images()).epoch(1)
    next(epoch)
    epoch.close()
    assert threading.active_count() == before


def test_a_broken_image_met_while_reading_ahead_is_raised(
    planned, tmp_path: Path, table: ImageTable
) -> None:
    data = planned(cache="off")
    broken = dataclasses.replace(table, root=tmp_path / "gone")
    data = dataclasses.replace(data, train=ImageSet.of_part(Part(broken, np.arange(21))))
    with pytest.raises(CorruptImageError, match="is not there"):
        list(stream(ImageSource(data, CPU, tmp_path)).epoch(1))


def test_the_normalisation_can_be_that_of_the_training_images(
    open_images: Open, table: ImageTable
) -> None:
    found = open_images(normalise="train")
    stacked = np.stack(
        [decode_resized(table.root / table.paths[number], 0, SIDE) for number in range(21)]
    )
    np.testing.assert_allclose(found.preprocessing.mean, stacked.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(found.preprocessing.std, stacked.std(axis=(0, 1, 2)))
    assert open_images().preprocessing.mean == pytest.approx((123.675, 116.28, 103.53))


def test_without_outliers_there_are_none_and_nothing_coarse(
    planned, tmp_path: Path, table: ImageTable
) -> None:
    data = dataclasses.replace(planned(), outliers=NO_IMAGES, val_coarse=NO_IMAGES)
    images = ImageSource(data, CPU, tmp_path)
    assert images.num_outliers == 0
    assert sum(map(len, images.val_chunks(512))) == 9
    for batch in stream(images, ratio=0).epoch(1):
        assert batch.outliers.shape == (0, 3, CROP, CROP)


def test_the_fingerprint_tells_whatever_changes_the_numbers_and_nothing_else(planned) -> None:
    base = planned().fingerprint
    for change in ({"crop": 12}, {"resize": 24}, {"augment": PLAIN}, {"normalise": "train"}):
        assert planned(**change).fingerprint != base
    for change in (
        {"cache": "off"},
        {"cache_dir": "x"},
        {"cache_limit": 10**9},
        {"augment": AugmentSpec()},
    ):
        assert planned(**change).fingerprint == base


def test_sizes_that_are_left_out_are_filled_in() -> None:
    def sizes(**spec: int) -> tuple[int, int]:
        made = DataSpec(id=Dataset(dataset="folder", root="x"), **spec)
        return made.image_side, made.image_crop

    assert sizes() == (512, 512)
    assert sizes(crop=448) == (512, 448)
    assert sizes(resize=256) == (256, 256)
    assert sizes(resize=256, crop=224) == (256, 224)


def test_several_threads_read_a_batch_in_its_order(
    open_images: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_images(augment=PLAIN)
    expected = list(stream(images).epoch(1))
    images._loader._threads = 3
    assert all(same(a, b) for a, b in zip(stream(images).epoch(1), expected, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("cache", ["disk", "device", "off"])
def test_a_gpu_is_given_the_same_batches(planned, tmp_path: Path, cache: str) -> None:
    expected = ImageSource(planned(), CPU, tmp_path)
    images = ImageSource(planned(cache=cache), torch.device("cuda"), tmp_path)
    for a, b in zip(stream(expected).epoch(1), stream(images).epoch(1), strict=True):
        assert b.images.is_cuda
        for name, value in vars(a).items():
            torch.testing.assert_close(getattr(b, name).cpu(), value, atol=1e-4, rtol=0)
