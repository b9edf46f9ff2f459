from __future__ import annotations

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
