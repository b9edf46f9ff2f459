from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lmoe_tune.data.table import read_table
from lmoe_tune.readers import LayoutError
from lmoe_tune.testing.readers import ReaderCase
from tests.data import trees
from tests.readers.tables import assert_is_whole, table


class TestCub200(ReaderCase):
    dataset = "cub200"

    def build(self, root: Path) -> Path:
        return trees.cub(root)


def test_cub(tmp_path: Path) -> None:
    found = table("cub200", trees.cub(tmp_path))
    assert_is_whole(found)
    assert found.classes == tuple(f"{number:03d}.Some_Bird_{number}" for number in range(1, 5))
    assert Counter(found.official) == {"train": 12, "test": 12}


def test_lists_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    (tmp_path / "image_class_labels.txt").write_text("1 1\n", encoding="utf-8")
    with pytest.raises(
        LayoutError, match=r"image_class_labels.txt lacks images that images.txt has: 2, 3"
    ):
        table("cub200", tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (
            "train_test_split.txt",
            "\n3 1\n",
            "\n3 1.0\n",
            "do not end in 1 .train. or 0 .test.: '3 1.0'",
        ),
        ("train_test_split.txt", "\n3 1\n", "\n3 train\n", "'3 train'"),
        ("train_test_split.txt", "\n3 1\n", "\n3 1 7\n", "'3 1 7'"),
        ("train_test_split.txt", "\n3 1\n", "\n3 1\n3 0\n", "contradicts itself: 3 is '1' and '0'"),
        ("images.txt", "\n2 ", "\n1 ", "images.txt contradicts itself: 1 is '001"),
        (
            "images.txt",
            "\n2 001.Some_Bird_1/Some_Bird_0001.jpg",
            "",
            "lacks images that image_class",
        ),
    ],
)
def test_an_odd_line_in_a_list_is_refused_and_moves_no_image(
    tmp_path: Path, name: str, old: str, new: str, said: str
) -> None:
    path = trees.cub(tmp_path) / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(LayoutError, match=said):
        table("cub200", tmp_path)


def test_a_listed_file_is_found_in_another_case_or_suffix(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    folder = tmp_path / "images/001.Some_Bird_1"
    (folder / "Some_Bird_0000.jpg").rename(folder / "Some_Bird_0000.JPG")
    (folder / "Some_Bird_0001.jpg").rename(folder / "Some_Bird_0001.jpeg")
    found = read_table("cub200", str(tmp_path))
    assert not found.absent
    assert_is_whole(found)
