"""Whether pruning honours a constraint: made-up landscapes whose truth is known, searched by the real ledger.

On *bought*, a large consistency weight buys AUROC with accuracy, for good. On *late*, accuracy falls first and recovers
towards the end: most of the best configurations miss the constraint for half of their epochs and meet it in the end.

    python benchmarks/constraint_landscapes.py [--seeds 20] [--slots 2] [--trials 32]

For each pruner, medians over seeds: the best feasible value (measured, and without the noise), the share of the epochs
that `none` takes, how many trials end complete and feasible, and of the best quarter of those that would have been
feasible the share that was stopped while it was judged to miss the constraint. The configuration that every sweep
starts from is not counted. About a second for a sweep, on one core.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmoe_tune.spec import Spec, load_spec
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.pruning import misses_of
from trainables import declarations

EPOCHS = 10
BASELINE = {"val_accuracy": 0.99}  # so that the bound is .97
NOISE = 0.001
SPEC = """\
name: landscape
trainable: logit_mixoe
data: {id: {dataset: digits}}
space:
  mixing_alpha: {low: 0.1, high: 10, log: true}
  consistency_weight: {low: 0, high: 5}
search: {start_from: [{mixing_alpha: 1.0, consistency_weight: 1.0}]}
"""

PRUNERS: dict[str, tuple[str, int | None]] = {
    "none": ("none", None),
    "asha": ("asha", None),
    "asha, after 3": ("asha", 3),
    "asha, after 4": ("asha", 4),
    "hyperband": ("hyperband", None),
    "median": ("median", None),
}
"""By name the pruner, and the epochs before a trial may be pruned; None: as many as by default."""

Landscape = Callable[[Mapping[str, Any], int], tuple[float, float]]
"""AUROC and accuracy of a configuration after an epoch, without noise."""


def bought(params: Mapping[str, Any], epoch: int) -> tuple[float, float]:
    """A consistency weight above 2 gives a better AUROC and too low an accuracy, at every epoch."""
    weight, log_alpha = params["consistency_weight"], math.log10(params["mixing_alpha"])
    auroc = 0.90 + 0.02 * math.exp(-((log_alpha - 0.3) ** 2))
    accuracy = 0.985
    if weight > 2:
        auroc, accuracy = 0.95 + 0.004 * weight, 0.93
    return auroc - 0.2 / (epoch + 1), accuracy


def late(params: Mapping[str, Any], epoch: int) -> tuple[float, float]:
    """The larger the weight, the better the AUROC and the deeper accuracy falls; it recovers by the last epoch."""
    weight, log_alpha = params["consistency_weight"], math.log10(params["mixing_alpha"])
    auroc = 0.90 + 0.008 * weight + 0.01 * math.exp(-((log_alpha - 0.3) ** 2))
    final = 0.985 if weight < 4 else 0.95
    fallen = 0.05 * weight * max(0.0, 1 - (epoch / EPOCHS) ** 2)
    return auroc - 0.2 / (epoch + 1), final - fallen


LANDSCAPES: dict[str, Landscape] = {"bought": bought, "late": late}


@dataclass(frozen=True)
class Result:
    """What one sweep came to."""

    best: float
    best_true: float
    epochs: int
    complete_feasible: int
    feasible_quarter: int
    """Trials in the best quarter that end, or would have ended, feasible."""
    lost: int
    """Those of them that were stopped while they were judged to miss the constraint."""


def make_spec(
    folder: Path, pruner: str, seed: int, trials: int, min_epochs: int | None = None
) -> Spec:
    path = folder / "landscape.yaml"
    path.write_text(SPEC, encoding="utf-8")
    settings = [f"search.pruner={pruner}", f"search.seed={seed}", f"budget.trials={trials}"]
    overrides = [*settings, f"train.epochs={EPOCHS}"]
    if min_epochs is not None:
        overrides.append(f"search.min_epochs={min_epochs}")
    return load_spec(path, overrides=overrides, declarations=declarations()).spec


def search(landscape: Landscape, spec: Spec, folder: SweepFolder, slots: int) -> Result:
    """Search a landscape with so many trials at a time, the one that is furthest behind first."""
    folder.path.mkdir(parents=True, exist_ok=True)
    ledger, rng = Ledger.writing(folder, spec), np.random.default_rng(spec.search.seed)
    missing = set()  # trials that were stopped while they missed the constraint
    while not ledger.is_complete():
        running = ledger.standing.running
        if len(running) < slots and ledger.exhausted() is None:
            ledger.ask()
            continue
        number = min(running, key=lambda one: (running[one], one))
        epoch = running[number] + 1
        auroc, accuracy = landscape(ledger.trial(number).params, epoch)
        measured = {
            "val_auroc": auroc + NOISE * rng.standard_normal(),
            "val_accuracy": accuracy,
            "epoch_s": 1.0,
        }
        misses = misses_of(spec, measured, BASELINE)
        violation = ledger.standing.pruning.violation(epoch, list(misses.values()))
        if ledger.record_epoch(number, epoch, measured, BASELINE) and violation > 0:
            missing.add(number)
    return result_of(landscape, ledger, missing)


def result_of(landscape: Landscape, ledger: Ledger, missing: set[int]) -> Result:
    trials = ledger.trials()[1:]  # without the configuration that it starts from
    truth = {trial.number: landscape(trial.params, EPOCHS) for trial in trials}
    ranked = sorted(
        (number for number, (_, accuracy) in truth.items() if accuracy >= 0.97),
        key=lambda number: -truth[number][0],
    )
    quarter = set(ranked[: max(1, len(ranked) // 4)])
    feasible = [trial for trial in trials if trial.state == "complete" and trial.violation == 0]
    best = max(feasible, key=lambda trial: trial.values[0], default=None)
    pruned = {trial.number for trial in trials if trial.state == "pruned"}
    return Result(
        best=math.nan if best is None else best.values[0],
        best_true=math.nan if best is None else truth[best.number][0],
        epochs=sum(len(trial.epochs) for trial in trials),
        complete_feasible=len(feasible),
        feasible_quarter=len(quarter),
        lost=len(quarter & pruned & missing),
    )


def simulate(
    landscape: str,
    pruner: str,
    seeds: int,
    slots: int,
    trials: int,
    min_epochs: int | None = None,
) -> list[Result]:
    """One sweep a seed."""
    found = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as scratch:
            spec = make_spec(Path(scratch), pruner, seed, trials, min_epochs)
            folder = SweepFolder(Path(scratch) / "home", "landscape")
            found.append(search(LANDSCAPES[landscape], spec, folder, slots))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--trials", type=int, default=32)
    chosen = parser.parse_args()
    os.fsync = lambda descriptor: None  # type: ignore[assignment]  # nothing here is to survive
    print(f"{chosen.seeds} seeds, {chosen.trials} trials of {EPOCHS} epochs, {chosen.slots} slots")
    heads = (
        "landscape pruner           best  (true)  epochs  complete+feasible  lost of best quarter"
    )
    print(heads)
    for landscape in LANDSCAPES:
        whole = 1.0
        for name, (pruner, min_epochs) in PRUNERS.items():
            found = simulate(
                landscape, pruner, chosen.seeds, chosen.slots, chosen.trials, min_epochs
            )
            epochs = statistics.median(one.epochs for one in found)
            whole = epochs if pruner == "none" else whole
            best = np.nanmedian([one.best for one in found])
            true = np.nanmedian([one.best_true for one in found])
            lost = sum(one.lost for one in found) / sum(one.feasible_quarter for one in found)
            complete = statistics.median(one.complete_feasible for one in found)
            print(
                f"{landscape:9} {name:16} {best:.4f} {true:.4f} {epochs / whole:6.0%} {complete:12g} {lost:19.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
