from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lmoe_tune.data.table import read_table
from lmoe_tune.readers import LayoutError
from lmoe_tune.testing.readers import ReaderCase
from tests.data import trees
from tests.readers.tables import assert_is_whole, table


class TestButterfly200(ReaderCase):
    dataset = "butterfly200"

    def build(self, root: Path) -> Path:
        return trees.butterflies(root)


@pytest.mark.parametrize("lists", [True, False])
def test_butterfly_200(tmp_path: Path, lists: bool) -> None:
    reading = read_table("butterfly200", str(trees.butterflies(tmp_path, lists=lists)))
    found = reading
    assert_is_whole(found)
    assert found.classes == tuple(f"{n:03d}.Genus_species{n}" for n in (1, 2, 10, 139))
    assert Counter(found.official) == ({"train": 8, "val": 8, "test": 8} if lists else {"": 24})
    assert bool(reading.notes) is not lists


def test_butterfly_folders_without_leading_zeros_keep_the_order_of_their_numbers(
    tmp_path: Path,
) -> None:
    for number in (1, 2, 10, 100):
        trees.save(
            tmp_path / "images_small" / f"{number}.Some_name" / "001.jpg", trees.picture(number)
        )
    assert [name.split(".")[0] for name in table("butterfly200", tmp_path).classes] == [
        "1",
        "2",
        "10",
        "100",
    ]


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_two_of_the_three_lists_make_no_split(tmp_path: Path, part: str) -> None:
    (trees.butterflies(tmp_path) / f"Butterfly200_{part}_release.txt").unlink()
    with pytest.raises(LayoutError, match=f"but lacks Butterfly200_{part}_release.txt"):
        table("butterfly200", tmp_path)


def test_the_lists_are_found_in_another_case(tmp_path: Path) -> None:
    name = trees.butterflies(tmp_path) / "Butterfly200_test_release.txt"
    name.rename(tmp_path / "BUTTERFLY200_TEST_RELEASE.TXT")
    assert Counter(table("butterfly200", tmp_path).official)["test"] == 8
