from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lmoe_tune.readers import LayoutError
from lmoe_tune.readers.recognition import find_layout
from tests.data import trees


@pytest.mark.parametrize(
    ("dataset", "build", "inside"),
    [
        ("stanford_cars", trees.cars, "cars_train"),
        ("fgvc_aircraft", trees.aircraft, "data/images"),
        ("nabirds", trees.nabirds, "images"),
        ("cub200", trees.cub, "images"),
        ("butterfly200", trees.butterflies, "images_small"),
        ("webvision", trees.webvision, "google"),
    ],
)
def test_a_folder_inside_is_told_with_the_root_to_set(
    tmp_path: Path, dataset: str, build: Callable[[Path], Path], inside: str
) -> None:
    root = build(tmp_path / "a")
    with pytest.raises(LayoutError) as caught:
        find_layout(dataset, root / inside)
    assert "is a folder inside" in caught.value.what
    assert caught.value.fix in (f"set root to {root}", f"set root to {root / 'data'}")


def test_a_class_folder_upload_one_level_deeper_is_told(tmp_path: Path) -> None:
    for part in ("train", "test"):
        trees.class_folders(tmp_path / "archive" / part, trees.CAR_NAMES[:3])
    with pytest.raises(LayoutError) as caught:
        find_layout("stanford_cars", tmp_path)
    assert "class-folder re-upload of Stanford Cars one level deeper" in caught.value.what
    assert caught.value.fix == f"set root to {tmp_path / 'archive'}"


def test_class_folders_named_as_those_of_another_set_are_told(tmp_path: Path) -> None:
    trees.class_folders(tmp_path, ("001.Black_footed_Albatross", "002.Laysan_Albatross"))
    with pytest.raises(LayoutError, match="named as those of Butterfly-200 or CUB-200-2011"):
        find_layout("stanford_cars", tmp_path)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("1.jpg", "2.jpg"), "the images lie directly in"),
        (("one/1.jpg", "one/2.jpg"), "images in one folder only"),
        (("x.txt",), "holds no images"),
        (("a/b/1.jpg", "a/c/1.jpg"), "class folders one level deeper"),
    ],
)
def test_folders_that_are_no_class_folders(
    tmp_path: Path, names: tuple[str, ...], what: str
) -> None:
    for name in names:
        if name.endswith(".jpg"):
            trees.save(tmp_path / name)
        else:
            (tmp_path / name).write_text("", encoding="utf-8")
    with pytest.raises(LayoutError, match=what):
        find_layout("folder", tmp_path)


@pytest.mark.parametrize(
    ("dataset", "build", "lost", "inside"),
    [
        ("nabirds", trees.nabirds, "train_test_split.txt", "images"),
        ("cub200", trees.cub, "image_class_labels.txt", "images"),
        ("stanford_cars", trees.cars, "devkit/cars_meta.mat", "cars_train"),
        ("fgvc_aircraft", trees.aircraft, "data/images_variant_test.txt", "data"),
    ],
)
def test_a_public_set_without_one_of_its_lists_is_not_read_as_class_folders(
    tmp_path: Path, dataset: str, build: Callable[[Path], Path], lost: str, inside: str
) -> None:
    root = build(tmp_path / "a")
    (root / lost).unlink()
    for tried in (root, root / inside, tmp_path):
        with pytest.raises(LayoutError, match=f"{root} looks like .*, but lacks .*{lost}"):
            find_layout(dataset, tried)


@pytest.mark.parametrize(
    ("dataset", "build", "name", "other"),
    [
        ("stanford_cars", trees.cars, "cars_train", "Cars_Train"),
        ("stanford_cars", trees.car_ims, "car_ims", "Car_Ims"),
        ("fgvc_aircraft", trees.aircraft, "data/images", "data/Images"),
        ("butterfly200", trees.butterflies, "images_small", "Images_small"),
        ("webvision", trees.webvision, "google", "Google"),
    ],
)
def test_a_folder_in_another_case_is_named_with_its_right_name(
    tmp_path: Path, dataset: str, build: Callable[[Path], Path], name: str, other: str
) -> None:
    root = build(tmp_path / "a")
    if dataset == "webvision":
        shutil.rmtree(root / "flickr")
    (root / name).rename(root / other)
    with pytest.raises(LayoutError, match=f"but has {other} instead of {name}") as caught:
        find_layout(dataset, root)
    assert caught.value.fix == f"rename {other} to {name}"


@pytest.mark.parametrize("dataset", ["folder", "stanford_cars"])
@pytest.mark.parametrize(
    "names", [("training_set", "test_set"), ("test", "train_images"), ("TEST", "Train2", "val")]
)
def test_of_several_folders_with_class_folders_none_is_proposed(
    tmp_path: Path, dataset: str, names: tuple[str, ...]
) -> None:
    for name in names:
        trees.class_folders(tmp_path / "set" / name, per_class=1)
    for root in (tmp_path, tmp_path / "set"):
        with pytest.raises(LayoutError) as caught:
            find_layout(dataset, root)
        said = f"{tmp_path / 'set'} has several folders with class folders in them"
        assert said in caught.value.what and all(name in caught.value.what for name in names)
        assert "rename them to train/, val/ and test/" in caught.value.fix


def test_a_test_folder_alone_is_not_proposed(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "test", per_class=1)
    with pytest.raises(LayoutError, match="has class folders in test/, but none in train/"):
        find_layout("folder", tmp_path)


def test_an_upload_in_class_folders_may_hold_some_names_of_the_original(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "birds", ("0295", "0313"))
    trees.text(tmp_path / "birds/classes.txt", ["295 Eider"])
    assert find_layout("nabirds", tmp_path / "birds").name == "class folders"
    for part in ("cars_train", "cars_test"):
        trees.class_folders(tmp_path / "cars" / part, trees.CAR_NAMES[:2])
    with pytest.raises(LayoutError, match="several folders with class folders"):
        find_layout("stanford_cars", tmp_path / "cars")
