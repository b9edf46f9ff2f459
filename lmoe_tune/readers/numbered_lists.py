"""The lists that CUB-200-2011 and NABirds share: images.txt, image_class_labels.txt,
train_test_split.txt."""

from __future__ import annotations

import re
from pathlib import Path

from lmoe_tune.readers.files import present, read_pairs
from lmoe_tune.readers.layout import Entry, LayoutError, Reading
from lmoe_tune.readers.names import path_key, read_lines
from lmoe_tune.readers.reading import make_reading

HOLDS = ("images", "images.txt", "image_class_labels.txt", "train_test_split.txt")


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
    paths = {image: path_key(path) for image, path in read_pairs(root / "images.txt")}
    labels = dict(read_pairs(root / "image_class_labels.txt"))
    trained = dict(read_pairs(root / "train_test_split.txt"))

    for name, column in (("image_class_labels.txt", labels), ("train_test_split.txt", trained)):
        lacking = next((image for image in paths if image not in column), None)
        if lacking is not None:
            raise LayoutError(
                f"{root / name} lacks the image {lacking} of images.txt", "unpack the archive again"
            )

    names = {}
    if (root / "classes.txt").exists():
        names = dict(read_pairs(root / "classes.txt"))
    folders = {labels[image]: path.split("/")[0] for image, path in paths.items()}
    ids = sorted(folders, key=_number)
    name_of = {id_: names.get(id_) or folders[id_] for id_ in ids}
    if len(set(name_of.values())) < len(ids):  # one name for two ids would merge their classes
        name_of = {id_: f"{name} ({id_})" for id_, name in name_of.items()}

    part_of = {"1": "train"}
    listed = [
        Entry(f"images/{path}", name_of[labels[image]], part_of.get(trained[image], "test"))
        for image, path in paths.items()
    ]
    found, absent = present(root, listed)
    return make_reading(found, classes=[name_of[id_] for id_ in ids], absent=absent)


def _number(id_: str) -> tuple[int, str]:
    if not re.fullmatch(r"\d+", id_):
        return (0, id_)
    return (int(id_), id_)
