"""Which trials cannot be distinguished from the best one on the validation images, and which trials
keep the data for that.

A trial's placements (`lmoe_tune.placements`) are written at its end. They stay as long as its
checkpoint does, and those of the method's defaults for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lmoe_tune.records import PLACEMENTS_FILE, TrialRecord
from lmoe_tune.spec import METHOD, Spec
from lmoe_tune.sweep.folder import SweepFolder
from trainables import load_method

if TYPE_CHECKING:
    from lmoe_tune.placements import Placements


def ties(folder: SweepFolder, ranked: Iterable[int], metric: str) -> dict[int, bool]:
    """For each trial that can be compared with the best one, whether it cannot be distinguished
    from it.

    Args:
        ranked: numbers of the complete trials, best first.
        metric: the objective; nothing is said about others than AUROCs.
    """
    best: Placements | None = None
    found: dict[int, bool] = {}
    for number in ranked:
        placements = _placements_of(folder.trial(number))
        if best is None:
            if placements is None or not placements.can_compare(metric):
                return {}
            best = placements
        if placements is not None and placements.is_alike(best):
            found[number] = placements.is_tied(best, metric)

    return found


def _placements_of(trial: Path) -> Placements | None:
    if not (trial / PLACEMENTS_FILE).exists():
        return None

    from lmoe_tune.placements import read_placements  # NumPy, which most who look do not need

    return read_placements(trial)


def drop_placements(folder: SweepFolder, trial: TrialRecord, spec: Spec, import_path: Path) -> None:
    """Remove those of a trial whose checkpoint goes, unless it has its method's defaults."""
    path = folder.trial(trial.number) / PLACEMENTS_FILE
    if path.exists() and not has_defaults(spec, trial, import_path):
        path.unlink(missing_ok=True)


def has_defaults(spec: Spec, trial: TrialRecord, import_path: Path) -> bool:
    """Whether all searched parameters of a trial are at their method's defaults."""
    method = str(trial.params.get(METHOD, spec.trainable))
    declared = load_method(method, import_path).declaration.all_parameters
    training = spec.train.model_dump()
    for name, value in trial.params.items():
        if name == METHOD:
            continue
        default = getattr(declared.get(name), "default", None)
        if value != (training.get(name) if default is None else default):
            return False
    return True
