"""Which images a search trains on and which it looks at: paths only, and nothing of what is sealed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmoe_tune.data.splits import IntArray
from lmoe_tune.data.table import Part
from lmoe_tune.spec import DataSpec


@dataclass(frozen=True, eq=False)
class SearchPlan:
    """The parts of image folders that a search may see.

    `train_labels` and `val_labels` count from 0 over `classes`, those trained on. `val_fine` are images of
    in-distribution classes that are held out, `outliers` the training pool (None: the spec has no outliers),
    `val_coarse` the outliers' validation pool (empty without outliers). `fingerprint` tells what is in all of
    them: paths, classes and content.
    """

    train: Part
    train_labels: IntArray
    val: Part
    val_labels: IntArray
    val_fine: Part
    outliers: Part | None
    val_coarse: Part
    classes: tuple[str, ...]
    fingerprint: str


def plan_search(data: DataSpec, home: Path | None = None) -> SearchPlan:
    """The plan of a spec over image folders (`digits` has none).

    Broken images and duplicates are left out of it, so every file is hashed and decoded once.

    Args:
        home: where the hashes are kept between calls; None: nowhere, every call reads all files again.

    Raises:
        UsageError: the data cannot be read, or the split leaves a part without images.
    """
    raise NotImplementedError
