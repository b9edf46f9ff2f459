from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from lmoe_tune.data.table import read_table
from lmoe_tune.readers import LayoutError
from lmoe_tune.readers.names import (
    class_name,
    folded,
    path_key,
    read_lines,
    read_names,
    some,
    write_names,
)
from lmoe_tune.wording import printable
from tests.data import trees

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
NOT_UTF8 = os.fsdecode(b"caf\xe9")


def save_under(folder: Path, name: str, seed: int = 0) -> Path:
    """An image under a name that Pillow need not know the encoding of."""
    folder.mkdir(parents=True, exist_ok=True)
    image = trees.save(folder / f"plain {seed}.jpg", trees.picture(seed))
    return image.rename(folder / name)


@pytest.mark.parametrize(
    "names",
    [
        ["plain.jpg", "with blank.jpg", "Größe/ö.png", "日本.jpg"],
        [" blank before.jpg", "blank after.jpg ", "tab\there.jpg", "two\nlines.jpg", "cr\rx.jpg"],
        ['"quoted".jpg', '"', "back\\slash.jpg", "next\x85line.jpg", "separator\u2028.jpg"],
        [NOT_UTF8 + ".jpg", COMPOSED + ".jpg"],
    ],
)
def test_a_list_of_names_reads_back_what_was_written(tmp_path: Path, names: list[str]) -> None:
    write_names(tmp_path / "list.txt", names)
    assert read_names(tmp_path / "list.txt") == names


@pytest.mark.parametrize(
    "content",
    [
        "ant\nbée\n".encode(),
        "ant\nbée\n".encode("utf-8-sig"),
        "ant\nbée\n".encode("utf-16"),
        "ant\r\nbée\r\n".encode(),
        "ant\rbée".encode(),
        f"  ant\t\n\n{unicodedata.normalize('NFD', 'bée')} \n\n".encode(),
    ],
)
def test_lists_of_all_systems_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    assert read_lines(tmp_path / "list.txt") == ["ant", "bée"]


def test_a_list_that_is_not_utf8_names_the_file_that_is_not_either(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.jpg\n")
    (tmp_path / NOT_UTF8).with_suffix(".jpg").write_bytes(b"")
    (name,) = read_lines(tmp_path / "list.txt")
    assert (tmp_path / name).exists()


def test_names_are_shown_on_one_line_and_can_be_encoded() -> None:
    assert printable(NOT_UTF8) == "caf\\xe9"
    assert printable("two\nlines\t") == "two\\nlines\\t"
    assert printable("Größe") == "Größe"
    assert some([NOT_UTF8, *"abcdef"]) == "caf\\xe9, a, b, c, d and 2 more"


def test_class_names_are_composed_text_without_blanks_around_them() -> None:
    assert class_name(DECOMPOSED) == COMPOSED
    assert class_name(" cat ") == "cat"
    assert class_name(NOT_UTF8).encode() == b"caf\\xe9"


def test_spellings_of_one_path_have_one_key() -> None:
    assert path_key(f"{DECOMPOSED}\\x.jpg") == path_key(f"./{COMPOSED}/x.jpg")
    assert folded("Straße  7") == folded("STRASSE 7")
    assert folded(DECOMPOSED.upper()) == folded(COMPOSED)


def test_a_class_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    for part, name in (("train", COMPOSED), ("test", DECOMPOSED)):
        trees.class_folders(tmp_path / part, (name, "bar"), per_class=2, seed=len(part))
    table = read_table("folder", str(tmp_path))
    assert table.classes == ("bar", COMPOSED)
    assert sorted(table.labels.tolist()) == [0] * 4 + [1] * 4
    assert any("spelt in several ways are treated as one: café" in note for note in table.notes)


def test_classes_that_look_alike_are_pointed_out(tmp_path: Path) -> None:
    table = read_table("folder", str(trees.class_folders(tmp_path, ("Cat", "cat", "dog"), 2)))
    assert table.classes == ("Cat", "cat", "dog")
    assert any("'Cat' and 'cat'" in note for note in table.notes)


def test_a_class_that_train_has_in_another_case_is_named_with_it(tmp_path: Path) -> None:
    trees.class_folders(tmp_path / "train", ("Ant", "Bee"), 2)
    trees.class_folders(tmp_path / "test", ("ant", "Bee"), 2, seed=1)
    with pytest.raises(LayoutError, match=r"train lacks: ant \(did you mean 'Ant'\?\)"):
        read_table("folder", str(tmp_path))


def test_file_and_folder_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    for folder in (NOT_UTF8, "bar"):
        for seed in range(2):
            save_under(tmp_path / folder, f"{NOT_UTF8} {seed}.jpg", seed)
    table = read_table("folder", str(tmp_path))
    assert table.classes == ("bar", "caf\\xe9")
    assert all((table.root / path).is_file() for path in table.paths)


def test_a_listed_file_is_found_in_another_unicode_form_and_by_backslashes(tmp_path: Path) -> None:
    trees.skip_without_names_like(DECOMPOSED)
    trees.cub(tmp_path)
    images = tmp_path / "images"
    (images / "001.Some_Bird_1").rename(images / f"001.{DECOMPOSED}")
    (images / "002.Some_Bird_2/Some_Bird_0000.jpg").rename(
        images / f"002.Some_Bird_2/{DECOMPOSED}.jpg"
    )
    listed = (tmp_path / "images.txt").read_text(encoding="utf-8")
    listed = listed.replace("001.Some_Bird_1", f"001.{COMPOSED}")
    listed = listed.replace("002.Some_Bird_2/Some_Bird_0000", f"002.Some_Bird_2/{COMPOSED}")
    listed = listed.replace("/", "\\").replace("\n", "\r\n")
    (tmp_path / "images.txt").write_bytes(listed.encode("utf-8-sig"))

    table = read_table("cub200", str(tmp_path))
    assert not table.absent and len(table) == 24
    assert all((table.root / path).is_file() for path in table.paths)
    assert f"images/001.{DECOMPOSED}/Some_Bird_0001.jpg" in table.paths
