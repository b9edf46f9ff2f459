from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lmoe_tune.data.overlap import sealed_images, validated_there_sealed_here
from lmoe_tune.data.sealed_images import open_test_data
from lmoe_tune.spec import Dataset, DataSpec
from tests.data import trees

DIGITS = DataSpec(id=Dataset(dataset="digits"), outliers=Dataset(dataset="photo_china"))


def test_no_split_validates_with_its_own_test(tmp_path: Path) -> None:
    for split in range(3):
        data = DIGITS.model_copy(update={"split": split})
        assert validated_there_sealed_here(data, data, tmp_path) == 0


def test_another_split_does_and_a_limit_does_not_hide_it(tmp_path: Path) -> None:
    other = DIGITS.model_copy(update={"split": 1})
    assert validated_there_sealed_here(other, DIGITS, tmp_path) > 100

    few = other.model_copy(update={"id": Dataset(dataset="digits", limit=600)})
    found = validated_there_sealed_here(few, DIGITS, tmp_path)
    assert 0 < found < validated_there_sealed_here(other, DIGITS, tmp_path)


@pytest.mark.parametrize("split", [0, 3])
def test_the_sealed_digits_are_those_that_a_confirmation_opens(split: int, tmp_path: Path) -> None:
    data = DIGITS.model_copy(update={"split": split})
    sizes = open_test_data(data).test.sizes
    assert len(sealed_images(data, tmp_path)) == sizes["id"] + sizes["fine"]


def folder(root: Path, **settings: object) -> DataSpec:
    """A spec over `root/mine`, with the outliers of `root/others`."""
    return DataSpec(
        id=Dataset(dataset="folder", root=str(root / "mine")),
        outliers=Dataset(dataset="folder", root=str(root / "others")),
        **settings,
    )


def test_files_are_told_by_their_content_wherever_they_lie(tmp_path: Path) -> None:
    first = tmp_path / "first"
    names = tuple("abcdefgh")
    trees.class_folders(first / "mine", names, per_class=12)
    trees.class_folders(first / "others", ("house", "tree"), per_class=12, seed=1)
    second = shutil.copytree(first, tmp_path / "second")

    here = folder(first)
    assert validated_there_sealed_here(folder(second), here, tmp_path) == 0
    other = validated_there_sealed_here(folder(second, split=1), here, tmp_path)
    assert 0 < other <= len(sealed_images(here, tmp_path))


def test_a_coarse_set_that_was_validated_with_is_no_test(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "mine", tuple("abcdefgh"), per_class=12)
    trees.class_folders(tmp_path / "others", ("house", "tree"), per_class=12, seed=1)
    trees.class_folders(tmp_path / "pots", ("pot", "pan"), per_class=3, seed=2)
    pots = Dataset(dataset="folder", root=str(tmp_path / "pots"))

    there, here = folder(tmp_path, val_coarse=pots), folder(tmp_path, coarse_ood=(pots,))
    assert validated_there_sealed_here(there, here, tmp_path) == 6
