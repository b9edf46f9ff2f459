"""Which images a search trains on and which it looks at: paths only, and nothing that is sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmoe_tune.data.splits import ClassSplit, IntArray, of_classes
from lmoe_tune.data.table import ImageTable, Part
from lmoe_tune.data.usable_images import (
    ID,
    OUTLIERS,
    VAL_COARSE,
    Selected,
    UnusableError,
    UsableImages,
    class_split,
    outlier_pools,
    select_all,
    split_id,
)
from lmoe_tune.readers.names import path_key, some
from lmoe_tune.spec import DataSpec
from lmoe_tune.wording import counted


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchPlan:
    """The parts of image folders that a search may see.

    `train_labels` and `val_labels` count from 0 over `classes`, those trained on. `val_fine` are
    images of in-distribution classes that are held out, `outliers` the training pool (None: the
    spec has no outliers), `val_coarse` the outliers' validation pool or the spec's own set (empty
    without either). `fingerprint` identifies all of them: paths, classes and content.
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
        home: where the hashes are kept between calls; None: nowhere, every call reads all files
            again.

    Raises:
        UsageError: the data cannot be read, or the split leaves a part without images.
    """
    return plan_of(data, select_all(data, home))


def plan_of(data: DataSpec, selected: Selected) -> SearchPlan:
    """The plan for the selected images. Raises UsageError if a part has no image."""
    found, outliers = selected[ID], selected.get(OUTLIERS)
    table = found.table
    classes, train, val, val_fine = id_parts(data, found)
    pool, val_coarse = outlier_parts(outliers)["train"], coarse_part(selected)
    if pool is not None and (len(pool) < 2 or not len(val_coarse)):
        counts = f"{len(pool)} to train with and {len(val_coarse)} to validate with"
        what = f"too few images are left: {counts}"
        raise UnusableError(what, "raise data.outliers.limit or add images", "data.outliers")

    return SearchPlan(
        train=train,
        train_labels=renumbered(train, classes.train),
        val=val,
        val_labels=renumbered(val, classes.train),
        val_fine=val_fine,
        outliers=pool,
        val_coarse=val_coarse,
        classes=tuple(table.classes[label] for label in classes.train),
        fingerprint=fingerprint(
            [
                (found, [train, val, val_fine]),
                (outliers, [pool]),
                (selected.get(VAL_COARSE) or outliers, [val_coarse]),
            ]
        ),
    )


class IdParts(NamedTuple):
    """The parts of the in-distribution images that a search sees."""

    classes: ClassSplit
    train: Part
    val: Part
    val_fine: Part


def id_parts(data: DataSpec, found: UsableImages) -> IdParts:
    """Split the in-distribution images. Raises UnusableError if a part has no image."""
    table = found.table
    classes = class_split(data, len(table.classes))
    images = split_id(data, found)

    # Nothing of a held-out class is trained on, so its training part makes the estimate steadier.
    unseen = np.sort(np.concatenate([images.train, images.val]))
    chosen = (
        (images.train, classes.train),
        (images.val, classes.train),
        (unseen, classes.val_novel),
    )
    train, val, val_fine = (Part(table, of_classes(table.labels, *one)) for one in chosen)
    _refuse_untrained(data, found, classes, train)
    if len(train) < 2 or not len(val) or not len(val_fine):
        counts = (
            f"{len(train)} to train on, {len(val)} to validate with, {len(val_fine)} of held-out "
            "classes"
        )
        if not len(val_fine):
            counts += f" ({_described(found, classes.val_novel)})"
        raise UnusableError(f"too few images are left: {counts}", _more_images(data), "data.id")
    return IdParts(classes, train, val, val_fine)


def outlier_parts(outliers: UsableImages | None) -> dict[str, Part | None]:
    """The outliers' pools: train, val and test."""
    if outliers is None:
        return {"train": None, "val": None, "test": None}
    return {
        name: Part(outliers.table, indices)
        for name, indices in vars(outlier_pools(outliers)).items()
    }


def coarse_part(selected: Selected) -> Part:
    """The coarse images to validate with: a separate set, else the outliers' validation pool, else
    none."""
    if VAL_COARSE in selected:
        return selected[VAL_COARSE]
    return outlier_parts(selected.get(OUTLIERS))["val"] or no_images(selected[ID].table)


def no_images(table: ImageTable) -> Part:
    """A part without an image."""
    return Part(table, np.zeros(0, dtype=np.int64))


def renumbered(part: Part, classes: tuple[int, ...]) -> IntArray:
    """The labels of a part (M,), counted from 0 over these classes, which hold all of them."""
    numbers = np.full(len(part.table.classes), -1, dtype=np.int64)
    numbers[list(classes)] = np.arange(len(classes))
    labels: IntArray = numbers[part.labels]
    assert (labels >= 0).all(), "a part with an image of another class"
    return labels


def fingerprint(contents: list[tuple[UsableImages | None, list[Part | None]]]) -> str:
    """16 hexadecimal digits that identify the paths, classes, content and order of parts of some
    sets.

    The folder of the sets is left out: data may be moved.
    """
    digest = hashlib.sha256()
    for found, parts in contents:
        hashes = found.hashes if found is not None else {}
        for part in parts:
            digest.update(b"\x1epart\x1e")
            if part is None:
                continue
            digest.update(f"{part.table.dataset}\x1f{part.table.crop_bottom}\x1e".encode())
            for index in part.indices.tolist():
                label = part.table.labels[index]
                name = part.table.classes[label] if label >= 0 else ""
                path = path_key(part.table.paths[index])
                text = f"{path}\x1f{name}\x1f{hashes[index]}\x1e"
                digest.update(text.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _refuse_untrained(
    data: DataSpec, found: UsableImages, classes: ClassSplit, train: Part
) -> None:
    """Raises UnusableError if a class that is to be learnt has no image to learn it from."""
    present = set(train.labels.tolist())
    without = [label for label in classes.train if label not in present]
    if not without:
        return

    described = _described(found, without)
    what = f"{counted(len(without), 'class')} without a training image ({described})"
    raise UnusableError(what, _more_images(data), "data.id")


def _described(found: UsableImages, labels: Sequence[int]) -> str:
    """Some classes without images that they need, and why each has none."""
    return some([_why_lacking(found, label) for label in labels], "; ")


def _why_lacking(found: UsableImages, label: int) -> str:
    """The name of a class, and where its images are instead, if that is known."""
    table = found.table
    name = table.classes[label]
    paths = {table.paths[place] for place in np.flatnonzero(table.labels == label)}

    copies = [pair for pair in found.duplicates if pair[0] in paths]
    if copies:
        return f"{name}: its images are copies, such as {copies[0][0]} of {copies[0][1]}"

    left = found.indices[found.labels == label]
    if len(left):
        parts = sorted({table.official[place] for place in left})
        return f"{name}: its images are in {' and '.join(parts)} only"
    if paths.intersection(path for path, _ in found.broken):
        return f"{name}: its images are broken"
    return name


def _more_images(data: DataSpec) -> str:
    if data.id.limit is not None:
        return "raise data.id.limit"
    return "add images, or remove the class"
