from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lmoe_tune.data.table import read_table
from lmoe_tune.testing.readers import ReaderCase
from tests.data import trees
from tests.readers.tables import assert_is_whole, class_of, table


class TestWebvision(ReaderCase):
    dataset = "webvision"

    def build(self, root: Path) -> Path:
        return trees.webvision(root)


@pytest.mark.parametrize("lists", [True, False])
def test_webvision_folders_are_queries_for_synsets(tmp_path: Path, lists: bool) -> None:
    found = table("webvision", trees.webvision(tmp_path, lists=lists))
    assert_is_whole(found)
    assert found.classes == trees.SYNSETS
    assert len(found) == 16 * 6 + 8 * 6
    assert (
        class_of(found, "google/q0001/0abc.jpg")
        == class_of(found, "google/q0002/0abc.jpg")
        == trees.SYNSETS[0]
    )
    assert class_of(found, "flickr/q0015/0abc.jpg") == trees.SYNSETS[7]


def test_a_part_of_webvision_is_enough(tmp_path: Path) -> None:
    trees.webvision(tmp_path)
    shutil.rmtree(tmp_path / "flickr")
    for query in range(3, 17):
        shutil.rmtree(tmp_path / "google" / f"q{query:04d}")
    reading = read_table("webvision", str(tmp_path))
    assert_is_whole(reading)
    assert reading.classes == trees.SYNSETS[:1]
    assert not reading.absent  # the folders that are not there are no loss
    assert any("no flickr/" in note for note in reading.notes)


def test_files_that_a_list_names_and_that_are_not_there_are_reported(tmp_path: Path) -> None:
    trees.webvision(tmp_path)
    (tmp_path / "google/q0001/0abc.jpg").unlink()
    assert read_table("webvision", str(tmp_path)).absent == ("google/q0001/0abc.jpg",)
