"""`lmoe-tune prune-checkpoints`: deletes a sweep's checkpoints, except those still needed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from lmoe_tune.durable import writing
from lmoe_tune.sweep.ledger import Ledger


@dataclass(frozen=True)
class Freed:
    """What was removed and what was kept.

    Attributes:
        removed: numbers of the trials whose checkpoints are gone.
        best: numbers of the best trials, which keep their last one.
        unfinished: numbers of trials that continue from theirs.
        num_bytes: how much was freed.
    """

    removed: tuple[int, ...]
    best: tuple[int, ...]
    unfinished: tuple[int, ...]
    num_bytes: int


def prune_checkpoints(ledger: Ledger, keep: int | None = None) -> Freed:
    """Remove all checkpoints except the last one of the best trials and those that unfinished
    trials continue from.

    The caller holds the sweep's lock.

    Args:
        keep: how many of the best trials keep theirs; None: as the spec says
            (tracking.best_checkpoints).

    Raises:
        StorageError: something cannot be removed.
    """
    if keep is None:
        keep = ledger.spec.tracking.best_checkpoints
    best = ledger.standing.ranking.best(keep)
    unfinished = sorted(ledger.standing.running)
    removed, freed = [], 0

    folders = sorted(ledger.folder.path.glob("trials/*/checkpoints"))

    for folder in folders:
        number = int(folder.parent.name)
        if number in unfinished:
            continue

        last = None
        if number in best:
            last = max(folder.glob("epoch-*.pt"), default=None)
        for path in [path for path in folder.iterdir() if path != last]:
            freed += _size(path)
            _remove(path)

        if last is None:
            _remove(folder)
            removed.append(number)

    there = {int(folder.parent.name) for folder in folders}

    return Freed(
        removed=tuple(sorted(removed)),
        best=tuple(number for number in best if number in there),
        unfinished=tuple(number for number in unfinished if number in there),
        num_bytes=freed,
    )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _remove(path: Path) -> None:
    with writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
