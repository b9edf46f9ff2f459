"""Which pruner is worth its epochs, over tables of trainings that were recorded once, before any pruner was tried.

    python benchmarks/rungs.py [--seeds 50]                       # over the tables in benchmarks/tables
    python benchmarks/rungs.py --record digits --configurations 25      # trains such a table: a few minutes of a core
    python benchmarks/rungs.py --record typefaces --configurations 40   # the same of image files, see typefaces.py

A table has a line for each configuration, drawn at random from the shipped space: its parameters, and AUROC and
accuracy on the validation images after every epoch. A search is then a lookup: configurations come in a random order,
two at a time, through the sweep's own pruning, and nothing is trained.

Printed are the rank correlation of each epoch with the last, and for each pruner, as median and quartiles over orders:
the epochs that it takes, as a share of those without pruning, and its regret, which is what its best feasible
configuration lacks to the best one among those that it was offered.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lmoe_tune
from lmoe_tune.spec import Spec
from lmoe_tune.sweep import pruning
from lmoe_tune.sweep.pruning import Pruning, misses_of

TABLES = Path(__file__).resolve().parent / "tables"
METRICS = ("val_auroc", "val_accuracy")
TRIALS = 32  # configurations that a search is offered
SLOTS = 2


@dataclass(frozen=True)
class Row:
    """One configuration: its metrics epoch by epoch."""

    params: dict[str, Any]
    epochs: list[dict[str, float]]


@dataclass(frozen=True)
class Table:
    """What was trained."""

    name: str
    baseline: dict[str, float]
    rows: list[Row]


@dataclass(frozen=True)
class Rule:
    """A pruner with its settings."""

    name: str
    kind: str
    after: float
    """Its first rung, as a share of all epochs."""
    factor: int = 3
    """One trial of so many goes on, and from one rung to the next there are so many times the epochs."""


RULES = (
    Rule("none", "none", 1.0),
    Rule("asha, after a fifth, factor 3", "asha", 0.2),
    Rule("asha, after a tenth, factor 4", "asha", 0.1, 4),
    Rule("asha, after 30%, factor 3", "asha", 0.3),
    Rule("asha, after two fifths, factor 3", "asha", 0.4),
    Rule("asha, after two fifths, factor 4", "asha", 0.4, 4),
    Rule("one cut after half, factor 2", "asha", 0.5, 2),
    Rule("hyperband, after a fifth", "hyperband", 0.2),
    Rule("hyperband, after two fifths", "hyperband", 0.4),
    Rule("median, after a fifth", "median", 0.2),
    Rule("median, after two fifths", "median", 0.4),
)


def read_tables() -> Iterator[Table]:
    for path in sorted(TABLES.glob("*.jsonl")):
        first, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [
            Row(
                line["params"],
                [
                    dict(zip(METRICS, values, strict=True))
                    for values in zip(*(line[name] for name in METRICS), strict=True)
                ],
            )
            for line in lines
        ]
        yield Table(path.stem, first["baseline"], rows)


def correlations(table: Table) -> list[float]:
    """Spearman's, of the AUROC after each epoch with that after the last one."""
    values = np.array([[epoch["val_auroc"] for epoch in row.epochs] for row in table.rows])
    ranks = values.argsort(axis=0).argsort(axis=0)
    return [
        float(np.corrcoef(ranks[:, place], ranks[:, -1])[0, 1]) for place in range(values.shape[1])
    ]


def make_spec(table: Table, rule: Rule) -> Spec:
    epochs = len(table.rows[0].epochs)
    overrides = [
        f"train.epochs={epochs}",
        f"search.pruner={rule.kind}",
        f"search.min_epochs={max(1, round(rule.after * epochs))}",
    ]
    return lmoe_tune.load_spec("digits", overrides).spec


def is_feasible(spec: Spec, table: Table, row: Row) -> bool:
    return all(missed <= 0 for missed in misses_of(spec, row.epochs[-1], table.baseline).values())


