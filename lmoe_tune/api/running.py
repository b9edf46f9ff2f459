"""What a run is: a sweep is started or resumed, worked on, and released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from lmoe_tune import advice
from lmoe_tune.api.loading import load_spec
from lmoe_tune.api.sweeps import Sweep
from lmoe_tune.arguments import refuse_other
from lmoe_tune.data import load_search_data
from lmoe_tune.data.rows import decode_ahead
from lmoe_tune.errors import StorageError, UsageError
from lmoe_tune.home import resolve_home
from lmoe_tune.spec import LoadedSpec, Spec
from lmoe_tune.spec.record import problems_of
from lmoe_tune.sweep import projector, view
from lmoe_tune.sweep.budget import (
    Budget,
    BudgetChange,
    change_of,
    refuse_useless,
    seconds,
    why_complete,
)
from lmoe_tune.sweep.cluster import is_local, refuse_unusable
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import first_attrs, prepare, settle, write_records
from lmoe_tune.sweep.observer import Observer, hearing
from lmoe_tune.sweep.readiness import refuse_unready
from lmoe_tune.sweep.rebuild import behind, write_about
from lmoe_tune.sweep.runner import run_sweep
from lmoe_tune.sweep.settings import Leave, RunSettings
from lmoe_tune.sweep.tracked import address as address_of
from lmoe_tune.sweep.warm_start import Source, in_words
from lmoe_tune.wording import masked


def search(
    spec: LoadedSpec | str | Path,
    *,
    home: str | Path | None = None,
    name: str | None = None,
    overrides: Sequence[str] = (),
    trials: str | int | None = None,
    time: str | float | None = None,
    gpu_hours: float | None = None,
    fresh: bool = False,
    allow_changes: bool = False,
    address: str | None = None,
    tracking_uri: str | None = None,
    observer: Observer | None = None,
    wait_for_lock: str | float | None = None,
    stop: Event | None = None,
    leave: Leave | None = None,
) -> Sweep:
    """Start a sweep, or resume the unfinished one of that name; returns when it is complete or was
    stopped.

    A Ray that this process has started already is used, and left running; otherwise one is started
    for the length of the call. In the main thread, SIGINT, SIGTERM and SIGHUP stop the sweep
    cleanly, and afterwards mean what they meant before; from another thread, set `stop`. A stopped
    sweep can continue: `Sweep.resume`.

    Args:
        spec: what `load_spec` gave, or what it takes.
        home: where sweeps are kept; None is LMOE_TUNE_HOME, else ./lmoe_runs.
        name: the sweep's name; the spec's by default.
        overrides: `a.b=v` each; for a spec that is not loaded yet.
        trials: how many in all, instead of the budget's; "+8" for eight more.
        time: wall time of all runs together, in seconds or as "8h".
        gpu_hours: of all runs together.
        fresh: start again from nothing; the old sweep is set aside.
        allow_changes: continue although spec, code or data changed; the sweep records it.
        address: of a Ray cluster to join; None is RAY_ADDRESS, else this machine.
        tracking_uri: the MLflow server, instead of the spec's; without a password in it.
        observer: hears what happens.
        wait_for_lock: how long to wait for another process that works on the sweep, in seconds or
            as "10m".
        stop: set it from another thread to stop cleanly.
        leave: ends the process with a status and a sentence, if a second signal or a dead Ray leaves no better
            way. None: the process is never ended, and a dead Ray may hold this call for a while.

    Raises:
        SpecError: the spec has problems; all of them are in it.
        UsageError: the sweep has another spec, code or data; or an argument is not as it must be.
        SweepLockedError: another process works on it.
        LmoeTuneError: Ray cannot be started, or no trial can be trained.
        KeyboardInterrupt: it was interrupted before there was a sweep to resume.
    """
    for value, called in ((name, "name"), (address, "address"), (tracking_uri, "tracking_uri")):
        refuse_other(value, called, str, type(None))
    change = change_of(trials=trials, time=time, gpu_hours=gpu_hours)
    settings = RunSettings(
        hearing(observer),
        allow_changes=allow_changes,
        address=address,
        wait_s=seconds(wait_for_lock, "wait_for_lock"),
        stop=stop,
        leave=leave,
    )
    if isinstance(spec, LoadedSpec) and overrides:
        raise UsageError("overrides go with a spec that is not loaded yet: give them to load_spec")
    if tracking_uri is not None and masked(tracking_uri) != tracking_uri:
        raise UsageError(
            "tracking_uri must not hold a password, as it is kept with the sweep: "
            "put it into MLFLOW_TRACKING_URI"
        )
    if not isinstance(spec, LoadedSpec):
        spec = load_spec(spec, overrides, name=name, bounded=change != BudgetChange())
    changed = spec.spec
    if name is not None:
        changed = changed.model_copy(update={"name": name})
    if tracking_uri is not None:
        tracking = changed.tracking.model_copy(update={"uri": tracking_uri})
        changed = changed.model_copy(update={"tracking": tracking})
    problems = problems_of(changed)
    if problems:  # name, or tracking.uri
        raise UsageError(f"{problems[0].key.replace('.', '_')}: {problems[0].what}")

    loaded = LoadedSpec(changed, spec.path)
    return start(loaded, resolve_home(home), change, settings, fresh=fresh)


def start(
    loaded: LoadedSpec, home: Path, change: BudgetChange, settings: RunSettings, *, fresh: bool
) -> Sweep:
    """`search`, after all its arguments were read and checked."""
    refuse_unusable(settings.address)
    folder = SweepFolder(home, loaded.spec.name)
    ready = prepare(
        folder,
        loaded,
        fresh=fresh,
        allow_changes=settings.allow_changes,
        say=settings.observer.on_work,
        warn=settings.observer.on_message,
    )
    if not folder.exists() and is_local(settings.address):
        refuse_unready(ready.spec, home)
    for line in in_words(ready.sources):
        settings.observer.on_message(line)
    run = _Run(
        folder, ready.spec, change, settings, loaded.folder, ready.sources, changed=ready.changes
    )
    return run.to_the_end()


def resume(
    folder: SweepFolder,
    change: BudgetChange,
    settings: RunSettings,
    *,
    retry_failed: bool = False,
) -> Sweep:
    """Continue a sweep, or extend it; see `Sweep.resume` and `search`."""
    refuse_unusable(settings.address)
    if not folder.is_begun():
        raise UsageError(
            f"the sweep '{folder.name}' was interrupted before it had begun: start it again with "
            "its spec"
        )
    run = _Run(folder, view.read_spec(folder), change, settings, retry_failed=retry_failed)
    return run.to_the_end()


@dataclass
class _Run:
    """One run of a sweep, from taking its lock to releasing it."""

    folder: SweepFolder
    spec: Spec
    change: BudgetChange
    settings: RunSettings
    import_path: Path | None = None
    """Where the user's modules are; None: the folder that the sweep was started from."""
    sources: Sequence[Source] = ()
    """The points that a new sweep takes from others."""
    changed: Sequence[str] = ()
    retry_failed: bool = False

    def to_the_end(self) -> Sweep:
        """Work until the sweep is complete or is stopped."""
        uri = address_of(self.folder, self.spec)
        is_new = not self.folder.exists()
        if is_new:
            self._refuse_closed_store(uri)  # before anything is made
        try:
            with self.folder.locked(self.settings.wait_s):
                self._work(uri, has_asked=is_new)
        except KeyboardInterrupt:
            if not self.folder.exists():
                raise
        except StorageError as error:
            if not self.folder.exists():
                raise
            again = advice.resume(self.folder.name, home=self.folder.home)
            raise StorageError(f"{error}; to continue then: {again}") from error
        return Sweep(self.folder)

    def _work(self, uri: str, *, has_asked: bool) -> None:
        folder, observer = self.folder, self.settings.observer
        say = observer.on_message
        ledger, import_path = self._take_up()
        if ledger.is_complete():
            used = ledger.exhausted()
            assert used is not None, "complete, and nothing is used up"
            say(why_complete(used, folder.name, folder.home))
            if not view.is_delivered(ledger) and not projector.deliver_rest(ledger, uri, observer):
                self._say_undelivered()
            return

        if not has_asked:
            self._refuse_closed_store(uri)
        started = ledger.standing.num_started
        if ledger.budget.trials:
            planned = f" of {ledger.budget.trials}"
        else:
            planned = ""
        verb = "resuming" if started else "starting"
        say(
            f"{verb} the sweep '{folder.name}' in {folder.path} ({started}{planned} trials started)"
        )
        if self.settings.address is None or self.spec.data.cache_dir is None:
            files = load_search_data(self.spec.data, folder.home).files()
            decode_ahead(files, self.spec.data, folder.home, work=observer.on_work, say=say)
        # else each node of the cluster decodes for itself

        observer.on_begin(ledger)
        outcome = run_sweep(ledger, self.settings, import_path=import_path, tracking_uri=uri)
        if not outcome.delivered:
            self._say_undelivered()

    def _take_up(self) -> tuple[Ledger, Path]:
        """The ledger, settled with what this run works with, and where the user's modules are."""
        folder, spec, given = self.folder, self.spec, self.import_path
        change = self.change
        if not folder.exists():
            write_records(folder, spec)
            change = BudgetChange()  # the first transaction has it
        if given:
            first = first_attrs(spec, self.change, given, folder.home, self.sources)
        else:
            first = None
        ledger = Ledger.writing(folder, spec, first)
        if not given and not (self.retry_failed and ledger.standing.failed):
            refuse_useless(
                self.change,
                ledger.budget,
                ledger.usage(),
                ledger.num_points,
                folder.name,
                folder.home,
            )
        import_path = given or Path(ledger.attrs.get("import_path", folder.home))
        settle(
            ledger,
            change,
            spec_budget=Budget.of(spec) if given else None,
            import_path=import_path,
            spec_changes=self.changed,
            allow_changes=self.settings.allow_changes,
        )
        ledger.set_attr("import_path", str(import_path))
        write_records(folder, spec)
        write_about(ledger)

        say = self.settings.observer.on_message
        if (lacking := behind(ledger)) is not None:
            say(f"{lacking}; those epochs are trained again")
        if self.retry_failed:
            more = ledger.retry_failed()
            say(f"{more} failed trial{'s' if more != 1 else ''} to be tried once more")
        return ledger, import_path

    def _refuse_closed_store(self, uri: str) -> None:
        """Start nothing whose results MLflow would refuse; if it is only unreachable, it gets them
        later.
        """
        from lmoe_tune.tracking import refuse_closed

        caution = refuse_closed(uri, self.spec.tracking.experiment or self.spec.name)
        if caution is not None:
            self.settings.observer.on_message(caution)

    def _say_undelivered(self) -> None:
        name, home = self.folder.name, self.folder.home
        self.settings.observer.on_message(
            "MLflow does not have everything yet; the next run delivers it, "
            f"or: {advice.sync(name, home=home)}"
        )
