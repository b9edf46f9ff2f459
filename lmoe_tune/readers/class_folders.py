"""Class folders, `class/img.jpg`, with or without `train`, `val` and `test` above them.

The layout of users' own data and of re-uploaded public sets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lmoe_tune.readers.files import SUFFIXES, has_images, images_below, subfolders
from lmoe_tune.readers.layout import Entry, Layout, LayoutError, Reading
from lmoe_tune.readers.names import class_name, folded, some
from lmoe_tune.readers.reading import make_reading

SPLIT_FOLDERS = {
    "train": "train", "training": "train", "trainval": "train", "val": "val", "valid": "val",
    "validation": "val", "dev": "val", "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip
"""What people call the parts of a split."""


def is_split(root: Path) -> bool:
    """Whether a folder holds train/ (and val/, test/) with class folders."""
    parts = _split_folders(root)
    return any(part == "train" and is_plain(root / name) for name, part in parts.items())


def is_plain(root: Path) -> bool:
    """Whether at least two folders of a folder hold images directly."""
    found = 0
    for name in subfolders(root):
        found += has_images(root / name)
        if found == 2:
            return not _split_folders(root).keys() >= set(subfolders(root))
    return False


def read_any_images(root: Path) -> Reading:
    """All images below a folder, as deep as `images_below` goes; an image's class is the folder right below the root,
    if any."""
    entries = []
    for path in images_below(root):
        folder, _, _ = path.rpartition("/")
        entries.append(Entry(path, folder.partition("/")[0]))

    return _reading(entries, _ignored(root, entries))


def _read_split(root: Path) -> Reading:
    entries: list[Entry] = []
    notes: list[str] = []

    for name, part in _split_folders(root).items():
        classes = [has_images(root / name / below) for below in subfolders(root / name)]
        if part == "test" and not any(classes) and has_images(root / name):
            notes.append(f"the images in {name}/ have no class folders and are left out")
            continue
        more, said = _entries(root, f"{name}/", part)
        entries += more
        notes += said
        if not more:
            notes.append(f"there is no image in the class folders of {name}/")

    others = [name for name in subfolders(root) if folded(name) not in SPLIT_FOLDERS]
    if others:
        notes.append(f"folders beside the split are left out: {some(others)}")

    trained = {class_name(entry.label) for entry in entries if entry.official == "train"}
    unseen = sorted({class_name(entry.label) for entry in entries} - trained)
    if unseen:
        raise LayoutError(
            f"{root} has classes in its validation or test folder that train lacks: "
            f"{some([_with_twin(name, trained) for name in unseen])}",
            "give every class the same name in all of them, and images in train",
        )
    _refuse_one_folder_twice(root, entries, depth=2)
    return _reading(entries, notes)


def _with_twin(name: str, others: set[str]) -> str:
    """The name of a class, and the one that differs from it only in case or blanks."""
    for other in others:
        if folded(other) == folded(name):
            return f"{name} (did you mean '{other}'?)"
    return name


def _read_plain(root: Path) -> Reading:
    entries, notes = _entries(root, "", "")
    _refuse_one_folder_twice(root, entries, depth=1)
    return _reading(entries, notes + _ignored(root, entries))


def _refuse_one_folder_twice(root: Path, entries: list[Entry], *, depth: int) -> None:
    """A link makes copies of a class's images, which would be another class or another part."""
    folders = dict.fromkeys("/".join(entry.path.split("/")[:depth]) for entry in entries)
    first: dict[str, str] = {}

    for folder in folders:
        other = first.setdefault(os.path.realpath(root / folder), folder)
        if other != folder:
            raise LayoutError(
                f"{root / folder} is a link to {other}, so its images would be there twice",
                "remove the link, or put images of its own there",
            )


def _entries(root: Path, prefix: str, official: str) -> tuple[list[Entry], list[str]]:
    """The images of the class folders in `root/prefix`, and what was left out."""
    entries: list[Entry] = []
    empty: list[str] = []
    for name in subfolders(root / prefix):
        paths = list(images_below(root / prefix / name))
        entries += [Entry(f"{prefix}{name}/{path}", name, official) for path in paths]
        if not paths:
            empty.append(f"{prefix}{name}")

    notes = []
    if empty:
        notes.append(f"folders without an image are left out: {some(empty)}")
    if has_images(root / prefix):
        notes.append(f"images directly in {root / prefix} have no class and are left out")
    return entries, notes


def _reading(entries: list[Entry], notes: list[str]) -> Reading:
    classes = sorted({entry.label for entry in entries} - {""}, key=class_name)
    return make_reading(entries, classes=classes, notes=notes)


def _split_folders(root: Path) -> dict[str, str]:
    """Folders named like parts of a split, with their parts; the training part first."""
    found = [name for name in subfolders(root) if folded(name) in SPLIT_FOLDERS]
    part_of = {name: SPLIT_FOLDERS[folded(name)] for name in found}
    return dict(sorted(part_of.items(), key=lambda item: ("train", "val", "test").index(item[1])))


def _ignored(root: Path, entries: list[Entry]) -> list[str]:
    """A note on files without an image's suffix, in the folders that hold images."""
    folders = sorted({entry.path.rpartition("/")[0] for entry in entries})
    others = [f"{folder}/{name}" for folder in folders for name in _not_images(root / folder)]
    if not others:
        return []

    known = ", ".join(sorted(SUFFIXES))
    return [f"files without the suffix of an image are left out: {some(others)} (known: {known})"]


def _not_images(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in SUFFIXES:
            yield path.name


SPLIT = Layout(
    "class folders in train/, val/, test/",
    ("train/<class>/", "test/<class>/"),
    _read_split,
    is_split,
)
PLAIN = Layout("class folders", ("<class>/",), _read_plain, is_plain)
CLASS_FOLDERS = (SPLIT, PLAIN)
"""The two layouts: with split folders and without."""
