from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from lmoe_tune.data.catalogue import CATALOGUE, missing
from lmoe_tune.data.readers import READERS
from lmoe_tune.spec.datasets import EMBEDDED, DatasetName

ON_DISK = sorted(set(CATALOGUE) - EMBEDDED)


def test_the_catalogue_holds_every_name_that_a_spec_may_use() -> None:
    assert set(CATALOGUE) == set(get_args(DatasetName))
    assert {name for name, info in CATALOGUE.items() if info.embedded} == EMBEDDED


def test_every_data_set_on_the_disk_has_a_reader() -> None:
    assert set(READERS) == set(ON_DISK)


def test_the_published_numbers_are_those_of_mixoe() -> None:
    published = {
        "stanford_cars": (196, 150),
        "fgvc_aircraft": (100, 90),
        "butterfly200": (200, 150),
        "digits": (10, 7),
    }
    for name, numbers in published.items():
        assert (CATALOGUE[name].num_classes, CATALOGUE[name].num_id_classes) == numbers


@pytest.mark.parametrize("dataset", sorted(EMBEDDED))
def test_nothing_is_missing_of_embedded_data(dataset: str) -> None:
    assert missing(dataset, None) is None


@pytest.mark.parametrize("dataset", ON_DISK)
def test_a_folder_that_does_not_exist_is_named_with_what_it_should_hold(
    dataset: str, tmp_path: Path
) -> None:
    said = missing(dataset, str(tmp_path / "absent"))
    assert said is not None
    assert f"there is no folder {tmp_path}/absent" in said
    for layout in READERS[dataset]:
        if not layout.fix:
            assert ", ".join(layout.holds) in said
    assert f"To provide it: {CATALOGUE[dataset].source}" in said


@pytest.mark.parametrize("dataset", sorted(set(ON_DISK) - {"folder"}))
def test_what_a_folder_lacks_is_listed(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "readme.txt").write_text("", encoding="utf-8")
    said = missing(dataset, str(tmp_path / "there"))
    assert said is not None
    assert f"{tmp_path}/there is there, but lacks {', '.join(READERS[dataset][0].holds)}" in said


@pytest.mark.parametrize("dataset", ON_DISK)
def test_an_empty_folder_is_said_to_be_empty(dataset: str, tmp_path: Path) -> None:
    assert "is empty" in (missing(dataset, str(tmp_path)) or "")


def test_a_file_in_the_place_of_the_folder_is_not_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "there is no folder" in (missing("folder", str(tmp_path / "file")) or "")
