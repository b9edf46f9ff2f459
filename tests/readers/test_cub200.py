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
        LayoutError, match=r"image_class_labels.txt lacks the image 2 of images.txt"
    ):
        table("cub200", tmp_path)


def test_a_listed_file_is_found_in_another_case_or_suffix(tmp_path: Path) -> None:
    trees.cub(tmp_path)
    folder = tmp_path / "images/001.Some_Bird_1"
    (folder / "Some_Bird_0000.jpg").rename(folder / "Some_Bird_0000.JPG")
    (folder / "Some_Bird_0001.jpg").rename(folder / "Some_Bird_0001.jpeg")
    found = read_table("cub200", str(tmp_path))
    assert not found.absent
    assert_is_whole(found)
