"""A sweep to look at and to continue."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from lmoe_tune import advice
from lmoe_tune.arguments import refuse_other, refuse_other_items
from lmoe_tune.errors import LmoeTuneError, TrackingError, UsageError
from lmoe_tune.home import resolve_home
from lmoe_tune.records import TrialRecord
from lmoe_tune.spec import Spec
from lmoe_tune.sweep import view
from lmoe_tune.sweep.budget import change_of, exceeded, seconds
from lmoe_tune.sweep.folder import SweepFolder, closed_sweeps, find_sweep, find_sweeps, parts_of
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.observer import Observer, hearing
from lmoe_tune.sweep.settings import RunSettings
from lmoe_tune.sweep.tracked import address as address_of
from lmoe_tune.sweep.tracked import page_of
from lmoe_tune.wording import shortened

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

    from lmoe_tune.export import Exported
    from lmoe_tune.report.comparison import Comparison
    from lmoe_tune.sweep.audit import Audit
    from lmoe_tune.sweep.disk import Freed


class Sweep:
    """A sweep as it is now: its values are read again each time, even beside a running driver.

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
        """The spec, as it was resolved when the sweep was started."""
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
        """The best complete trial; where none is feasible, the one that misses the constraints
        least.
        """
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
        """State, counts, best trial and where MLflow shows it, as plain values:
        `status --format json`.
        """
        return view.summary(self.ledger)

    def leaderboard(self) -> list[dict[str, Any]]:
        """A row of plain values for each trial, best first: `leaderboard --format json`."""
        return view.leaderboard(self.ledger)

    @property
    def test_openings(self) -> list[dict[str, Any]]:
        """Every opening of the sealed test set: `time_ms`, `who`, `command`, for how many
        `jobs`.
        """
        return view.test_openings(self.ledger)

    def audit(self) -> Audit:
        """Recompute every suggestion and every decision of the pruner, and compare them with the
        record.
        """
        from lmoe_tune.sweep.audit import audit

        return audit(self.ledger)

    def prune_checkpoints(self, keep: int | None = None) -> Freed:
        """Delete checkpoints that nothing needs any more.

        Args:
            keep: how many of the best trials keep theirs; None: as the spec says.

        Raises:
            SweepLockedError: a process works on it.
            UsageError: `keep` is not a number of trials.
        """
        from lmoe_tune.sweep.disk import prune_checkpoints

        refuse_other(keep, "keep", int, type(None))
        if keep is not None and keep < 0:
            raise UsageError(f"keep is {keep}, but must be at least 0")
        with self.folder.locked():
            return prune_checkpoints(Ledger.writing(self.folder, self.spec), keep)

    def sync(self, tracking_uri: str | None = None, *, observer: Observer | None = None) -> str:
        """Deliver to MLflow what it does not have yet, with the confirmation and the report.

        Args:
            tracking_uri: another server, which gets the whole sweep.
            observer: hears what happens.

        Returns:
            The server that has everything now, without a password.

        Raises:
            UsageError: the sweep is a copy of another one, whose runs it would overwrite.
            TrackingError: it could not be reached; nothing is lost.
            SweepLockedError: a process works on the sweep.
        """
        from lmoe_tune.tracking import absolute, shown

        refuse_other(tracking_uri, "tracking_uri", str, type(None))
        uri = address_of(self.folder, self.spec)
        if tracking_uri is not None:
            uri = absolute(tracking_uri, Path.cwd())
        hears = hearing(observer)
        delivered = all(_synced(part, uri, hears) for part in (self.folder, *parts_of(self.folder)))
        if not (delivered and self.deliver_report(uri)):
            raise TrackingError(
                f"MLflow at {shown(uri)} could not be reached; nothing is lost, try again later"
            )
        return shown(uri)

    def export(
        self,
        out: str | Path,
        *,
        trial: int | None = None,
        onnx: bool = False,
        register: str | None = None,
    ) -> Exported:
        """Write the winner as a detector that runs by itself: model, preprocessing, classes, score,
        threshold.

        Args:
            out: the folder to write; an older export there is replaced, whole or not at all.
            trial: its number; None: the confirmed winner, else the best trial.
            onnx: write `model.onnx` as well.
            register: a name in MLflow's model registry, where it becomes the next version.

        Raises:
            UsageError: there is no such trial, its weights are gone, or `out` holds something else.
            StorageError: the folder cannot be written.
            TrackingError: MLflow lacks the trial, or cannot be reached.
        """
        from lmoe_tune.export import export

        refuse_other(out, "out", str, Path)
        refuse_other(register, "register", str, type(None))
        return export(self.ledger, Path(out), trial=trial, onnx=onnx, register=register)

    def write_report(self) -> Path:
        """Write a page with the verdict, the best parameters and all figures, and these as PNGs;
        returns the path of the page. `deliver_report` brings it to MLflow.

        Raises:
            UsageError: the data of the sweep cannot be read.
            StorageError: it cannot be written.
        """
        from lmoe_tune.report import write_report

        return write_report(self.ledger)

    def deliver_report(self, tracking_uri: str | None = None) -> bool:
        """Upload the existing report to MLflow; False if it does not have the sweep yet.

        Args:
            tracking_uri: another server than the sweep's own.

        Raises:
            TrackingError: it could not be reached.
        """
        from lmoe_tune.tracking.uploads import upload_report

        refuse_other(tracking_uri, "tracking_uri", str, type(None))
        report = self.folder.path / "report"
        if not (report / "index.html").is_file():
            return True
        server = tracking_uri or address_of(self.folder, self.spec)
        run_id = view.tracking_of(self.ledger, server).parent_run_id
        if run_id is None:
            return False

        upload_report(server, report, run_id=run_id, artifact_root=self.folder.home / "mlartifacts")
        return True

    def checkpoint(self, trial: int) -> Path | None:
        """The newest checkpoint of a trial, if it was kept, as those of the best few are."""
        refuse_other(trial, "trial", Integral)
        return view.checkpoint_of(self.folder, trial)

    def to_frame(self) -> pandas.DataFrame:
        """One row for each trial by number; a column for each parameter and for each metric of its
        last epoch.
        """
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
        """Continue it, or extend it; returns when it is complete or was stopped.

        Args:
            trials: "+8" for eight more, 24 for that many in all.
            time: of all runs together, in seconds or as "8h"; "+2h" for so much more.
            gpu_hours: of all runs together, or "+4" for so many more.
            max_failed: how many trials may fail, or "+2" for two more.
            retry_failed: try failed trials once more.
            allow_changes: continue although code or data changed; the sweep records it.
            address: of a Ray cluster to join; see `search`.
            observer: hears what happens.
            wait_for_lock: how long to wait for another process that works on it.
            stop: set it from another thread to stop cleanly.

        Raises:
            SweepLockedError: another process works on it.
            LmoeTuneError: as for `search`.
        """
        from lmoe_tune.api.running import resume

        change = change_of(trials=trials, time=time, gpu_hours=gpu_hours, max_failed=max_failed)
        settings = RunSettings(
            hearing(observer),
            allow_changes=allow_changes,
            address=address,
            wait_s=seconds(wait_for_lock, "wait_for_lock"),
            stop=stop,
        )
        return resume(self.folder, change, settings, retry_failed=retry_failed)


