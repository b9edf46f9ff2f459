"""Progress of long work: a live table on a terminal; elsewhere a line now and then, and one for each
trial or job that ends.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lmoe_tune.cli.output import params_line, say, shown
from lmoe_tune.cli.streams import patient_stderr
from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep.observer import Observer

if TYPE_CHECKING:
    from lmoe_tune.sweep.ledger import Ledger

LOGGED_EVERY_S = 15.0


class Lines(Observer):
    """A line on stderr for each message, and for each finished trial."""

    ledger: Ledger
    """There from `on_begin` on."""

    def __init__(self) -> None:
        self._last_work = time.monotonic()

    def on_message(self, text: str) -> None:
        say(text)

    def on_work(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_work >= LOGGED_EVERY_S:
            self._last_work = now
            say(f"{what}: {done:,} of {total:,}")

    def on_begin(self, ledger: Ledger) -> None:
        self.ledger, self._num_ended = ledger, 0
        self._num_jobs = len(ledger.unfinished_points())

    def on_start(self, trial: TrialRecord) -> None:
        if trial.epochs:
            say(f"{name_of(trial, self.ledger)}: continues after epoch {trial.epochs[-1].epoch}")

    def on_end(self, trial: TrialRecord) -> None:
        self._num_ended += 1
        say(self.end_line(trial))

    def end_line(self, trial: TrialRecord) -> str:
        """How a trial ended, on one line."""
        if self.ledger.has_jobs:
            how = f"failed: {trial.failure}" if trial.state == "failed" else "done"
            place = f"[{self._num_ended} of {self._num_jobs}]"
            return f"{place} {job_name(trial, self.ledger)}: {how}"

        return end_line(trial, self.ledger)


@contextmanager
def watching() -> Iterator[Lines]:
    """The observer that fits stderr."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield Lines()
        return
    from lmoe_tune.cli.live_table import LiveTable

    table = LiveTable(patient_stderr(), sys.stderr.encoding or "ascii")
    try:
        yield table
    finally:
        table.close()


def name_of(trial: TrialRecord, ledger: Ledger) -> str:
    """What a trial is called on the screen."""
    if ledger.has_jobs:
        return job_name(trial, ledger)
    return f"trial {trial.number}"


def job_name(job: TrialRecord, ledger: Ledger) -> str:
    """What a confirmation trains there, and with which seed."""
    candidate = ledger.attrs["candidates"][job.params["candidate"]]
    about = f"{candidate['name']}, split {job.params['split']}, seed {job.params['seed']}"
    if candidate["purpose"] == "reseed":
        return f"{about}, validation images"
    return about


def end_line(trial: TrialRecord, ledger: Ledger) -> str:
    """How a trial of a search ended, on one line."""
    what = f"trial {trial.number} {trial.state}"
    if trial.state == "failed":
        return f"{what}: {trial.failure or 'no epoch before the end'}"

    metrics, objective = trial.metrics, ledger.spec.objective
    named = dict.fromkeys([*objective.metrics[1:], *objective.constraints])
    also = [f", {name} {shown(metrics[name])}" for name in named if name in metrics]
    value = f"{objective.metric} {shown(trial.value)}{''.join(also)}"
    if trial.ended_by is not None:
        what, value = f"trial {trial.number} ended", f"{trial.ended_by}; {value}"
    return f"{what} at epoch {len(trial.epochs)}: {value}  ({params_line(trial.params)})"
