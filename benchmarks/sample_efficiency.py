"""How many epochs a search takes to find what random search without pruning finds with 64 trials.

    python benchmarks/sample_efficiency.py [--seeds 20] [--out FILE]

Over the recorded trainings of `tables/` (see rungs.py): what a configuration gives is interpolated between its three
nearest ones, epoch by epoch, AUROC and accuracy alike, weighted by the inverse square of their distance. So nothing is
better than the best that was recorded, and the ruggedness of single trainings stays in. Searches run through the
sweep's own ledger, sampler and pruner, one trial at a time.

The target of a table is the median over 1,000 random searches of 64 trials of the best feasible value in them. Printed
are, as median and quartiles over seeds, the epochs after which the best feasible complete trial has reached it, as a
share of the 640 that the random search takes; a search that has not reached it by then counts as 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import machine  # noqa: E402 (after the checkout is on the path)
from benchmarks.rungs import METRICS, Table, read_tables  # noqa: E402
from lmoe_tune.spec import Spec, load_spec  # noqa: E402
from lmoe_tune.sweep.folder import SweepFolder  # noqa: E402
from lmoe_tune.sweep.ledger import Ledger  # noqa: E402
from lmoe_tune.sweep.pruning import misses_of  # noqa: E402
from trainables import declarations  # noqa: E402

Floats = npt.NDArray[np.float64]

RANDOM_TRIALS = 64
RANDOM_SEARCHES = 1000
NEAREST = 3
DEFAULTS = {"mixing_alpha": 1.0, "consistency_weight": 1.0, "outlier_ratio": 1.0}
NAMES = tuple(DEFAULTS)
LOW, HIGH = np.array([0.1, 0.0, 0.25]), np.array([10.0, 5.0, 1.0])
LOGARITHMIC = np.array([True, False, False])
SPEC = """\
name: surrogate
trainable: logit_mixoe
data: {id: {dataset: digits}}
space:
  mixing_alpha: {low: 0.1, high: 10, log: true}
  consistency_weight: {low: 0, high: 5}
  outlier_ratio: {low: 0.25, high: 1}
search: {start_from: [{mixing_alpha: 1.0, consistency_weight: 1.0, outlier_ratio: 1.0}]}
"""
SEARCHES = (
    ("random", "none", 1.0),
    ("random", "asha", 0.4),
    ("tpe", "none", 1.0),
    ("tpe", "asha", 0.2),
    ("tpe", "asha", 0.3),
    ("tpe", "asha", 0.4),
    ("tpe", "hyperband", 0.2),
    ("tpe", "hyperband", 0.4),
    ("tpe", "median", 0.2),
    ("tpe", "median", 0.4),
)
"""Sampler, pruner, and the share of all epochs before a trial may be pruned; a search has tpe and asha after 40%."""


class Surrogate:
    """What each configuration of a table's space gives, epoch by epoch."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.epochs = len(table.rows[0].epochs)
        self._places = in_cube(
            np.array([[row.params[name] for name in NAMES] for row in table.rows])
        )
        self._curves = np.array(
            [[[epoch[name] for name in METRICS] for epoch in row.epochs] for row in table.rows]
        )

    def curves(self, params: Floats) -> Floats:
        """Of configurations (N, 3) the metrics (N, epochs, 2)."""
        apart = np.linalg.norm(in_cube(params)[:, None] - self._places[None], axis=2)
        nearest = np.argsort(apart, axis=1)[:, :NEAREST]
        weights = 1 / (np.take_along_axis(apart, nearest, axis=1) ** 2 + 1e-9)
        weights /= weights.sum(axis=1, keepdims=True)
        found: Floats = (weights[:, :, None, None] * self._curves[nearest]).sum(axis=1)
        return found

    def epochs_of(self, params: Mapping[str, Any]) -> list[dict[str, float]]:
        """Of one configuration the metrics of each epoch."""
        (curve,) = self.curves(np.array([[params[name] for name in NAMES]]))
        return [dict(zip(METRICS, values, strict=True)) for values in curve.tolist()]


def in_cube(params: Floats) -> Floats:
    """Each parameter from 0 to 1, alpha by its logarithm."""
    low, high, values = LOW.copy(), HIGH.copy(), params.astype(np.float64).copy()
    for ends in (low, high):
        ends[LOGARITHMIC] = np.log(ends[LOGARITHMIC])
    values[:, LOGARITHMIC] = np.log(values[:, LOGARITHMIC])
    within: Floats = (values - low) / (high - low)
    return within


