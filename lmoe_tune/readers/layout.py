"""What a data set declares, and what reading its folder gives.

N images, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from lmoe_tune.errors import UsageError

Part = Literal["train", "val", "test"]


class LayoutError(UsageError):
    """A folder is not what it should be: `what` it is instead, the `fix`, and `where` the spec
    names it."""

    def __init__(self, what: str, fix: str, where: str = "") -> None:
        self.what = what
        self.fix = fix
        self.where = where
        text = f"{what}. To fix it: {fix}"
        if where:
            text = f"{where}: {text}"
        super().__init__(text)


class Entry(NamedTuple):  # there may be millions
    """One image: its path relative to the root, its class ("": none), and its part of the
    official split."""

    path: str
    label: str
    official: str = ""


@dataclass(frozen=True, eq=False)
class Reading:
    """The images of a folder, sorted by path, and the classes that have one, in the set's own
    order.

    `absent` are listed files that are not there, `notes` say what was assumed or left out.
    """

    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """One way in which a data set comes: the files and folders it `holds`, and how to read it.

    `matches` decides if their existence is not enough. Recognising a layout reads a few lines and
    lists a few folders at most. A layout with a `fix` is recognised, but cannot be read as it is.
    """

    name: str
    holds: tuple[str, ...]
    read_folder: Callable[[Path], Reading]
    matches: Callable[[Path], bool] | None = None
    fix: str = ""

    def recognises(self, root: Path) -> bool:
        """Whether a folder has this layout."""
        if self.matches is not None:
            return self.matches(root)
        return all((root / name).exists() for name in self.holds)

    def read(self, root: Path) -> Reading:
        """The images of a folder that has this layout. Raises LayoutError if there is none."""
        reading = self.read_folder(root)
        if reading.entries:
            return reading

        missing = "no image"
        if reading.absent:
            missing = (
                f"none of the {len(reading.absent)} listed images is there "
                f"(first: {reading.absent[0]})"
            )
        raise LayoutError(
            f"{root} has the layout '{self.name}', but {missing}", "unpack the images there"
        )


@dataclass(frozen=True)
class Kind:
    """A kind of thing and how to find it among ImageNet's synsets: words in their names, and ranges
    [first, last] of their WordNet 3.0 numbers."""

    name: str
    words: tuple[str, ...]
    numbers: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One data set: everything that the rest of the package knows about it."""

    title: str
    """What people call it."""
    layouts: tuple[Layout, ...] = ()
    """How its folder may be laid out, the original layout first; empty: it comes with the
    installation."""
    source: str = ""
    """How to provide its folder."""
    has_classes: bool = True
    """Whether it has classes to learn; if not, it serves as outliers and coarse OOD only."""
    num_classes: int | None = None
    """The published number of classes."""
    num_id_classes: int | None = None
    """How many of these are in-distribution in MixOE's published splits."""
    num_val_novel: int | None = None
    """In-distribution classes held out while searching; None: a tenth of them."""
    parts: tuple[Part, ...] = ()
    """The parts of its official split, in the original layout."""
    resize: int | None = None
    """Side in pixels of the square that its images are resized to, where the spec does not say."""
    crop: int | None = None
    """Side in pixels of the square cut out of that, where the spec does not say."""
    crop_bottom: int = 0
    """Height in pixels of a strip to cut off the bottom of every image, before it is resized."""
    shows: Kind | None = None
    """What its pictures show; WebVision's synsets of that kind are left out of the outliers."""
    class_folder: re.Pattern[str] | None = None
    """How its class folders are named, where that distinguishes the set from others."""

    @property
    def is_embedded(self) -> bool:
        """Whether it comes with the installation and has no folder."""
        return not self.layouts
