"""What a reader is made of: layouts, how each is recognised, and what reading one gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmoe_tune.data.table import ImageTable
from lmoe_tune.errors import UsageError


class LayoutError(UsageError):
    """A folder is not what it should be: `what` it is instead, the `fix`, and `where` the spec names it."""

    def __init__(self, what: str, fix: str, where: str = "") -> None:
        self.what = what
        self.fix = fix
        super().__init__(f"{f'{where}: ' if where else ''}{what}. To fix it: {fix}")


@dataclass(frozen=True, eq=False)
class Reading:
    """A table, the listed files that are `absent`, and `notes`: what was assumed or left out."""

    table: ImageTable
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """One way in which a data set comes: the files and folders it `holds`, and how to read it.

    `matches` decides where the existence of these does not tell. Recognising reads at most a few lines and
    lists a few folders. A layout with a `fix` is recognised, but cannot be read as it is.
    """

    name: str
    holds: tuple[str, ...]
    read: Callable[[Path], Reading]
    matches: Callable[[Path], bool] | None = None
    fix: str = ""

    def recognises(self, root: Path) -> bool:
        if self.matches is not None:
            return self.matches(root)
        return all((root / name).exists() for name in self.holds)


class Entry(NamedTuple):  # there may be millions
    """One listed image: its path relative to the root, its class and its part of the official split."""

    path: str
    label: str
    official: str = ""


def make_reading(
    dataset: str,
    layout: str,
    root: Path,
    entries: Sequence[Entry],
    *,
    classes: Sequence[str],
    absent: Sequence[str] = (),
    notes: Sequence[str] = (),
    crop_bottom: int = 0,
) -> Reading:
    """The table of some images, sorted by path; classes in the given order, without those that have no image.

    An entry whose label is "" has no class.

    Raises:
        LayoutError: there is no image at all.
    """
    if not entries:
        missing = (
            f"none of the {len(absent)} listed images is there (first: {absent[0]})"
            if absent
            else "no image"
        )
        raise LayoutError(
            f"{root} has the layout '{layout}', but {missing}", "unpack the images there"
        )
    entries = sorted(entries, key=lambda entry: entry.path)
    used = {entry.label for entry in entries}
    kept = [name for name in classes if name in used]
    notes = list(notes)
    if len(kept) < len(classes):
        notes.append(
            f"{len(classes) - len(kept)} of {len(classes)} classes have no image and are left out"
        )
    number_of = {name: number for number, name in enumerate(kept)} | {"": -1}
    table = ImageTable(
        dataset=dataset,
        layout=layout,
        root=root,
        paths=tuple(entry.path for entry in entries),
        labels=np.array([number_of[entry.label] for entry in entries], dtype=np.int64),
        classes=tuple(kept),
        official=tuple(entry.official for entry in entries),
        crop_bottom=crop_bottom,
    )
    return Reading(table, tuple(absent), tuple(notes))
