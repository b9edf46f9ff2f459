from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from lmoe_tune.data.catalogue import CATALOGUE, missing
from lmoe_tune.spec.datasets import EMBEDDED, DatasetName

ON_DISK = sorted(set(CATALOGUE) - EMBEDDED)
LAYOUTS = [(name, layout) for name in ON_DISK for layout in CATALOGUE[name].layouts]


def provide(root: Path, layout: tuple[str, ...]) -> list[Path]:
    """An empty stand-in for everything that a layout names."""
    paths = [root / name for name in layout]
    for path in [root, *paths]:
        path.mkdir(parents=True, exist_ok=True)
    return paths


def test_the_catalogue_holds_every_name_that_a_spec_may_use() -> None:
    assert set(CATALOGUE) == set(get_args(DatasetName))
    assert {name for name, info in CATALOGUE.items() if info.embedded} == EMBEDDED


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
def test_a_folder_that_does_not_exist_is_named_with_what_it_should_hold(dataset: str, tmp_path: Path) -> None:
    said = missing(dataset, str(tmp_path / "absent"))
    assert said is not None
    assert f"there is no folder {tmp_path}/absent" in said
    for layout in CATALOGUE[dataset].layouts:
        assert ", ".join(layout) in said
    assert f"To provide it: {CATALOGUE[dataset].source}" in said


@pytest.mark.parametrize(("dataset", "layout"), LAYOUTS)
def test_a_folder_of_any_known_layout_lacks_nothing(dataset: str, layout: tuple[str, ...], tmp_path: Path) -> None:
    """What is there but not yet readable is said as that, and not as missing."""
    provide(tmp_path / "there", layout)
    said = missing(dataset, str(tmp_path / "there"))
    if CATALOGUE[dataset].readable:
        assert said is None
    else:
        assert said is not None
        assert "is there, but this version cannot read it; it reads digits" in said
        assert "not found" not in said


@pytest.mark.parametrize(("dataset", "layout"), [entry for entry in LAYOUTS if len(entry[1]) > 1])
def test_only_what_a_folder_lacks_is_listed(dataset: str, layout: tuple[str, ...], tmp_path: Path) -> None:
    provide(tmp_path / "there", layout)[-1].rmdir()
    said = missing(dataset, str(tmp_path / "there"))
    assert said is not None
    listed = said.split(" lacks ")[1].split(" To provide it")[0].rstrip(".")
    assert f"{tmp_path}/there is there, but lacks " in said
    assert layout[-1] in listed.split(", or ")[CATALOGUE[dataset].layouts.index(layout)].split(", ")
    if len(CATALOGUE[dataset].layouts) == 1:
        assert listed == layout[-1]


def test_a_mixture_of_two_layouts_is_neither(tmp_path: Path) -> None:
    """The annotations of one packing of Stanford Cars do not describe the images of the other."""
    provide(tmp_path, ("cars_train", "cars_test", "cars_annos.mat"))
    assert "not found" in (missing("stanford_cars", str(tmp_path)) or "")


def test_a_file_in_the_place_of_the_folder_is_not_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "there is no folder" in (missing("folder", str(tmp_path / "file")) or "")