def open_sweep(name: str, home: str | Path | None = None) -> Sweep:
    """Open a sweep of a home to look at it, at any moment, even while a process works on it.

    Args:
        name: as `list` shows it.
        home: the folder of sweeps; None is LMOE_TUNE_HOME, else ./lmoe_runs.

    Raises:
        UsageError: there is no such sweep; the message names those there are.
        LedgerError: its records are damaged.
    """
    refuse_other(name, "name", str)
    return Sweep(find_sweep(resolve_home(home), name))


def compare(sweeps: Sequence[Sweep]) -> Comparison:
    """Put sweeps side by side: settings that differ, best and spread, cost, verdicts, one figure."""
    from lmoe_tune.report.comparison import compare

    refuse_other_items(sweeps, "sweeps", Sweep)
    if not sweeps:
        raise UsageError("compare needs at least one sweep")
    return compare([sweep.ledger for sweep in sweeps])


def list_sweeps(
    home: str | Path | None = None, *, observer: Observer | None = None
) -> list[dict[str, Any]]:
    """What `Sweep.summary` says of each sweep of a home, the one worked on last first:
    `list --format json`. Of a damaged one, and of another user's that cannot be read, only `sweep`
    and `state` are there.

    Args:
        home: the folder of sweeps; None is LMOE_TUNE_HOME, else ./lmoe_runs.
        observer: hears what is wrong with a sweep that cannot be read; the others are listed.
    """
    from lmoe_tune.sweep.remembered import Remembered

    where = resolve_home(home)
    say = hearing(observer).on_message
    remembered, rows = Remembered(where), []
    for folder in find_sweeps(where):
        try:
            row = remembered.row(folder, _row)
        except Exception as error:  # whatever the damage is
            problem = str(error) or type(error).__name__
            say(f"{folder.name}: {shortened(problem, 300)}")
            rows.append({"sweep": folder.name, "state": "damaged"})
            continue
        if folder.is_set_aside and not folder.is_running():
            row["state"] = "set aside"
        rows.append(row)
    remembered.save()

    for folder in closed_sweeps(where):
        say(f"{folder.name}: {folder.closed}")
        rows.append({"sweep": folder.name, "state": "unreadable"})
    return rows


