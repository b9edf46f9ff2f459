from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lmoe_tune.data import describe_splits, load_search_data
from lmoe_tune.data.embedded import load_digits, load_photo_patches
from lmoe_tune.data.image_set import ImageSet
from lmoe_tune.data.search_data import SearchData, load_embedded
from lmoe_tune.data.splits import split_images
from lmoe_tune.data.usable_images import class_split
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Dataset, DataSpec


def digits(outliers: str | None = "photo_china", **settings: Any) -> DataSpec:
    return DataSpec(
        id=Dataset(dataset="digits", limit=settings.pop("id_limit", None)),
        outliers=Dataset(dataset=outliers, limit=settings.pop("limit", None)) if outliers else None,
        coarse_ood=(Dataset(dataset="photo_flower"),),
        **settings,
    )


def pixels(images: np.ndarray | ImageSet) -> set[bytes]:
    if isinstance(images, ImageSet):
        images = images.pixels
    return {np.ascontiguousarray(image).tobytes() for image in images}


def arrays(data: SearchData) -> dict[str, np.ndarray]:
    """The pixels of every part, and the labels."""
    labels = {"train_labels": data.train_labels, "val_labels": data.val_labels}
    return {name: part.pixels for name, part in data.parts().items()} | labels


@pytest.mark.parametrize("split", range(4))
def test_no_sealed_image_is_in_what_a_search_sees(split: int) -> None:
    images, labels = load_digits()
    # the sealed part, from the formula of the public splits and not from the code under test
    known = np.random.RandomState(split).choice(10, 7, replace=False)
    sealed = pixels(images[~np.isin(labels, known)]) | pixels(
        images[split_images(labels, split=split).test]
    )
    sealed |= pixels(load_photo_patches("china", "test"))
    for pool in ("train", "val", "test"):
        sealed |= pixels(load_photo_patches("flower", pool))
    found = arrays(load_search_data(digits(split=split)))
    shown = {name: pixels(array) for name, array in found.items() if array.ndim == 4}
    assert set(shown) == {"train", "outliers", "val", "val_fine", "val_coarse"}
    for name, seen in shown.items():
        assert not seen & sealed, name


@pytest.mark.parametrize("split", range(4))
def test_the_parts_share_no_image(split: int) -> None:
    found = load_search_data(digits(split=split))
    parts = [pixels(array) for array in arrays(found).values() if array.ndim == 4]
    assert len(set.union(*parts)) == sum(len(part) for part in parts)


def test_the_parts_hold_the_classes_that_they_should() -> None:
    data = digits(split=1)
    found, split = load_search_data(data), class_split(data, 10)
    images, labels = load_digits()
    label_of = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}

    def labels_of(images: ImageSet) -> list[int]:
        assert images.pixels is not None
        return [label_of[image.tobytes()] for image in images.pixels]

    assert found.classes == tuple(map(str, split.train))
    assert (len(split.train), len(split.val_novel), len(split.test_novel)) == (5, 2, 3)
    assert [str(label) for label in labels_of(found.train)] == [
        found.classes[number] for number in found.train_labels
    ]
    assert [str(label) for label in labels_of(found.val)] == [
        found.classes[number] for number in found.val_labels
    ]
    assert set(labels_of(found.val_fine)) == set(split.val_novel)
    assert found.num_classes == 5


def test_shapes_and_types_are_as_promised() -> None:
    found = load_search_data(digits())
    for name, array in arrays(found).items():
        if name.endswith("labels"):
            assert array.dtype == np.int64
        else:
            assert array.dtype == np.uint8
            assert array.shape[1:] == (1, 8, 8)
    assert len(found.train) == len(found.train_labels)
    assert len(found.val) == len(found.val_labels)
    assert found.image_shape == (1, 8, 8)


def test_mean_and_deviation_are_those_of_the_training_images() -> None:
    found = load_search_data(digits())
    values = found.train.pixels.astype(float).ravel()
    mean = values.sum() / values.size
    assert found.mean == pytest.approx((mean,))
    assert found.std == pytest.approx((np.sqrt(((values - mean) ** 2).sum() / values.size),))


