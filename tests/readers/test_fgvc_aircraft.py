from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lmoe_tune.data.table import read_table
from lmoe_tune.readers import LayoutError
from lmoe_tune.testing.readers import ReaderCase
from tests.data import trees
from tests.readers.tables import assert_is_whole, table


class TestFgvcAircraft(ReaderCase):
    dataset = "fgvc_aircraft"

    def build(self, root: Path) -> Path:
        return trees.aircraft(root)


@pytest.mark.parametrize("root", ["", "data"])
def test_fgvc_aircraft(tmp_path: Path, root: str) -> None:
    found = table("fgvc_aircraft", trees.aircraft(tmp_path) / root)
    assert_is_whole(found)
    assert (
        found.classes == trees.VARIANTS
    )  # names with blanks and slashes, in the order of variants.txt
    assert Counter(found.official) == {"train": 24, "val": 24, "test": 24}
    assert found.crop_bottom == 20


def test_fgvc_aircraft_with_trainval_only(tmp_path: Path) -> None:
    trees.aircraft(tmp_path)
    for part in ("train", "val"):
        (tmp_path / f"data/images_variant_{part}.txt").unlink()
    reading = read_table("fgvc_aircraft", str(tmp_path))
    assert Counter(reading.official) == {"train": 48, "test": 24}
    assert reading.notes


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_an_empty_list_is_refused(tmp_path: Path, part: str) -> None:
    path = trees.aircraft(tmp_path) / f"data/images_variant_{part}.txt"
    path.write_text("", encoding="utf-8")
    with pytest.raises(LayoutError, match=f"images_variant_{part}.txt is empty"):
        table("fgvc_aircraft", tmp_path)


@pytest.mark.parametrize("parts", [("test",), ("val", "trainval")])
def test_a_missing_list_is_named(tmp_path: Path, parts: tuple[str, ...]) -> None:
    trees.aircraft(tmp_path)
    for part in parts:
        (tmp_path / f"data/images_variant_{part}.txt").unlink()
    with pytest.raises(LayoutError, match=f"FGVC-Aircraft, but lacks .*variant_{parts[-1]}.txt"):
        table("fgvc_aircraft", tmp_path)


def test_an_image_of_two_variants_is_refused(tmp_path: Path) -> None:
    path = trees.aircraft(tmp_path) / "data/images_variant_test.txt"
    path.write_text(path.read_text(encoding="utf-8") + "0000001 Yak-42\n", encoding="utf-8")
    said = r"0000001.jpg is '707-320' in train and 'Yak-42' in test"
    with pytest.raises(LayoutError, match=said):
        table("fgvc_aircraft", tmp_path)
