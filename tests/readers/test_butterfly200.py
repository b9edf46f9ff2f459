from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lmoe_tune.data.table import read_table
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