def test_the_fingerprint_tells_what_is_in_the_data() -> None:
    load_embedded.cache_clear()
    first = load_search_data(digits()).fingerprint
    load_embedded.cache_clear()
    assert load_search_data(digits()).fingerprint == first
    others = [
        digits(split=1),
        digits(num_val_novel=3),
        digits(num_id_classes=8),
        digits("photo_flower"),
    ]
    prints = {load_search_data(data).fingerprint for data in others}
    assert len(prints | {first}) == 1 + len(others)


def test_outliers_come_from_the_photograph_that_the_spec_names() -> None:
    found = load_search_data(digits("photo_flower"))
    assert pixels(found.outliers) == pixels(load_photo_patches("flower", "train"))
    assert pixels(found.val_coarse) == pixels(load_photo_patches("flower", "val"))


def test_a_limit_takes_a_fixed_subset_of_the_outliers() -> None:
    found = load_search_data(digits(limit=100))
    assert len(found.outliers) == 100
    assert pixels(found.outliers) <= pixels(load_photo_patches("china", "train"))
    assert len(found.val_coarse) == 182
    assert found.fingerprint != load_search_data(digits()).fingerprint


def test_a_limit_of_the_digits_takes_a_fixed_subset_before_splitting() -> None:
    few, all_of_them = (load_search_data(digits(id_limit=limit)) for limit in (300, None))
    images, _ = load_digits()
    assert len(few.train) + len(few.val) + len(few.val_fine) < 300
    assert pixels(few.train) <= pixels(images)
    assert few.classes == all_of_them.classes
    assert not pixels(few.train) & pixels(few.val)
    assert few.fingerprint != all_of_them.fingerprint


def test_a_limit_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.id\.limit: value is 3, but must leave images"):
        load_search_data(digits(id_limit=3))


@pytest.mark.parametrize("setting", ["resize", "crop"])
def test_a_setting_that_the_embedded_images_cannot_follow_is_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=f"leave out .*{setting}"):
        load_search_data(digits(**{setting: 4}))


def test_without_outliers_there_is_still_something_to_validate_with() -> None:
    found = load_search_data(digits(None))
    assert found.outliers.pixels.shape == (0, 1, 8, 8)
    assert len(found.val_coarse) == 182


def test_numbers_of_classes_can_be_chosen() -> None:
    split = class_split(digits(num_id_classes=6, num_val_novel=1), 10)
    assert (len(split.train), len(split.val_novel), len(split.test_novel)) == (5, 1, 4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"num_id_classes": 11},
            r"num_id_classes is 11, but must be .* \(.* has 10 classes\)",
        ),
        ({"num_val_novel": 6}, "num_val_novel is 6, but must leave at least 2"),
    ],
)
def test_a_split_that_the_data_cannot_give_is_refused(
    setting: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_search_data(digits(**setting))


def test_data_that_cannot_be_read_are_refused() -> None:
    cars = DataSpec(id=Dataset(dataset="stanford_cars", root="/nowhere"))
    with pytest.raises(UsageError, match=r"data\.id\.root: there is no folder /nowhere"):
        load_search_data(cars)
    with pytest.raises(UsageError, match="digits can be combined with the outliers"):
        load_search_data(digits("digits"))
    with pytest.raises(UsageError, match="webvision"):
        load_search_data(
            DataSpec(id=Dataset(dataset="digits"), outliers=Dataset(dataset="webvision", root="/x"))
        )


def test_the_description_counts_what_is_there() -> None:
    found = load_search_data(digits())
    described = describe_splits(digits())
    assert described["fingerprint"] == found.fingerprint
    assert described["images"] == {
        "train": len(found.train),
        "val": len(found.val),
        "val_fine": len(found.val_fine),
        "outliers": len(found.outliers),
        "val_coarse": len(found.val_coarse),
    }
    assert described["classes"] == {"train": list(found.classes)}


def test_the_digits_may_be_validated_with_the_other_photograph() -> None:
    spec = DataSpec(id=Dataset(dataset="digits"), outliers=Dataset(dataset="photo_china"))
    other = spec.model_copy(update={"val_coarse": Dataset(dataset="photo_flower")})
    before, after = load_search_data(spec), load_search_data(other)
    assert pixels(after.outliers) == pixels(before.outliers)
    assert pixels(after.val_coarse) == pixels(load_photo_patches("flower", "val"))
