"""Tables of small trees, and what holds of every one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lmoe_tune.data.table import ImageTable, read_table


def table(dataset: str, root: Path) -> ImageTable:
    return read_table(dataset, str(root))


def class_of(found: ImageTable, path: str) -> str:
    return found.classes[found.labels[found.paths.index(path)]]


def assert_is_whole(found: ImageTable) -> None:
    """Every path is there, in a fixed order, and every class has an image."""
    assert list(found.paths) == sorted(set(found.paths))
    assert all((found.root / path).is_file() for path in found.paths)
    assert len(found.labels) == len(found.official) == len(found.paths)
    assert found.labels.dtype == np.int64
    assert set(found.labels.tolist()) - {-1} == set(range(len(found.classes)))
    assert set(found.official) <= {"train", "val", "test", ""}
