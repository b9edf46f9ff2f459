from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from lmoe_tune.data.exclusion import exclude, plain_name, same_classes, shows
from lmoe_tune.data.table import read_table
from lmoe_tune.readers import READERS
from tests.data import trees

BIRDS = (
    "n01514668 cock",
    "n02012849 crane",
    "n01608432 kite",
    "n02058221 albatross, mollymawk",
    "n01847000 drake",
)
CARS = (
    "n04285008 sports car, sport car",
    "n02930766 cab, hack, taxi, taxicab",
    "n03594945 jeep, landrover",
    "n03777568 Model T",
    "n02814533 beach wagon, station wagon, wagon, estate car, beach waggon, station waggon, waggon",
    "n03770679 minivan",
    "n03459775 grille, radiator grille",
)
AIRCRAFT = ("n02690373 airliner", "n04552348 warplane, military plane", "n04592741 wing")
BUTTERFLIES = (
    "n02276258 admiral",
    "n02281787 lycaenid, lycaenid butterfly",
    "n02277742 ringlet, ringlet butterfly",
)
OTHERS = (
    "n03126707 crane",
    "n03954731 plane, carpenter's plane, woodworking plane",
    "n01440764 tench, Tinca tinca",
    "n02268443 dragonfly, darning needle, devil's darning needle",
    "n02123045 tabby, tabby cat",
    "n04461879 toyshop",
    "n02963159 cardigan",
    "n02965783x carton",
    "n07753592 banana",
    "n01629819 European fire salamander, Salamandra salamandra",
    "n01871265 tusker",
    "n02066245 grey whale, gray whale",
    "n02317335 starfish, sea star",
)


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ("stanford_cars", CARS),
        ("fgvc_aircraft", AIRCRAFT),
        ("nabirds", BIRDS),
        ("cub200", BIRDS),
        ("butterfly200", BUTTERFLIES),
    ],
)
def test_synsets_of_what_is_learnt_are_told_from_others(
    dataset: str, shown: tuple[str, ...]
) -> None:
    others = [
        synset
        for group in (BIRDS, CARS, AIRCRAFT, BUTTERFLIES, OTHERS)
        for synset in group
        if synset not in shown
    ]
    kind = READERS[dataset].shows
    assert kind is not None
    assert [synset for synset in shown if not shows(synset, kind)] == []
    assert [synset for synset in others if shows(synset, kind)] == []


def test_both_cranes_are_told_apart_by_their_numbers(tmp_path: Path) -> None:
    table = read_table("webvision", str(trees.webvision(tmp_path)), labelled=False)
    found = exclude(table, (), "nabirds")
    assert found.by_kind == ("n01514668 cock", "n02012849 crane")
    assert {table.classes[label] for label in table.labels[found.kept]} == set(trees.SYNSETS) - set(
        found.by_kind
    )
    assert exclude(table, (), "folder").kept.all()


@pytest.mark.parametrize("entry", ["n07753592", "banana", "Banana", "n07753592 banana"])
def test_a_synset_is_named_by_its_number_or_one_of_its_names(tmp_path: Path, entry: str) -> None:
    table = read_table("webvision", str(trees.webvision(tmp_path, 2)), labelled=False)
    assert exclude(table, (entry,), None).by_name == ("n07753592 banana",)


def test_an_ambiguous_name_leaves_out_all_that_have_it(tmp_path: Path) -> None:
    table = read_table("webvision", str(trees.webvision(tmp_path, 2)), labelled=False)
    assert exclude(table, ("crane",), None).by_name == ("n02012849 crane", "n03126707 crane")


def test_single_images_are_left_out_by_their_paths(tmp_path: Path) -> None:
    table = read_table("folder", str(trees.class_folders(tmp_path)), labelled=False)
    (tmp_path / "list.txt").write_text("ant/img 0.jpg\nbee/img 1.jpg\n", encoding="utf-8")
    found = exclude(table, (str(tmp_path / "list.txt"), "cat/img 5.jpg"), None)
    assert [table.paths[index] for index in (~found.kept).nonzero()[0]] == [
        "ant/img 0.jpg",
        "bee/img 1.jpg",
        "cat/img 5.jpg",
    ]
    assert not found.unmatched


def test_names_are_compared_without_case_punctuation_and_numbers() -> None:
    assert (
        plain_name("001.Black_footed_Albatross")
        == plain_name("black-footed albatross")
        == "black footed albatross"
    )
    assert plain_name("n04285008 sports car") == "sports car"
    assert plain_name("707-320") == "707 320"


def test_classes_of_the_same_name_are_found_but_not_numbered_ones(tmp_path: Path) -> None:
    tables = [
        read_table("folder", str(trees.class_folders(tmp_path / place, names, 1)))
        for place, names in (
            ("a", ("class_1", "02", "Sports_Car")),
            ("b", ("class_1", "02", "sports car")),
        )
    ]
    assert same_classes(*tables) == [("Sports_Car", "sports car")]


def test_classes_are_the_same_in_any_unicode_form_and_case(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Café Größe") for form in ("NFC", "NFD"))
    learnt = read_table("folder", str(trees.class_folders(tmp_path / "a", (composed, "b"), 1)))
    other = read_table(
        "folder", str(trees.class_folders(tmp_path / "b", (decomposed.upper(), "c"), 1))
    )
    assert [pair[0] for pair in same_classes(learnt, other)] == [composed]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "entry", ["café/img 0.jpg", r"café\img 0.jpg", "./café/img 0.jpg", "{root}"]
)
def test_a_path_is_left_out_in_any_spelling(tmp_path: Path, form: str, entry: str) -> None:
    folder = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "café")
    table = read_table("folder", str(trees.class_folders(tmp_path, (folder, "bar"), 2)))
    entry = unicodedata.normalize(form, entry).replace("{root}", f"{tmp_path}/{folder}/img 0.jpg")
    found = exclude(table, (entry,), None)
    assert [table.paths[index] for index in (~found.kept).nonzero()[0]] == [f"{folder}/img 0.jpg"]
    assert not found.unmatched_paths


def test_a_list_from_windows_leaves_out_what_it_names(tmp_path: Path) -> None:
    table = read_table("folder", str(trees.class_folders(tmp_path / "set", ("ant", "bee"), 2)))
    (tmp_path / "list.txt").write_bytes("ant\\img 0.jpg\r\nBee\r\n".encode("utf-16"))
    found = exclude(table, (str(tmp_path / "list.txt"),), None)
    assert [table.paths[index] for index in found.kept.nonzero()[0]] == ["ant/img 1.jpg"]


@pytest.mark.parametrize(
    ("entry", "nearest"),
    [
        ("ant/img 11.jpg", "ant/img 1.jpg"),
        ("nat/img 1.jpg", "ant/img 1.jpg"),
        ("ant/IMG 1.jpg", "ant/img 1.jpg"),
        ("nosuch/x.png", ""),
    ],
)
def test_a_path_that_matches_nothing_is_reported_with_the_nearest(
    tmp_path: Path, entry: str, nearest: str
) -> None:
    table = read_table("folder", str(trees.class_folders(tmp_path, ("ant", "bee"), 2)))
    found = exclude(table, (entry,), None)
    assert found.kept.all()
    assert found.unmatched_paths == {entry: nearest}
