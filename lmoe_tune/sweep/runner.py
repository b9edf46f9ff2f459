"""One run of a sweep: Ray over the ledger, from the first suggestion to the last epoch."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import warnings
from _thread import interrupt_main
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmoe_tune.durable import ADVICE, cannot_write
from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.spec import Spec
from lmoe_tune.sweep import cluster, shipping
from lmoe_tune.sweep.cluster import Cluster
from lmoe_tune.sweep.control import SweepControl
from lmoe_tune.sweep.delivery import PATIENCE_S
from lmoe_tune.sweep.guard import guarded
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.nodes import refuse_too_large, slots_of
from lmoe_tune.sweep.projector import Projector
from lmoe_tune.sweep.readiness import machine_for, num_gpus
from lmoe_tune.sweep.settings import Leave, RunSettings
from lmoe_tune.sweep.trial_files import mend_records

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TUNES_OWN = signal.SIGUSR1  # for a checkpoint of its own; it leaves its handler behind
INTERRUPTED = 130  # the exit status of what was interrupted and can be resumed
INTERRUPTED_PATIENCE_S = 4.0  # a user who presses Ctrl-C wants out; a resume delivers the rest


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `complete` or `interrupted`, and whether MLflow has everything."""

    state: str
    delivered: bool


def run_sweep(
    ledger: Ledger,
    settings: RunSettings,
    *,
    import_path: Path,
    tracking_uri: str,
    worker: type[Any] | None = None,
) -> Outcome:
    """Work on a sweep until it is complete or is stopped.

    The caller holds the ledger. Unfinished trials of earlier runs continue first, from their
    checkpoints.

    Args:
        import_path: where the user's modules are.
        worker: the Trainable that runs a trial; None: `trainables.worker.TrialWorker`.

    Raises:
        LmoeTuneError: Ray cannot be started, nothing fits on it, or the ledger cannot be written.
        UsageError: it is started from an observer of another run.
    """
    with _turn(settings):
        return _run(ledger, settings, import_path, tracking_uri, worker)


@contextmanager
def _turn(settings: RunSettings) -> Iterator[None]:
    """Ray, Tune and the environment belong to the whole process, so searches of several threads
    take turns.
    """
    if _turns.held_by == threading.get_ident():
        raise UsageError(
            "a search cannot be started from an observer of another one: start it when that has ended"
        )
    if not _turns.lock.acquire(blocking=False):
        settings.observer.on_message(
            "another search of this process is running; this one begins when that has ended"
        )
        while not _turns.lock.acquire(timeout=0.1):
            if settings.stop is not None and settings.stop.is_set():
                raise KeyboardInterrupt
    _turns.held_by = threading.get_ident()
    try:
        yield
    finally:
        _turns.held_by = None
        _turns.lock.release()


@dataclass
class _Turns:
    """Whose turn it is, by the number of the thread."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    held_by: int | None = None

    def begin_anew(self) -> None:
        """In a child that was forked while it was somebody's turn: that goes on in the parent."""
        self.lock, self.held_by = threading.Lock(), None


_turns = _Turns()
os.register_at_fork(after_in_child=_turns.begin_anew)


def _run(
    ledger: Ledger,
    settings: RunSettings,
    import_path: Path,
    tracking_uri: str,
    worker: type[Any] | None,
) -> Outcome:
    control = SweepControl(ledger, settings.observer, import_path=import_path, stop=settings.stop)
    mend_records(ledger.folder, ledger.trials())
    run = ledger.begin_run(
        {"pid": os.getpid(), "resources": ledger.spec.resources.model_dump(mode="json")}
    )

    with _signals(control, settings.leave):
        projector = Projector(ledger, tracking_uri, settings.observer)
        try:
            _run_on_ray(control, projector, run, settings, worker)
        except KeyboardInterrupt:
            control.interrupted = True
        except LmoeTuneError:  # a signal to the whole process group ends Ray, too
            if not control.interrupted:
                raise
        finally:
            _end_run(control, run)
            try:
                if control.stopping:
                    projector.finish(INTERRUPTED_PATIENCE_S, while_it_goes_on=False)
                else:
                    projector.finish(PATIENCE_S)
            except KeyboardInterrupt:
                projector.finish(0)  # the next resume or sync delivers the rest

    if control.fatal is not None and not control.was_interrupted_first:
        raise control.fatal
    return Outcome(ledger.outcome, projector.delivered)


def _run_on_ray(
    control: SweepControl,
    projector: Projector,
    run: int,
    settings: RunSettings,
    worker: type[Any] | None,
) -> None:
    ledger, leave = control.ledger, settings.leave

    def sent() -> AbstractContextManager[dict[str, Any]]:
        return shipping.sent(ledger.spec, control.import_path)

    def interrupted() -> bool:
        if control.interrupted and leave is not None:
            control.observer.on_message(
                "interrupted: Ray finishes its start and is then shut down; a second Ctrl-C ends it at once"
            )
        return control.interrupted

    if control.interrupted:
        raise KeyboardInterrupt

    with ExitStack() as stack:
        with control.heeding():
            slots = _slots_here(ledger.spec, settings.address)
            ray = cluster.started(settings.address, sent, interrupted, num_workers=slots)
            resources = stack.enter_context(ray)
        if resources.local:
            refuse_too_large(resources.capacities().values(), ledger.spec.resources)
        resources.show_presence(f"{ledger.sweep_id}-{run}")
        with guarded(resources.vitals, control.on_cluster_lost, lambda: _give_up(control, leave)):
            projector.refuse_to_start()
            _tune(control, projector, resources, run, worker)
        if _end_run(control, run):
            projector.finish_soon()  # while Ray shuts down


