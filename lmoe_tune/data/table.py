"""What every reader gives: one plain table of images, whatever the layout on the disk was.

N images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmoe_tune.data.splits import IntArray


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images of a data set, in a fixed order.

    `paths` (N,) are relative to `root`, with forward slashes; `labels` (N,) count from 0 over `classes`, -1 is
    an image without a class; `official` (N,) is the set's own split: "train", "val", "test", or "" where it
    has none. `crop_bottom` is the height in pixels of a banner to cut off every image.
    """

    dataset: str
    layout: str
    root: Path
    paths: tuple[str, ...]
    labels: IntArray
    classes: tuple[str, ...]
    official: tuple[str, ...]
    crop_bottom: int = 0

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, eq=False)
class Part:
    """Some images of a table, by their indices (M,) in it."""

    table: ImageTable
    indices: IntArray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> IntArray:
        """Classes (M,) over the table's own numbering."""
        labels: IntArray = self.table.labels[self.indices]
        return labels

    def files(self) -> list[Path]:
        """Absolute paths, in the part's order."""
        return [self.table.root / self.table.paths[index] for index in self.indices]


def part(table: ImageTable, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Part:
    """The images of a table where a mask (N,) holds."""
    return Part(table, np.flatnonzero(mask).astype(np.int64))
