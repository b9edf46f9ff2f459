"""Butterfly-200 (Chen et al. 2018): 200 species, 25,279 images in `images_small/139.Polyura_athamas/`.

The split files list "path species genus subfamily family" a line, counted from 1. Without them there is no
official split.
"""

from __future__ import annotations

import re
from pathlib import Path

from lmoe_tune.data.readers.class_folders import class_folders
from lmoe_tune.data.readers.files import images_below, present, read_pairs, subfolders
from lmoe_tune.data.readers.layout import Entry, Layout, Reading, make_reading

NAME = "images_small/ with numbered class folders"
IMAGES = ("images_small", "images_small/images_small", "images")
_CLASS = re.compile(r"(\d+)\.")


def _images(root: Path) -> str | None:
    """The folder with the class folders; an empty `images_small` will do to recognise the set."""
    numbered = [name for name in IMAGES if any(map(_CLASS.match, subfolders(root / name)))]
    return numbered[0] if numbered else "images_small" if (root / "images_small").is_dir() else None


def _lists(root: Path) -> dict[str, Path]:
    """The split files by part, wherever the root has them."""
    found = {}
    for part in ("train", "val", "test"):
        paths = [
            path
            for pattern in ("", "*/")
            for path in sorted(root.glob(f"{pattern}[Bb]utterfly200_{part}*.txt"))
        ]
        if paths:
            found[part] = paths[0]
    return found


def _matches(root: Path) -> bool:
    folder = _images(root)
    return folder is not None and (folder != "images" or bool(_lists(root)))


def _read(root: Path) -> Reading:
    folder = _images(root)
    assert folder is not None, "not the layout that was recognised"
    names = sorted(subfolders(root / folder), key=_number)
    lists = _lists(root)
    notes: list[str] = []
    if "train" in lists and "test" in lists:
        listed = [
            Entry(f"{folder}/{line.split()[0]}", line.split()[0].split("/")[0], part)
            for part, path in lists.items()
            for line in (" ".join(pair) for pair in read_pairs(path))
        ]
        classes = sorted({*names, *(entry.label for entry in listed)}, key=_number)
        found, absent = present(root, listed)
    else:
        notes.append(
            "the split files Butterfly200_{train,val,test}_release.txt are not there: split 60 / 20 / 20%"
        )
        found = [
            Entry(f"{folder}/{name}/{path}", name)
            for name in names
            for path in images_below(root / folder / name)
        ]
        classes, absent = names, []
    return make_reading(
        "butterfly200", NAME, root, found, classes=classes, absent=absent, notes=notes
    )


def _number(name: str) -> tuple[int, str]:
    match = _CLASS.match(name)
    return (int(match[1]) if match else 0, name)


LAYOUTS = (Layout(NAME, ("images_small",), _read, _matches), *class_folders("butterfly200"))