def _slots_here(spec: Spec, address: str | None) -> int | None:
    """How many trials this machine runs at a time; None: only Ray finds out, on a cluster or where GPUs
    have no device of NVIDIA's.
    """
    resources = spec.resources
    if not cluster.is_local(address) or (resources.gpu and not num_gpus()):
        return None
    return slots_of([machine_for(resources)], resources, spec.search.max_concurrent)


def _end_run(control: SweepControl, run: int) -> bool:
    """Record that the run has ended, once; False if that was recorded, or cannot be."""
    if not (control.can_record and control.ledger.run_is_open()):
        return False
    control.ledger.end_run(run, control.ledger.outcome)
    return True


def _give_up(control: SweepControl, leave: Leave | None) -> None:
    """Ray is dead and the event loop waits for it. Ending the process now loses nothing."""
    if leave is None:
        interrupt_main()  # the best that can be done from this thread: the loop may notice
        return
    if control.was_interrupted_first:
        leave(INTERRUPTED, _last_words(control))
    leave(1, f"error: {control.fatal}")


def _tune(
    control: SweepControl,
    projector: Projector,
    resources: Cluster,
    run: int,
    worker: type[Any] | None,
) -> None:
    from ray import tune

    from lmoe_tune.sweep.scheduler import LedgerScheduler
    from lmoe_tune.sweep.searcher import LedgerSearcher
    from lmoe_tune.sweep.watch import LeaveLoop, Watch
    from trainables.worker import TrialWorker

    scratch = control.ledger.folder.path / ".ray"
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed run left; we hold the lock
    scheduler = LedgerScheduler(control)
    # Of two sweeps on a cluster that call it alike, one may get the other's code.
    name = f"lmoe-tune-{control.ledger.sweep_id}-{run}"
    tune.register_trainable(name, worker or TrialWorker)
    tuner = tune.Tuner(
        name,
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearcher(control),
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial_{trial.config['trial']}",
            trial_dirname_creator=lambda trial: str(trial.config["trial"]),
        ),
        run_config=tune.RunConfig(
            name=f"run-{run}-{os.getpid()}",
            storage_path=str(scratch),
            verbose=0,
            progress_reporter=tune.CLIReporter(),  # else a notebook gets an empty cell of Ray's
            stop=Watch(control, projector, resources, scheduler.trials),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_at_end=False
            ),  # the workers write their own
            failure_config=tune.FailureConfig(max_failures=-1),  # the ledger counts, over all runs
        ),
    )
    try:
        with control.heeding(), cluster.private_environment(), _quiet():
            tuner.fit()
    except LeaveLoop:
        pass
    except Exception as error:
        if control.fatal is None and isinstance(error, OSError) and error.errno in ADVICE:
            raise cannot_write(scratch, error) from error
        if control.fatal is None:
            raise LmoeTuneError(f"Ray stopped the sweep: {error}. Resume it to continue") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """What Tune warns of we say ourselves, or it does not concern the user."""
    logger = logging.getLogger("ray.tune")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _last_words(control: SweepControl) -> str:
    return f"interrupted; to resume: {control.ledger.resume_command}"


@contextmanager
def _noticed(numbers: Iterable[int]) -> Iterator[Callable[[], bool]]:
    """Whether one of these signals has arrived, at once and for any thread: where the main thread
    waits in a dead Ray's C++ code, its handler runs minutes later.
    """
    ours, arrived, ended = bytes(numbers), set[int](), threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def has_arrived() -> bool:
        if not ended.is_set():
            with suppress(BlockingIOError):  # nothing new
                arrived.update(os.read(reader, 4096))
        return any(number in arrived for number in ours)

    try:
        yield has_arrived
    finally:
        has_arrived()
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


@contextmanager
def _signals(control: SweepControl, leave: Leave | None) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP stops cleanly; a second one leaves at once, which loses
    nothing.

    Only the main thread can handle signals, and signals that the user ignores (`nohup`) stay
    ignored. Afterwards the old handlers are back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        again, control.interrupted = control.has_handled_signal, True
        if again and leave is not None:
            cluster.kill_started()
            leave(INTERRUPTED, last_words)
        elif again or not (control.heeds or control.ledger.in_transaction):
            raise KeyboardInterrupt

    last_words = _last_words(control)
    before = {number: signal.getsignal(number) for number in (*STOPPING, TUNES_OWN)}
    taken = [number for number in STOPPING if before[number] != signal.SIG_IGN]
    for number in taken:
        signal.signal(number, handle)
    try:
        with _noticed(taken) as control.has_signal:
            yield
    finally:
        for number in (*taken, TUNES_OWN):
            signal.signal(number, before[number] or signal.SIG_DFL)
