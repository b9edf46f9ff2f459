"""What one sees of work that takes a while: a live table on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lmoe_tune.cli.output import params_line, say, shown
from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep.observer import Observer
from lmoe_tune.wording import duration

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from lmoe_tune.sweep.ledger import Ledger

REFRESHES_PER_S = 2
LOGGED_EVERY_S = 15.0


class Lines(Observer):
    """A line on stderr for each thing that a person wants to know, and for each finished trial."""

    def __init__(self) -> None:
        self.ledger: Ledger | None = None
        self._last_work = time.monotonic()

    def on_message(self, text: str) -> None:
        say(text)

    def on_work(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_work >= LOGGED_EVERY_S:
            self._last_work = now
            say(f"{what}: {done:,} of {total:,}")

    def on_begin(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def on_start(self, trial: TrialRecord) -> None:
        if trial.epochs:
            say(f"{self.name_of(trial)}: continues after epoch {trial.epochs[-1].epoch}")

    def on_end(self, trial: TrialRecord) -> None:
        say(self.end_line(trial))

    def name_of(self, trial: TrialRecord) -> str:
        """What a trial is called on the screen."""
        return f"trial {trial.number}"

    def end_line(self, trial: TrialRecord) -> str:
        """How a trial ended, on one line."""
        assert self.ledger is not None, "a trial before the sweep began"
        return end_line(trial, self.ledger)


class LiveTable(Lines):
    """A table at the foot of the screen that is redrawn in place; what was said stays above it."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live
        self._work: dict[str, tuple[int, int, float]] = {}
        self._trials: _Trials | None = None
        self._message = ""

    def on_message(self, text: str) -> None:
        self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def on_work(self, what: str, done: int, total: int) -> None:
        self._live.start()
        if what in self._work:
            begun = self._work[what][2]
        else:
            begun = time.monotonic()
        self._work[what] = (done, total, begun)

    def on_begin(self, ledger: Ledger) -> None:
        super().on_begin(ledger)
        self._work.clear()
        self._trials = _Trials(ledger)
        self._live.start()

    def on_start(self, trial: TrialRecord) -> None:
        self._known().running[trial.number] = trial

    def on_epoch(self, trial: TrialRecord) -> None:
        self._known().running[trial.number] = trial

    def on_end(self, trial: TrialRecord) -> None:
        self._known().ended(trial)
        self.on_message(self.end_line(trial))

    def _known(self) -> _Trials:
        assert self._trials is not None, "a trial before the sweep began"
        return self._trials

    def __rich__(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table.grid(padding=(0, 2), expand=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for what, (done, total, begun) in list(self._work.items()):
            bar = Table.grid(padding=(0, 1))
            bar.add_row(
                ProgressBar(total=max(1, total), completed=done, width=20),
                f"{done:,} of {total:,}{_time_left(done, total, begun)}",
            )
            table.add_row(what, bar)
        if self._trials is not None:
            for name, text in self._trials.rows():
                table.add_row(name, text)
        return table


class _Trials:
    """What the live table shows of a sweep's trials."""

    def __init__(self, ledger: Ledger) -> None:
        trials = ledger.trials()
        self.running = {trial.number: trial for trial in trials if trial.state == "running"}
        self._ledger = ledger
        self._num_ended = self._num_before = sum(trial.state != "running" for trial in trials)
        self._num_failed = sum(trial.state == "failed" for trial in trials)
        self._started = time.monotonic()
        self._wall_before_s = ledger.wall_s()

    def ended(self, trial: TrialRecord) -> None:
        self.running.pop(trial.number, None)
        self._num_ended += 1
        self._num_failed += trial.state == "failed"

    def rows(self) -> Iterator[tuple[str, str]]:
        spec, budget = self._ledger.spec, self._ledger.budget
        metric = spec.objective.metric
        best = self._ledger.best()
        if best is not None:
            if best.violation == 0:
                note = ""
            else:
                note = "  (misses the constraints)"
            yield "best", f"trial {best.number}  {metric} {shown(best.value)}{note}"
            yield "", params_line(best.params)

        for trial in list(self.running.values()):
            epoch = trial.epochs[-1].epoch if trial.epochs else 0
            if trial.epochs:
                value = f"  {metric} {shown(trial.value)}"
            else:
                value = ""
            yield f"trial {trial.number}", f"epoch {epoch}/{spec.train.epochs}{value}"

        if baseline := self._baseline():
            yield "baseline", baseline
        planned = f"/{budget.trials}" if budget.trials else ""
        elapsed = time.monotonic() - self._started
        passed = duration(self._wall_before_s + elapsed)
        counts = f"{self._num_ended}{planned} trials, {self._num_failed} failed"
        yield "sweep", f"{counts}, {passed}{self._left(elapsed)}"

    def _baseline(self) -> str:
        from lmoe_tune.training.baseline_record import read_baseline_record

        if self._num_ended or any(trial.epochs for trial in self.running.values()):
            return ""
        record = read_baseline_record(self._ledger.folder.home, self._ledger.attrs["baseline"])
        done = len(record["epochs"]) if record else 0
        epochs = self._ledger.spec.model.baseline.epochs
        if done >= epochs:
            return ""
        return f"epoch {done}/{epochs} (trained once, the trials wait for it)"

    def _left(self, elapsed: float) -> str:
        budget, done = self._ledger.budget, self._num_ended - self._num_before
        left = []
        if budget.trials is not None and done > 0:
            left.append(elapsed / done * max(0, budget.trials - self._num_ended))
        if budget.time_s is not None:
            left.append(max(0.0, budget.time_s - self._wall_before_s - elapsed))
        if left:
            return f", about {duration(min(left))} left"

        return ""


@contextmanager
def watching() -> Iterator[Lines]:
    """The observer that fits stderr: a live table on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.live import Live

    live = Live(
        console=Console(stderr=True),
        refresh_per_second=REFRESHES_PER_S,
        transient=True,
        redirect_stdout=False,
    )
    table = LiveTable(live)
    live.update(table)
    try:
        yield table
    finally:
        live.stop()


def end_line(trial: TrialRecord, ledger: Ledger) -> str:
    """How a trial ended, on one line."""
    what = f"trial {trial.number} {trial.state}"
    if trial.state == "failed":
        return f"{what}: {trial.failure or 'no epoch before the end'}"

    metrics, objective = trial.metrics, ledger.spec.objective
    named = dict.fromkeys([*objective.metrics[1:], *objective.constraints])
    also = [f", {name} {shown(metrics[name])}" for name in named if name in metrics]
    value = f"{objective.metric} {shown(trial.value)}{''.join(also)}"
    return f"{what} at epoch {len(trial.epochs)}: {value}  ({params_line(trial.params)})"


def _time_left(done: int, total: int, begun: float) -> str:
    if not 0 < done < total:
        return ""
    return f", {duration((time.monotonic() - begun) / done * (total - done))} left"