def search(spec: Spec, table: Table, rows: Sequence[Row]) -> tuple[int, float | None]:
    """Epochs that were taken, and the best feasible value among the configurations that went to the end."""
    rule, done = Pruning(spec), [0] * len(rows)
    waiting, running = list(range(len(rows))), list[int]()
    taken, best = 0, None
    while waiting or running:
        while waiting and len(running) < SLOTS:
            running.append(waiting.pop(0))
        number = min(running, key=lambda one: (done[one], one))
        metrics = rows[number].epochs[done[number]]
        done[number] += 1
        taken += 1
        rule.add_epoch(number, metrics, misses_of(spec, metrics, table.baseline))
        complete = done[number] == len(rows[number].epochs)
        if complete or rule.decides_against(number):
            rule.end(number, complete=complete)
            running.remove(number)
            if complete and is_feasible(spec, table, rows[number]):
                best = max(metrics["val_auroc"], -1.0 if best is None else best)
    return taken, best


def judge(table: Table, rule: Rule, seeds: int) -> tuple[list[float], list[float]]:
    """The share of the epochs, and the regret, for each order."""
    spec, before = make_spec(table, rule), pruning.REDUCTION_FACTOR
    pruning.REDUCTION_FACTOR = rule.factor
    shares, regrets = [], []
    try:
        for seed in range(seeds):
            rows = random.Random(seed).sample(table.rows, min(TRIALS, len(table.rows)))
            values = [row.epochs[-1]["val_auroc"] for row in rows if is_feasible(spec, table, row)]
            taken, best = search(spec, table, rows)
            shares.append(taken / sum(len(row.epochs) for row in rows))
            if values:
                regrets.append(max(values) - (0.0 if best is None else best))
    finally:
        pruning.REDUCTION_FACTOR = before
    return shares, regrets


def quartiles(values: Sequence[float], form: str) -> str:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:{form}} ({low:{form}}–{high:{form}})"


def report(seeds: int, out: Callable[[str], None]) -> None:
    for table in read_tables():
        epochs = len(table.rows[0].epochs)
        out(f"{table.name}: {len(table.rows)} configurations of {epochs} epochs")
        out(
            f"  rank correlation with the last epoch: {' '.join(f'{one:.2f}' for one in correlations(table))}"
        )
        out(f"  {'':38} {'epochs':>20} {'regret':>28}")
        for rule in RULES:
            shares, regrets = judge(table, rule, seeds)
            out(f"  {rule.name:38} {quartiles(shares, '.0%'):>20} {quartiles(regrets, '.5f'):>28}")


def record(name: str, count: int, home: Path) -> None:
    """Train a table: a configuration a line, written as it is done; what is there already stays.

    Args:
        home: where the baseline and the images are kept; the same again goes on where it was stopped.
    """
    import optuna

    from benchmarks import typefaces
    from lmoe_tune.sweep.sampling import make_distributions
    from lmoe_tune.training.baseline_record import read_baseline_record

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if name == "typefaces":
        spec = lmoe_tune.load_spec(typefaces.make(home.resolve() / "typefaces"))
    else:
        spec = lmoe_tune.load_spec(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=20_000))
    path = TABLES / f"{name}.jsonl"
    TABLES.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        num_known = max(0, len(path.read_text(encoding="utf-8").splitlines()) - 1)
        for number in range(count):
            params = study.ask(fixed_distributions=make_distributions(spec.spec)).params
            if number < num_known:
                continue
            epochs = [
                dict(epoch.metrics) for epoch in lmoe_tune.train(spec, params=params, home=home)
            ]
            if number == 0:
                (found,) = [one.name for one in (home / "baselines").iterdir() if one.is_dir()]
                baseline = read_baseline_record(home, found)
                assert baseline is not None
                last = baseline["epochs"][-1]["metrics"]
                file.write(
                    json.dumps({"baseline": {key: last[key] for key in METRICS if key in last}})
                    + "\n"
                )
            line: dict[str, Any] = {"params": params}
            line |= {key: [round(epoch[key], 6) for epoch in epochs] for key in METRICS}
            file.write(json.dumps(line) + "\n")
            file.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--record", metavar="SPEC")
    parser.add_argument("--configurations", type=int, default=40)
    parser.add_argument(
        "--home", type=Path, help="for --record: an empty folder, or the one before"
    )
    chosen = parser.parse_args()
    if chosen.record:
        with tempfile.TemporaryDirectory() as scratch:
            record(chosen.record, chosen.configurations, chosen.home or Path(scratch))
    else:
        report(chosen.seeds, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
