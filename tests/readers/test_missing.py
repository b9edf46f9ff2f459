from __future__ import annotations

from pathlib import Path

import pytest

from lmoe_tune.readers import READERS
from lmoe_tune.readers.recognition import missing

EMBEDDED = [name for name, reader in READERS.items() if reader.is_embedded]
ON_DISK = [name for name, reader in READERS.items() if not reader.is_embedded]


@pytest.mark.parametrize("dataset", EMBEDDED)
def test_nothing_is_missing_of_embedded_data(dataset: str) -> None:
    assert missing(dataset, None) is None


@pytest.mark.parametrize("dataset", ON_DISK)
def test_a_folder_that_does_not_exist_is_named_with_what_it_should_hold(
    dataset: str, tmp_path: Path
) -> None:
    said = missing(dataset, str(tmp_path / "absent"))
    assert said is not None
    assert f"there is no folder {tmp_path}/absent" in said
    for layout in READERS[dataset].layouts:
        if not layout.fix:
            assert ", ".join(layout.holds) in said
    assert f"To provide it: {READERS[dataset].source}" in said


@pytest.mark.parametrize("dataset", sorted(set(ON_DISK) - {"folder"}))
def test_what_a_folder_lacks_is_listed(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "readme.txt").write_text("", encoding="utf-8")
    said = missing(dataset, str(tmp_path / "there"))
    assert said is not None
    assert (
        f"{tmp_path}/there is there, but lacks {', '.join(READERS[dataset].layouts[0].holds)}"
        in said
    )


@pytest.mark.parametrize("dataset", ON_DISK)
def test_an_empty_folder_is_said_to_be_empty(dataset: str, tmp_path: Path) -> None:
    assert "is empty" in (missing(dataset, str(tmp_path)) or "")


def test_a_missing_folder_of_outliers_may_hold_images_directly(tmp_path: Path) -> None:
    said = missing("folder", str(tmp_path / "absent"), labelled=False)
    assert "or images, if it is for outliers or coarse OOD" in (said or "")


def test_a_file_in_the_place_of_the_folder_is_not_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "there is no folder" in (missing("folder", str(tmp_path / "file")) or "")


def test_a_folder_that_cannot_be_looked_at_is_said_to_be_so() -> None:
    said = missing("folder", "/" + "a" * 300)
    assert said is not None and "cannot be looked at (File name too long)" in said
