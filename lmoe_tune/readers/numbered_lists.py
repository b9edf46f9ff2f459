"""The lists that CUB-200-2011 and NABirds share: images.txt, image_class_labels.txt,
train_test_split.txt."""

from __future__ import annotations

import re
from pathlib import Path

from lmoe_tune.readers.files import UNPACK_AGAIN, present, read_column
from lmoe_tune.readers.layout import Entry, LayoutError, Reading
from lmoe_tune.readers.names import path_key, read_lines, some
from lmoe_tune.readers.reading import make_reading, told_apart

HOLDS = ("images", "images.txt", "image_class_labels.txt", "train_test_split.txt")
PARTS = {"1": "train", "0": "test"}
"""What train_test_split.txt says of an image."""


def exist(root: Path) -> bool:
    """Whether the lists are there."""
    return all((root / name).exists() for name in HOLDS)


def first_line(path: Path) -> str:
    """The first line of a list, or nothing."""
    if not path.is_file():
        return ""
    return next(iter(read_lines(path)), "")


def read_numbered(root: Path) -> Reading:
    """Read the lists. Class ids may have gaps: they are sorted and counted from 0.

    Raises:
        LayoutError: the lists do not fit together.
    """
    images, labels, parts = (read_column(root / name) for name in HOLDS[1:])
    for name, column in zip(HOLDS[2:], (labels, parts), strict=True):
        _refuse_lacking(root / name, column, "images.txt", images)
        _refuse_lacking(root / "images.txt", images, name, column)
    _refuse_other_parts(root / "train_test_split.txt", parts)

    paths = {image: path_key(path) for image, path in images.items()}
    folders = {labels[image]: path.split("/")[0] for image, path in paths.items()}
    names: dict[str, str] = {}
    if (root / "classes.txt").exists():
        names = read_column(root / "classes.txt")
    ids = sorted(folders, key=_number)
    name_of, notes = told_apart({id_: names.get(id_) or folders[id_] for id_ in ids})

    listed = [
        Entry(f"images/{path}", name_of[labels[image]], PARTS[parts[image]])
        for image, path in paths.items()
    ]
    found, absent = present(root, listed)
    return make_reading(found, classes=list(name_of.values()), absent=absent, notes=notes)


def _refuse_lacking(path: Path, column: dict[str, str], other: str, needed: dict[str, str]) -> None:
    lacking = [image for image in needed if image not in column]
    if lacking:
        raise LayoutError(f"{path} lacks images that {other} has: {some(lacking)}", UNPACK_AGAIN)


def _refuse_other_parts(path: Path, parts: dict[str, str]) -> None:
    odd = [f"'{image} {part}'" for image, part in parts.items() if part not in PARTS]
    if odd:
        raise LayoutError(
            f"{path} has lines that do not end in 1 (train) or 0 (test): {some(odd)}", UNPACK_AGAIN
        )


def _number(id_: str) -> tuple[int, str]:
    if not re.fullmatch(r"\d+", id_):
        return (0, id_)
    return (int(id_), id_)
