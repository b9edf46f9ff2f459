"""A sweep to look at and to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from lmoe_tune import advice
from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.home import resolve_home
from lmoe_tune.records import TrialRecord
from lmoe_tune.spec import Spec
from lmoe_tune.sweep import view
from lmoe_tune.sweep.budget import exceeded
from lmoe_tune.sweep.folder import SweepFolder, find_sweep, find_sweeps
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.observer import Observer

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]


class Sweep:
    """A sweep as it stands now: what it gives is read again each time, also beside a running driver.

    Attributes:
        folder: where it is kept.
        ledger: the Optuna study in it, opened for reading.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self.ledger: Ledger = view.read_sweep(folder)

    def __repr__(self) -> str:
        return (
            f"<Sweep '{self.name}' in {self.folder.path}: {self.state}, {len(self.trials)} trials>"
        )

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def spec(self) -> Spec:
        """The search space, as it was resolved when the sweep was started."""
        return self.ledger.spec

    @property
    def state(self) -> str:
        """`running` while a process works on it, `complete`, or `interrupted`: it can be resumed."""
        return view.state_of(self.ledger)

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials that were started, by number."""
        return tuple(self.ledger.trials())

    @property
    def ranked(self) -> tuple[TrialRecord, ...]:
        """The complete trials, best first."""
        return tuple(self.ledger.ranked())

    @property
    def best(self) -> TrialRecord | None:
        """The best complete trial; where none is feasible, the one that misses the constraints least."""
        return self.ledger.best()

    @property
    def is_delivered(self) -> bool:
        """Whether MLflow has everything of it."""
        return view.is_delivered(self.ledger)

    @property
    def too_many_failed(self) -> bool:
        """Whether more trials failed than the budget allows, or more than were completed."""
        complete = self.ledger.standing.counts["complete"]
        return exceeded(self.ledger.usage(), self.ledger.budget, complete)

    def summary(self) -> dict[str, Any]:
        """State, counts, best trial and where MLflow shows it, as plain values: `status --format json`."""
        return view.summary(self.ledger)

    def leaderboard(self) -> list[dict[str, Any]]:
        """A row of plain values for each trial, best first: `leaderboard --format json`."""
        return view.leaderboard(self.ledger)

    def checkpoint(self, trial: int) -> Path | None:
        """The newest checkpoint of a trial, if it was kept: that of the best few is."""
        return view.checkpoint_of(self.folder, trial)

    def to_frame(self) -> pandas.DataFrame:
        """One row for each trial by number; a column for each parameter and for each metric of its last epoch."""
        import pandas

        rows = [
            {
                "trial": trial.number,
                "state": trial.state,
                "value": trial.value,
                "feasible": trial.violation == 0,
                "epochs": len(trial.epochs),
                **trial.params,
                **trial.metrics,
            }
            for trial in self.trials
        ]
        if not rows:
            return pandas.DataFrame({"trial": [], "state": [], "value": []}).set_index("trial")
        return pandas.DataFrame(rows).set_index("trial")

    def resume(
        self,
        *,
        trials: str | int | None = None,
        time: str | float | None = None,
        gpu_hours: str | float | None = None,
        max_failed: str | int | None = None,
        retry_failed: bool = False,
        allow_changes: bool = False,
        address: str | None = None,
        observer: Observer | None = None,
        wait_for_lock: str | float | None = None,
        stop: Event | None = None,
    ) -> Sweep:
        """Go on with it, or extend it; returns when it is complete or was stopped.

        Args:
            trials: "+8" for eight more, 24 for that many in all.
            time: of all runs together, in seconds or as "8h"; "+2h" for so much more.
            gpu_hours: of all runs together, or "+4" for so many more.
            max_failed: how many trials may fail, or "+2" for two more.
            retry_failed: try failed trials once more.
            allow_changes: go on although code or data changed; the sweep records it.
            address: of a Ray cluster to join; see `search`.
            observer: hears what happens.
            wait_for_lock: how long to wait for another process that works on it.
            stop: set it from another thread to stop cleanly.

        Raises:
            SweepLockedError: another process works on it.
            LmoeTuneError: as for `search`.
        """
        from lmoe_tune.api.running import resume

        return resume(
            self.folder,
            trials=trials,
            time=time,
            gpu_hours=gpu_hours,
            max_failed=max_failed,
            retry_failed=retry_failed,
            allow_changes=allow_changes,
            address=address,
            observer=observer,
            wait_for_lock=wait_for_lock,
            stop=stop,
        )


def open_sweep(name: str, home: str | Path | None = None) -> Sweep:
    """A sweep of a home, to be looked at; at any moment, also while a process works on it.

    Args:
        name: as `list` shows it.
        home: the folder of sweeps; None is LMOE_TUNE_HOME, else ./lmoe_runs.

    Raises:
        UsageError: there is no such sweep; the message names those there are.
        LedgerError: its records are damaged.
    """
    return Sweep(find_sweep(resolve_home(home), name))


def latest_sweep(home: Path, *, unfinished: bool) -> SweepFolder:
    """The sweep that was worked on last; with `unfinished`, the last of those that can go on, if there is one.

    One that `--fresh` has put aside is not taken, nor one that ended before its first trial where there are others.

    Raises:
        UsageError: there is none.
    """
    sweeps: Sequence[SweepFolder] = [
        folder for folder in find_sweeps(home) if not folder.is_set_aside
    ]
    if not sweeps:
        raise UsageError(f"no sweeps in {home}; start one with: {advice.search(home=home)}")

    if not unfinished:
        return sweeps[0]

    begun = []
    for folder in sweeps:
        with suppress(LmoeTuneError):  # a damaged one does not keep the others from going on
            ledger = view.read_sweep(folder)
            if ledger.num_trials():
                if not ledger.is_complete():
                    return folder
                begun.append(folder)
    if begun:
        return begun[0]

    return sweeps[0]