def _row(folder: SweepFolder) -> dict[str, Any]:
    return view.summary(view.read_sweep(folder))


def serve_ui(home: Path, name: str | None, port: int | None, observer: Observer) -> int:
    """Start MLflow's own pages on a home's records, and wait until they end; returns the exit code.

    Args:
        name: of the sweep whose comparison is opened; None: the sweep worked on last.
        port: on this machine; None: 5000, or a free one.

    Raises:
        UsageError: there is no such sweep, or its records are on a server, which has its own pages.
    """
    from lmoe_tune.tracking import default_uri
    from lmoe_tune.tracking.ui import serve

    uri, page, made_by = default_uri(home), "", advice.search(home=home)
    if name is not None:
        sweep = open_sweep(name, home)
        uri = address_of(sweep.folder, sweep.spec)
        page = page_of(sweep.folder, uri, sweep.ledger.sweep_id)
        made_by = advice.sync(name, home=home)
    else:
        for folder in find_sweeps(home)[:1]:
            uri = address_of(folder, view.read_spec(folder))
            made_by = advice.sync(folder.name, home=home)

    artifacts, say = home / "mlartifacts", observer.on_message
    return serve(uri, artifacts, port, page=page, made_by=made_by, say=say)


def _synced(part: SweepFolder, uri: str, observer: Observer) -> bool:
    from lmoe_tune.sweep import projector
    from lmoe_tune.sweep.copies import refuse_copy

    with part.locked():
        ledger = Ledger.writing(part, view.read_spec(part))
        refuse_copy(ledger)
        return projector.sync(ledger, uri, observer)


def latest_sweep(home: Path, *, unfinished: bool) -> SweepFolder:
    """The sweep that was worked on last; with `unfinished`, the last of those that can continue, if
    there is one.

    A sweep that `--fresh` has set aside is not taken, nor one that ended before its first trial if
    there are others.

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
        with suppress(LmoeTuneError):  # a damaged one does not keep the others from continuing
            ledger = view.read_sweep(folder)
            if ledger.standing.counts.total():
                if not ledger.is_complete():
                    return folder
                begun.append(folder)
    return (begun or sweeps)[0]
