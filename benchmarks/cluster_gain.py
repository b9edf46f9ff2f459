"""What a cluster of eight gains: searches and confirmations played through by the clock, nothing trained.

    python benchmarks/cluster_gain.py [--seeds 50]

A search goes over the recorded tables of `rungs.py`, through the sweep's own pruning, on one to eight slots. The unit
of time is a whole trial at an outlier ratio of 1. An epoch takes as long as its images do: an outlier goes through the
network alone and mixed in. The first trial trains the baseline, which is as long as the shipped spaces have it: 90
epochs of the images alone, beside trials of 10 epochs. Until it is there, a sweep on a cluster holds no other slot.

A confirmation has four rows of five seeds, in the order in which they are queued. Each seed has a baseline of its own;
whoever comes first trains it, and who comes later waits for it.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.rungs import (  # noqa: E402 (after the checkout is on the path)
    RULES,
    TRIALS,
    Row,
    Table,
    is_feasible,
    make_spec,
    read_tables,
)
from lmoe_tune.spec import Spec  # noqa: E402
from lmoe_tune.sweep.pruning import Pruning, misses_of  # noqa: E402

SLOTS = (1, 2, 4, 8)
BASELINE_EPOCHS, TRIAL_EPOCHS = 90, 10
AT_RATIO_1 = (
    3.0  # images through the network for each of the training set: itself, an outlier, the mixture
)
BASELINE = BASELINE_EPOCHS / (TRIAL_EPOCHS * AT_RATIO_1)
ROWS, SEEDS = 4, 5
SEARCHED = ("none", "asha, after a fifth, factor 3")


@dataclass(frozen=True)
class Played:
    """How a search or a confirmation went, in whole trials."""

    wall: float
    reserved: float
    waited: float
    """A search: what would be reserved besides, if all slots were held from the start. A confirmation: what of the
    reserved time was spent in waiting for a baseline."""
    best: float | None = None


def epoch_cost(row: Row) -> float:
    ratio = float(row.params.get("outlier_ratio", 1.0))
    return (1 + 2 * ratio) / AT_RATIO_1 / len(row.epochs)


def play_search(
    spec: Spec, table: Table, rows: Sequence[Row], slots: int, baseline: float
) -> Played:
    """One search: the trials report in the order of the clock, and the pruner knows what came before."""
    rule, done = Pruning(spec), [0] * len(rows)
    waiting = list(range(len(rows)))
    first = [waiting.pop(0) for _ in range(min(slots, len(rows)))]
    queue = [(baseline + epoch_cost(rows[number]), number) for number in first]
    heapq.heapify(queue)
    wall, reserved, best = 0.0, 0.0, None

    while queue:
        now, number = heapq.heappop(queue)
        metrics = rows[number].epochs[done[number]]
        done[number] += 1
        rule.add_epoch(number, metrics, misses_of(spec, metrics, table.baseline))
        complete = done[number] == len(rows[number].epochs)
        if not complete and not rule.decides_against(number):
            heapq.heappush(queue, (now + epoch_cost(rows[number]), number))
            continue

        rule.end(number, complete=complete)
        if complete and is_feasible(spec, table, rows[number]):
            best = max(metrics["val_auroc"], -1.0 if best is None else best)
        if waiting:
            following = waiting.pop(0)
            heapq.heappush(queue, (now + epoch_cost(rows[following]), following))
        else:  # this slot is given back
            wall, reserved = max(wall, now), reserved + now - baseline
    return Played(wall, reserved + baseline, baseline * (len(first) - 1), best)


def play_confirmation(slots: int) -> Played:
    """Jobs row by row, seed by seed, each with its seed's baseline first."""
    jobs = [seed for _ in range(ROWS) for seed in range(SEEDS)]
    free = [0.0] * min(slots, len(jobs))
    ready: dict[int, float] = {}
    waited = 0.0
    for seed in jobs:
        now = heapq.heappop(free)
        if seed not in ready:
            ready[seed] = now + BASELINE
            begins = ready[seed]
        else:
            begins = max(now, ready[seed])
            waited += begins - now
        heapq.heappush(free, begins + 1.0)
    return Played(max(free), sum(free), waited)


def report(seeds: int, out: Callable[[str], None]) -> None:
    for table in read_tables():
        best_known = max(row.epochs[-1]["val_auroc"] for row in table.rows)
        for name in SEARCHED:
            rule = next(one for one in RULES if one.name == name)
            spec = make_spec(table, rule)
            for baseline, said in (
                (BASELINE, "with the baseline"),
                (0.0, "baseline there already"),
            ):
                trials = min(TRIALS, len(table.rows))
                out(f"search of {trials} trials over {table.name}, pruner {rule.kind}, {said}")
                alone = 0.0
                for slots in SLOTS:
                    played = []
                    for seed in range(seeds):
                        rows = random.Random(seed).sample(table.rows, trials)
                        played.append(play_search(spec, table, rows, slots, baseline))
                    alone = alone or _median([one.wall for one in played])
                    lacking = [best_known - (one.best or 0.0) for one in played]
                    waited = _median([one.waited for one in played])
                    out(
                        f"  {_line(slots, played, alone)} (+ {waited:4.1f} if all slots were held from the start); "
                        f"lacks {_median(lacking):.5f} AUROC"
                    )

    out(f"confirmation of {ROWS} rows of {SEEDS} seeds")
    alone = play_confirmation(1).wall
    for slots in SLOTS:
        found = play_confirmation(slots)
        share = found.waited / found.reserved
        out(f"  {_line(slots, [found], alone)}, {share:4.0%} of it waiting for a baseline")


def _line(slots: int, played: Sequence[Played], alone: float) -> str:
    wall = _median([one.wall for one in played])
    reserved = _median([one.reserved for one in played])
    return f"{slots} slots: {wall:5.1f} wall, {alone / wall:4.1f} times as fast, {reserved:5.1f} reserved"


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=50)
    chosen = parser.parse_args()
    report(chosen.seeds, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
