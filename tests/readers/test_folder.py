from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lmoe_tune.data.table import read_table
from lmoe_tune.readers import LayoutError
from lmoe_tune.testing.readers import ReaderCase
from tests.data import trees
from tests.readers.tables import assert_is_whole, table


class TestFolder(ReaderCase):
    dataset = "folder"

    def build(self, root: Path) -> Path:
        return trees.class_folders(root)


def test_class_folders(tmp_path: Path) -> None:
    found = table("folder", trees.class_folders(tmp_path, ("b", "a", "C", "with blank")))
    assert_is_whole(found)
    assert found.classes == ("C", "a", "b", "with blank")
    assert set(found.official) == {""}


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "valid", "TEST"), ("train", "validation")]
)
def test_split_folders_in_all_their_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        trees.class_folders(tmp_path / name, per_class=2, seed=number)
    found = table("folder", tmp_path)
    assert_is_whole(found)
    assert found.classes == ("ant", "bee", "cat", "dog")
    assert Counter(found.official) == dict.fromkeys(("train", "val", "test")[: len(names)], 8)


def test_what_is_no_class_folder_is_ignored_and_said(tmp_path: Path) -> None:
    trees.class_folders(tmp_path, ("ant", "bee"))
    for name in (".hidden", "__MACOSX", "@eaDir"):
        trees.save(tmp_path / name / "x.jpg")
    (tmp_path / "empty").mkdir()
    trees.save(tmp_path / "ant" / "._img 0.jpg")
    (tmp_path / "ant" / "Thumbs.db").write_text("", encoding="utf-8")
    trees.save(tmp_path / "ant" / "UPPER.JPEG")
    trees.save(tmp_path / "bee" / "more" / "deep.png")
    trees.save(tmp_path / "stray.jpg")
    reading = read_table("folder", str(tmp_path))
    assert_is_whole(reading)
    assert reading.classes == ("ant", "bee")
    assert len(reading) == 14
    assert "ant/UPPER.JPEG" in reading.paths and "bee/more/deep.png" in reading.paths
    said = " ".join(reading.notes)
    assert "empty" in said and "ant/Thumbs.db" in said and "images directly in" in said
    assert "hidden" not in said


def test_a_class_of_the_test_folder_that_is_not_trained_on_is_refused(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "train", ("ant", "bee"))
    trees.class_folders(tmp_path / "test", ("ant", "wasp"), seed=1)
    with pytest.raises(LayoutError, match="that train lacks: wasp"):
        table("folder", tmp_path)


def test_an_unlabelled_test_folder_is_left_out_and_said(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "train", ("ant", "bee"))
    trees.save(tmp_path / "test" / "1.jpg")
    reading = read_table("folder", str(tmp_path))
    assert Counter(reading.official) == {"train": 12}
    assert any("test/ have no class folders" in note for note in reading.notes)


def test_outliers_may_be_any_images(tmp_path: Path) -> None:
    for name in ("1.jpg", "deep/er/2.png", "deep/3.JPG"):
        trees.save(tmp_path / name)
    found = read_table("folder", str(tmp_path), labelled=False)
    assert found.paths == ("1.jpg", "deep/3.JPG", "deep/er/2.png")
    assert found.classes == ("deep",)
    assert found.labels.tolist() == [-1, 0, 0]


def test_a_link_to_a_folder_above_is_not_followed_and_one_beside_is(tmp_path: Path) -> None:
    root = trees.class_folders(tmp_path / "set", ("ant", "bee"))
    trees.save(tmp_path / "elsewhere" / "more.jpg")
    (root / "ant" / "up").symlink_to("..")
    (root / "ant" / "self").symlink_to(".")
    (root / "ant" / "more").symlink_to(tmp_path / "elsewhere")

    reading = read_table("folder", str(root))

    assert "ant/more/more.jpg" in reading.paths
    assert not [path for path in reading.paths if "/up/" in path or "/self/" in path]


@pytest.mark.parametrize(
    ("link", "target"), [("ant", "bee"), ("train/ant", "train/bee"), ("test", "train")]
)
def test_a_link_that_makes_copies_of_a_class_is_refused(
    tmp_path: Path, link: str, target: str
) -> None:
    for part in {"", target.rpartition("/")[0], target}:
        if part in ("", "train"):
            trees.class_folders(tmp_path / part, ("bee", "cat", "dog"))
    (tmp_path / link).symlink_to(tmp_path / target)
    with pytest.raises(LayoutError, match="is a link to .*, so its images would be there twice"):
        table("folder", tmp_path)
