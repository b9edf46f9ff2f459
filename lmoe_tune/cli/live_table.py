"""The live table: the state of a running sweep or confirmation, on 40 columns or on 80."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmoe_tune.cli.foot import Foot
from lmoe_tune.cli.lines import Lines, job_name
from lmoe_tune.cli.output import shown
from lmoe_tune.cli.pace import Pace, until_a_budget_ends
from lmoe_tune.cli.streams import PatientFile
from lmoe_tune.records import TrialRecord, TrialState
from lmoe_tune.wording import duration

if TYPE_CHECKING:
    from lmoe_tune.sweep.ledger import Ledger

EVERY_S = 0.5
ENDED: tuple[TrialState, ...] = ("complete", "pruned", "failed")
LABEL, BAR, NARROWEST_BAR, BAR_OF_TRIAL = 8, 20, 6, 10  # columns
PHONE = 40  # columns: lines that stay for long are no wider, so no window wraps them


class LiveTable(Lines):
    """A table at the foot of the screen that is redrawn in place; messages stay above it."""

    def __init__(self, terminal: PatientFile, encoding: str) -> None:
        super().__init__()
        self._foot = Foot(terminal, encoding, self.lines, EVERY_S)
        self._full, self._empty = "━─" if encoding.lower().startswith("utf") else "#."
        self._work: dict[str, _Work] = {}
        self._trials: _Trials | None = None

    def close(self) -> None:
        """Remove the table."""
        self._foot.stop()

    def on_work(self, what: str, done: int, total: int) -> None:
        begun = self._work[what].begun if what in self._work else time.monotonic()
        self._work[what] = _Work(done, total, begun)
        self._foot.start()

    def on_begin(self, ledger: Ledger) -> None:
        super().on_begin(ledger)
        self._work.clear()
        self._trials = _Trials(ledger)
        self._foot.start()

    def on_start(self, trial: TrialRecord) -> None:
        self._known().running[trial.number] = trial

    def on_epoch(self, trial: TrialRecord) -> None:
        self._known().reported(trial)

    def on_end(self, trial: TrialRecord) -> None:
        self._known().ended(trial)
        super().on_end(trial)

    def _known(self) -> _Trials:
        assert self._trials is not None, "a trial before the sweep began"
        return self._trials

    def lines(self, width: int, height: int) -> list[str]:
        """What the table shows, in lines of at most `width`, and at most `height` of them."""
        found = [
            line for what, work in list(self._work.items()) for line in self._bar(what, work, width)
        ]
        if self._trials is not None:
            found += self._of_sweep(self._trials, width)
            running = list(self._trials.lines_of_running(width, self._drawn_bar))
            room = max(1, height - len(found))
            if len(running) > room:
                more = f"and {len(running) - room + 1} more {self._trials.kind}"
                running = [*running[: room - 1], _row("", more, width)]
            found += running
        return [line[:width] for line in found[:height]]

    def _of_sweep(self, trials: _Trials, width: int) -> Iterator[str]:
        for label, text in trials.rows():
            yield _row(label, text, width)
        baseline = trials.baseline()
        if baseline is not None:
            yield from self._bar("baseline", baseline, width)

    def _bar(self, what: str, work: _Work, width: int) -> Iterator[str]:
        """A progress bar, on a line of its own where the window is narrow."""
        tail = work.in_words()
        label = f"{what:{LABEL}}  "
        room = width - len(label) - len(tail) - 2
        if room >= NARROWEST_BAR:
            yield f"{label}{self._drawn_bar(work.done, work.total, min(BAR, room))}  {tail}"
            return

        yield _cut(what, width)
        room = min(BAR, max(NARROWEST_BAR, width - len(tail) - 4))
        yield _cut(f"  {self._drawn_bar(work.done, work.total, room)}  {tail}", width)

    def _drawn_bar(self, done: int, total: int, width: int) -> str:
        full = round(width * min(1.0, done / max(1, total)))
        return self._full * full + self._empty * (width - full)


@dataclass(frozen=True)
class _Work:
    """The progress of something in its own units, and when it began by the monotonic clock."""

    done: int
    total: int
    begun: float
    left_s: float | None = None
    """None: by how long it took so far."""

    def in_words(self) -> str:
        left = self.left_s
        if left is None and 0 < self.done < self.total:
            left = (time.monotonic() - self.begun) / self.done * (self.total - self.done)
        counts = f"{self.done:,} of {self.total:,}"
        if left is None:
            return counts

        return f"{counts}, {duration(left)} left"


class _Trials:
    """What the live table shows of a sweep's trials, or of a confirmation's jobs. Changed by its
    observer's calls only.

    Nothing of what a confirmation measures is shown before its end.
    """

    def __init__(self, ledger: Ledger) -> None:
        trials = ledger.trials()
        self._has_jobs = ledger.has_jobs
        self.kind = "jobs" if self._has_jobs else "trials"
        self._num_jobs = len(ledger.unfinished_points()) if self._has_jobs else None
        self.running = {trial.number: trial for trial in trials if trial.state == "running"}
        self._ledger = ledger
        self._pace = Pace(ledger.spec.train.epochs)
        self._before = Counter(ledger.standing.counts if self._has_jobs else ())
        self._best = None if self._has_jobs else ledger.best()
        self._begun = time.monotonic()
        self._wall_before_s = ledger.wall_s()
        for trial in trials:
            if trial.epochs:
                self._pace.add_epoch(trial)
            if trial.state != "running" and not self._has_jobs:
                self._pace.add_end(trial)
        self._look()

    def reported(self, trial: TrialRecord) -> None:
        """Take in a trial's next epoch."""
        self.running[trial.number] = trial
        self._pace.add_epoch(trial)
        self._look()

    def ended(self, trial: TrialRecord) -> None:
        """Take in the end of a trial, and the epoch that it ended with."""
        before = self.running.pop(trial.number, None)
        if trial.epochs and (before is None or len(before.epochs) < len(trial.epochs)):
            self._pace.add_epoch(trial)
        self._pace.add_end(trial)
        self._look()
        if not self._has_jobs:
            self._best = self._ledger.best()

    def _look(self) -> None:
        """At what the ledger adds up to, in the thread that writes it."""
        ledger = self._ledger
        counts = {state: ledger.standing.counts[state] - self._before[state] for state in ENDED}
        self._num_ended, self._num_failed = sum(counts.values()), counts["failed"]
        self._gpu_hours = ledger.gpu_hours()

    def rows(self) -> Iterator[tuple[str, str]]:
        """Label and text of what concerns the sweep as a whole."""
        budget = self._ledger.budget
        wall_s = self._wall_before_s + time.monotonic() - self._begun
        planned = self._num_jobs or budget.trials
        of = f" of {planned}" if planned else ""
        failed = f", {self._num_failed} failed" if self._num_failed else ""
        yield self.kind, f"{self._num_ended}{of}{failed}, {len(self.running)} running"

        left = self._left_s(wall_s)
        until = "" if left is None else f", about {duration(left)} left"
        yield "time", f"{duration(wall_s)}{until}"

        if self._ledger.spec.resources.gpu > 0:
            of = f" of {budget.gpu_hours:g}" if budget.gpu_hours else ""
            yield "spent", f"{self._gpu_hours:.2f}{of} GPU-hours"

        best = self._best
        if best is not None:
            metric = self._ledger.spec.objective.metric
            note = "" if best.violation == 0 else ", infeasible"
            yield "best", f"trial {best.number}{note}, {metric} {shown(best.value)}"
            for line in _folded(best.params):
                yield "", line

    def baseline(self) -> _Work | None:
        """The progress of the baseline that the first trials wait for; None if they do not wait."""
        from lmoe_tune.training.baseline_record import read_baseline_record

        if (
            self._has_jobs
            or self._num_ended
            or any(trial.epochs for trial in list(self.running.values()))
        ):
            return None
        record = read_baseline_record(self._ledger.folder.home, self._ledger.attrs["baseline"])
        found = record["epochs"] if record else []
        epochs = self._ledger.spec.model.baseline.epochs
        if len(found) >= epochs:
            return None

        left = None
        if found:
            epoch_s = sum(epoch["metrics"]["epoch_s"] for epoch in found) / len(found)
            left = epoch_s * (epochs - len(found))
        return _Work(len(found), epochs, self._begun, left)

    def lines_of_running(self, width: int, bar: Callable[[int, int, int], str]) -> Iterator[str]:
        """A line for each trial that runs."""
        total = self._ledger.spec.train.epochs
        for trial in list(self.running.values()):
            done = len(trial.epochs)
            progress = f"{bar(done, total, BAR_OF_TRIAL)}  {done}/{total}"
            if self._has_jobs:
                yield _row("", f"{progress}  {job_name(trial, self._ledger)}", width)
                continue
            value = shown(trial.value) if trial.epochs else ""
            yield _row(f"trial {trial.number}", f"{progress}  {value}", width)

    def _left_s(self, wall_s: float) -> float | None:
        budget, spec = self._ledger.budget, self._ledger.spec
        gpus = spec.resources.gpu * max(1, len(self.running))
        left = until_a_budget_ends(budget, wall_s=wall_s, gpu_hours=self._gpu_hours, gpus=gpus)

        running = [len(trial.epochs) for trial in list(self.running.values())]
        counts = (budget.trials, self._ledger.num_points, self._num_jobs)
        planned = [count for count in counts if count]
        if planned:
            num_waiting = max(0, min(planned) - self._num_ended - len(running))
            by_trials = self._pace.left_s(num_waiting, running)
            if by_trials is not None:
                left.append(by_trials)
        return min(left, default=None)


def _row(label: str, text: str, width: int) -> str:
    return _cut(f"{label:{LABEL}}  {text}", width)


def _folded(params: Mapping[str, Any]) -> Iterator[str]:
    """Parameters on as many lines as fit beside a label on a phone's screen."""
    line = ""
    for name, value in params.items():
        item = f"{name} {shown(value)}"
        if line and len(line) + 2 + len(item) > PHONE - LABEL - 3:
            yield f"{line},"
            line = item
        else:
            line = f"{line}, {item}" if line else item
    yield line


def _cut(line: str, width: int) -> str:
    if len(line) <= width:
        return line.rstrip()

    return f"{line[: width - 1]}…"
