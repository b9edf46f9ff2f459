"""The images of one data set as a plain table, whatever the layout on the disk was.

N images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmoe_tune.data.splits import IntArray
from lmoe_tune.readers import READERS
from lmoe_tune.readers.recognition import find_layout


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images of a data set, in a fixed order.

    `paths` (N,) are relative to `root`, with forward slashes; `labels` (N,) count from 0 over
    `classes`, -1 is an image without a class; `official` (N,) is the set's own split: "train",
    "val", "test", or "" where it has none. `absent` are listed files that are not there, `notes`
    say what was assumed or left out.
    """

    dataset: str
    layout: str
    root: Path
    paths: tuple[str, ...]
    labels: IntArray
    classes: tuple[str, ...]
    official: tuple[str, ...]
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def crop_bottom(self) -> int:
        """Height in pixels of a strip to cut off the bottom of every image."""
        return READERS[self.dataset].crop_bottom


@dataclass(frozen=True, eq=False)
class Part:
    """Some images of a table, by their indices (M,) in it."""

    table: ImageTable
    indices: IntArray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> IntArray:
        """Classes (M,), in the table's own numbering."""
        labels: IntArray = self.table.labels[self.indices]
        return labels

    @property
    def paths(self) -> list[str]:
        """Relative to the table's root, in the part's order."""
        return [self.table.paths[index] for index in self.indices]

    def files(self) -> list[Path]:
        """Absolute paths, in the part's order."""
        return [self.table.root / path for path in self.paths]


def read_table(dataset: str, root: str, *, labelled: bool = True) -> ImageTable:
    """The images of a data set on the disk.

    Args:
        labelled: whether classes are needed; if not, `folder` takes any images.

    Raises:
        LayoutError: the folder has none of the set's known layouts; says what it is instead.
    """
    path = Path(root)
    layout = find_layout(dataset, path, labelled=labelled)
    reading = layout.read(path)

    number_of = {name: number for number, name in enumerate(reading.classes)} | {"": -1}
    labels = [number_of[entry.label] for entry in reading.entries]

    return ImageTable(
        dataset=dataset,
        layout=layout.name,
        root=path,
        paths=tuple(entry.path for entry in reading.entries),
        labels=np.array(labels, dtype=np.int64),
        classes=reading.classes,
        official=tuple(entry.official for entry in reading.entries),
        absent=reading.absent,
        notes=reading.notes,
    )
