"""Butterfly-200 (Chen et al. 2018): 200 species, 25,279 images in
`images_small/139.Polyura_athamas/`.

The split files list "path species genus subfamily family" a line, counted from 1. Where none of
them is there, there is no official split.
"""

from __future__ import annotations

import re
from pathlib import Path

from lmoe_tune.readers.class_folders import CLASS_FOLDERS
from lmoe_tune.readers.files import images_below, present, read_pairs, subfolders
from lmoe_tune.readers.layout import Entry, Kind, Layout, LayoutError, Part, Reader, Reading
from lmoe_tune.readers.names import path_key
from lmoe_tune.readers.reading import make_reading

IMAGES = ("images_small", "images_small/images_small", "images")
PARTS: tuple[Part, ...] = ("train", "val", "test")
_CLASS = re.compile(r"(\d+)\.")
_LIST = re.compile(rf"butterfly200_({'|'.join(PARTS)}).*\.txt", re.IGNORECASE)


def _images(root: Path) -> str | None:
    """The folder with the class folders; an empty `images_small` is enough to recognise the set."""
    numbered = [name for name in IMAGES if any(map(_CLASS.match, subfolders(root / name)))]
    if numbered:
        return numbered[0]
    if (root / "images_small").is_dir():
        return "images_small"
    return None


def _lists(root: Path) -> dict[str, Path]:
    """The split files by part, wherever the root has them."""
    found: dict[str, Path] = {}
    for path in (*sorted(root.glob("*.[tT]*")), *sorted(root.glob("*/*.[tT]*"))):
        match = _LIST.fullmatch(path.name)
        if match is not None:
            found.setdefault(match[1].lower(), path)
    return found


def _matches(root: Path) -> bool:
    folder = _images(root)
    return folder is not None and (folder != "images" or bool(_lists(root)))


def _read(root: Path) -> Reading:
    folder = _images(root)
    assert folder is not None, "not the layout that was recognised"
    names = subfolders(root / folder)
    lists = _lists(root)

    if lists:
        _refuse_incomplete(root, lists)
        listed = []
        for part in PARTS:
            paths = [path_key(first) for first, _ in read_pairs(lists[part])]
            listed += [Entry(f"{folder}/{one}", one.split("/")[0], part) for one in paths]
        found, absent = present(root, listed)
        classes = {*names, *(entry.label for entry in listed)}
        return make_reading(found, classes=sorted(classes, key=_number), absent=absent)

    found = [
        Entry(f"{folder}/{name}/{path}", name)
        for name in names
        for path in images_below(root / folder / name)
    ]
    lacking = "the split files Butterfly200_{train,val,test}_release.txt are not there"
    notes = [f"{lacking}, so the official parts are not known: split 60 / 20 / 20%"]
    return make_reading(found, classes=sorted(names, key=_number), notes=notes)


def _refuse_incomplete(root: Path, lists: dict[str, Path]) -> None:
    """Some of the lists do not make a split: what they leave out would be lost, or trained on."""
    lacking = [f"Butterfly200_{part}_release.txt" for part in PARTS if part not in lists]
    if lacking:
        there = next(iter(lists.values()))
        raise LayoutError(
            f"{root} has {there.relative_to(root)}, but lacks {' and '.join(lacking)}",
            "put all three split files there",
        )


def _number(name: str) -> tuple[int, str]:
    match = _CLASS.match(name)
    if match is None:
        return (0, name)
    return (int(match[1]), name)


READER = Reader(
    title="Butterfly-200",
    layouts=(
        Layout("images_small/ with numbered class folders", ("images_small",), _read, _matches),
        *CLASS_FOLDERS,
    ),
    source="unpack images_small.zip and the split files beside it",
    num_classes=200,
    num_id_classes=150,
    parts=PARTS,
    resize=512,
    crop=448,
    shows=Kind(
        "butterflies",
        (
            "butterfly", "butterflies", "moth", "admiral", "ringlet", "monarch",
            "milkweed butterfly", "lycaenid",
        ),
        ((2274024, 2310000),),
    ),
    class_folder=re.compile(r"\d{3}\.\D"),
)  # fmt: skip
