"""One run of a sweep: Ray over the ledger, from the first suggestion to the last epoch."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lmoe_tune.durable import ADVICE, cannot_write
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.sweep import cluster
from lmoe_tune.sweep.control import Observer, SweepControl
from lmoe_tune.sweep.guard import guarded
from lmoe_tune.sweep.ledger import Ledger, now_ms
from lmoe_tune.sweep.projector import PATIENCE_S, Projector
from lmoe_tune.sweep.trial_files import mend_records

INTERRUPTED_PATIENCE_S = 4.0  # whoever presses Ctrl-C wants out; a resume delivers the rest


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `complete` or `interrupted`, and whether MLflow has everything."""

    state: str
    delivered: bool


def run_sweep(
    ledger: Ledger, observer: Observer, *, import_path: Path, address: str | None, tracking_uri: str
) -> Outcome:
    """Work on a sweep until it is complete or somebody stops it.

    The caller holds the ledger. Unfinished trials of former runs go on first, from their checkpoints.

    Raises:
        LmoeTuneError: Ray cannot be started, nothing fits on it, or the ledger cannot be written.
    """
    budget = ledger.budget
    deadline_ms = None
    if budget.time_s is not None:
        deadline_ms = now_ms() + round(1000 * (budget.time_s - ledger.wall_s()))
    control = SweepControl(ledger, observer, import_path=import_path, deadline_ms=deadline_ms)
    mend_records(ledger.folder, ledger.trials())
    run = ledger.begin_run(
        {"pid": os.getpid(), "resources": ledger.spec.resources.model_dump(mode="json")}
    )
    with _signals(control) as install:
        projector = Projector(ledger, tracking_uri, observer.on_message)
        try:
            with cluster.started(address) as resources:
                install()  # Ray put its own in their place
                slots = resources.slots(ledger.spec.resources, ledger.spec.search.max_concurrent)
                observer.on_message(f"{slots} trial{'s' if slots > 1 else ''} at a time")
                with guarded(resources.vitals, control.on_cluster_lost, lambda: _give_up(control)):
                    _tune(control, projector, slots, run)
                if control.can_record and ledger.run_is_open():
                    ledger.end_run(run, _state(ledger))
                    projector.finish_soon()  # while Ray shuts down
        except KeyboardInterrupt:
            control.interrupted = True
        except SystemExit as exit_:  # while Ray starts, its own handler takes SIGTERM
            if exit_.code != signal.SIGTERM:
                raise
            control.interrupted = True
        finally:
            if control.can_record and ledger.run_is_open():
                ledger.end_run(run, _state(ledger))
            try:
                projector.finish(INTERRUPTED_PATIENCE_S if control.stopping else PATIENCE_S)
            except KeyboardInterrupt:
                projector.finish(0)  # whoever resumes or syncs delivers the rest
    if control.fatal is not None:
        raise control.fatal
    return Outcome(_state(ledger), projector.delivered)


def _give_up(control: SweepControl) -> None:
    """Ray is dead and the event loop waits for it: end the process as it stands, which loses nothing."""
    sys.stderr.write(f"error: {control.fatal}\n")
    sys.stderr.flush()
    os._exit(1)


def _state(ledger: Ledger) -> str:
    return "complete" if ledger.is_complete() else "interrupted"


def _tune(control: SweepControl, projector: Projector, slots: int, run: int) -> None:
    from ray import tune

    from lmoe_tune.sweep.scheduler import LedgerScheduler
    from lmoe_tune.sweep.searcher import LedgerSearcher
    from lmoe_tune.sweep.watch import LeaveLoop, Watch
    from trainables.worker import TrialWorker

    cluster.keep_environment_private()
    resources = control.ledger.spec.resources
    scratch = control.ledger.folder.path / ".ray"
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed run left; we hold the lock
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scheduler = LedgerScheduler(control)
    tuner = tune.Tuner(
        tune.with_resources(TrialWorker, {"cpu": resources.cpu, "gpu": resources.gpu}),
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearcher(control),
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=slots,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial_{trial.config['trial']}",
            trial_dirname_creator=lambda trial: str(trial.config["trial"]),
        ),
        run_config=tune.RunConfig(
            name=f"run-{run}-{os.getpid()}",
            storage_path=str(scratch),
            verbose=0,
            stop=Watch(control, projector, scheduler.trials),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_at_end=False
            ),  # the workers write their own
            failure_config=tune.FailureConfig(max_failures=-1),  # the ledger counts, over all runs
        ),
    )
    try:
        control.in_loop = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuner.fit()
    except LeaveLoop:
        pass
    except Exception as error:
        if control.fatal is None and isinstance(error, OSError) and error.errno in ADVICE:
            raise cannot_write(scratch, error) from error
        if control.fatal is None:
            raise LmoeTuneError(f"Ray stopped the sweep: {error}. Resume it to go on") from error
    finally:
        control.in_loop = False
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _signals(control: SweepControl) -> Iterator[Callable[[], None]]:
    """The first SIGINT or SIGTERM stops cleanly; a second one ends the process at once, which loses nothing.

    Yields what installs the handlers once more.
    """

    def handle(number: int, frame: object) -> None:
        if control.interrupted:
            os._exit(130)
        control.interrupted = True
        if not (control.in_loop or control.ledger.in_transaction):
            raise KeyboardInterrupt

    def install() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handle)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    install()
    try:
        yield install
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
