"""What one sees of a running sweep: a quiet live table on a terminal, else one line per finished trial."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lmoe_tune.cli.output import params_line, say, shown
from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.training.baseline_record import read_baseline_record
from lmoe_tune.wording import duration

if TYPE_CHECKING:
    from rich.table import Table

REFRESHES_PER_S = 2


class LineProgress:
    """One line per finished trial, on stderr."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._metric = ledger.spec.objective.metric

    def on_start(self, trial: TrialRecord) -> None:
        if trial.epochs:
            say(f"trial {trial.number}: continues after epoch {trial.epochs[-1].epoch}")

    def on_epoch(self, trial: TrialRecord) -> None:
        """Nothing: a line per epoch would drown the rest."""

    def on_end(self, trial: TrialRecord) -> None:
        say(end_line(trial, self._metric, self._ledger))

    def on_message(self, text: str) -> None:
        say(text)


class LiveProgress:
    """A table that is redrawn in place: best so far, what runs, what failed, what is left."""

    def __init__(self, ledger: Ledger, live: Any) -> None:
        self._ledger = ledger
        self._live = live
        self._metric = ledger.spec.objective.metric
        self._running: dict[int, TrialRecord] = {
            trial.number: trial for trial in ledger.trials() if trial.state == "running"
        }
        self._finished = [trial for trial in ledger.trials() if trial.state != "running"]
        self._started = time.monotonic()
        self._wall_before_s = ledger.wall_s()
        self._num_before = len(self._finished)
        self._message = "starting Ray"

    def on_start(self, trial: TrialRecord) -> None:
        self._running[trial.number] = trial

    def on_epoch(self, trial: TrialRecord) -> None:
        self._running[trial.number] = trial
        self._message = ""

    def on_end(self, trial: TrialRecord) -> None:
        self._running.pop(trial.number, None)
        self._finished.append(trial)
        self._live.console.print(end_line(trial, self._metric, self._ledger), highlight=False)

    def on_message(self, text: str) -> None:
        self._message = text

    def __rich__(self) -> Table:
        from rich.table import Table

        spec, budget = self._ledger.spec, self._ledger.budget
        table = Table.grid(padding=(0, 2))
        best = self._ledger.best()
        if best is not None:
            note = "" if best.violation == 0 else "  (misses the constraints)"
            table.add_row("best", f"trial {best.number}  {self._metric} {shown(best.value)}{note}")
            table.add_row("", params_line(best.params))
        for trial in list(self._running.values()):
            epoch = trial.epochs[-1].epoch if trial.epochs else 0
            value = f"  {self._metric} {shown(trial.value)}" if trial.epochs else ""
            table.add_row(f"trial {trial.number}", f"epoch {epoch}/{spec.train.epochs}{value}")
        baseline = self._baseline()
        if baseline:
            table.add_row("baseline", baseline)
        failed = sum(trial.state == "failed" for trial in self._finished)
        planned = f"/{budget.trials}" if budget.trials else ""
        status = f"{len(self._finished)}{planned} trials, {failed} failed"
        elapsed = time.monotonic() - self._started
        table.add_row(
            "sweep", f"{status}, {duration(self._wall_before_s + elapsed)}{self._left(elapsed)}"
        )
        if self._message:
            table.add_row("", self._message)
        return table

    def _baseline(self) -> str:
        if any(trial.epochs for trial in self._running.values()) or self._finished:
            return ""
        record = read_baseline_record(self._ledger.folder.home, self._ledger.attrs["baseline"])
        done = len(record["epochs"]) if record else 0
        epochs = self._ledger.spec.model.baseline.epochs
        return (
            f"epoch {done}/{epochs} (trained once, the trials wait for it)" if done < epochs else ""
        )

    def _left(self, elapsed: float) -> str:
        budget, done = self._ledger.budget, len(self._finished) - self._num_before
        left = []
        if budget.trials is not None and done > 0:
            left.append(elapsed / done * max(0, budget.trials - len(self._finished)))
        if budget.time_s is not None:
            left.append(max(0.0, budget.time_s - self._wall_before_s - elapsed))
        return f", about {duration(min(left))} left" if left else ""


@contextmanager
def watching(ledger: Ledger) -> Iterator[LineProgress | LiveProgress]:
    """The observer that fits stderr: live on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield LineProgress(ledger)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(
        console=Console(stderr=True), refresh_per_second=REFRESHES_PER_S, transient=True
    ) as live:
        progress = LiveProgress(ledger, live)
        live.update(progress)
        yield progress


def end_line(trial: TrialRecord, metric: str, ledger: Ledger) -> str:
    """How a trial ended, on one line."""
    what = f"trial {trial.number} {trial.state}"
    if trial.state == "failed":
        return f"{what}: {trial.failure or 'no epoch before the end'}"
    metrics = trial.metrics
    objective = ledger.spec.objective
    named = dict.fromkeys([*objective.metrics[1:], *objective.constraints])
    also = ", ".join(f"{name} {shown(metrics[name])}" for name in named if name in metrics)
    return (
        f"{what} at epoch {len(trial.epochs)}: {metric} {shown(trial.value)}"
        f"{f', {also}' if also else ''}  ({params_line(trial.params)})"
    )