def make_spec(
    folder: Path,
    surrogate: Surrogate,
    sampler: str = "random",
    pruner: str = "none",
    after: float = 1.0,
    seed: int = 0,
) -> Spec:
    path = folder / "surrogate.yaml"
    path.write_text(SPEC, encoding="utf-8")
    settings = [f"search.sampler={sampler}", f"search.pruner={pruner}", f"search.seed={seed}"]
    settings.append(f"search.min_epochs={max(1, round(after * surrogate.epochs))}")
    overrides = [*settings, f"train.epochs={surrogate.epochs}", "budget.trials=1000"]
    return load_spec(path, overrides=overrides, declarations=declarations()).spec


def target_of(surrogate: Surrogate, spec: Spec) -> float:
    """What random search without pruning finds: the median of the best feasible values."""
    rng = np.random.default_rng(0)
    uniform = rng.random((RANDOM_SEARCHES * RANDOM_TRIALS, len(NAMES)))
    params = LOW + (HIGH - LOW) * uniform
    spread = np.log(HIGH[0] / LOW[0])
    params[:, 0] = LOW[0] * np.exp(spread * uniform[:, 0])

    best = []
    for several in np.split(surrogate.curves(params)[:, -1], RANDOM_SEARCHES):
        last = [dict(zip(METRICS, values, strict=True)) for values in several.tolist()]
        feasible = [one["val_auroc"] for one in last if is_feasible(spec, surrogate, one)]
        best.append(max(feasible, default=0.0))
    return float(np.median(best))


def is_feasible(spec: Spec, surrogate: Surrogate, metrics: Mapping[str, float]) -> bool:
    return all(
        missed <= 0 for missed in misses_of(spec, metrics, surrogate.table.baseline).values()
    )


def epochs_needed(
    surrogate: Surrogate, spec: Spec, folder: SweepFolder, target: float, most: int
) -> int:
    """Epochs of a search until its best feasible complete trial has reached the target."""
    folder.path.mkdir(parents=True, exist_ok=True)
    ledger, taken, baseline = Ledger.writing(folder, spec), 0, surrogate.table.baseline
    while taken < most:
        suggestion = ledger.ask()
        number, curve = suggestion.number, surrogate.epochs_of(suggestion.params)
        for epoch, metrics in enumerate(curve, start=1):
            taken += 1
            if ledger.record_epoch(number, epoch, {**metrics, "epoch_s": 1.0}, baseline):
                break
        best = ledger.best()
        if best is not None and best.violation == 0 and best.values[0] >= target:
            return taken

    return most


def report(seeds: int) -> list[str]:
    lines = []
    for table in read_tables():
        surrogate = Surrogate(table)
        most = RANDOM_TRIALS * surrogate.epochs
        with tempfile.TemporaryDirectory() as scratch:
            target = target_of(surrogate, make_spec(Path(scratch), surrogate))
        best = max(row.epochs[-1]["val_auroc"] for row in table.rows)
        lines.append(
            f"{table.name}: {len(table.rows)} recorded configurations, the best val_auroc {best:.4f}; "
            f"{RANDOM_TRIALS} random trials find {target:.4f} in {most} epochs"
        )
        for sampler, pruner, after in SEARCHES:
            taken = []
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as scratch:
                    spec = make_spec(Path(scratch), surrogate, sampler, pruner, after, seed)
                    folder = SweepFolder(Path(scratch) / "home", "surrogate")
                    taken.append(epochs_needed(surrogate, spec, folder, target, most) / most)
            name = f"{sampler}, {pruner}"
            if pruner != "none":
                name += f" after {after:.0%}"
            lines.append(line(name, taken))
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def line(name: str, shares: Sequence[float]) -> str:
    low, middle, high = np.quantile(shares, [0.25, 0.5, 0.75])
    reached = np.mean([share < 1 for share in shares])
    return f"  {name:28} {middle:6.2f} ({low:.2f}–{high:.2f}), reached by {reached:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()

    os.fsync = lambda descriptor: None  # type: ignore[assignment]  # nothing here is to survive
    text = (
        "\n".join([*machine("optuna"), f"{chosen.seeds} seeds", "", *report(chosen.seeds)]) + "\n"
    )
    print(text, end="")
    if chosen.out:
        chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
