"""What happens in a sweep while it runs: Ray's hooks call this, in one thread, over the ledger."""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from lmoe_tune import advice
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.records import TrialRecord
from lmoe_tune.source_code import code_of
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.guard import LEAVE_S, ClusterLostError
from lmoe_tune.sweep.ledger import Ledger, Suggestion, system_ms
from lmoe_tune.sweep.lines import LedgerError
from lmoe_tune.sweep.nodes import Nodes
from lmoe_tune.sweep.observer import Observer
from lmoe_tune.sweep.ties import drop_placements
from lmoe_tune.sweep.trial_files import write_news, write_record
from trainables.handshake import clock_fault, leave_sign

if TYPE_CHECKING:
    from trainables.worker import Report

SIGNAL_PATIENCE_S = 2.0
ARRIVAL_PATIENCE_S = 5.0  # with a shared disk, until it shows what was written elsewhere
SEVERAL = 4  # failures before any epoch
NODE_DEATHS = 20  # a trial that brings its nodes down must not do so forever


class SweepControl:
    """Records what trials report, and decides when the sweep stops.

    Attributes:
        has_signal: whether a signal to stop has arrived, though its handler may not have run.
        heeds: what runs looks at `interrupted` several times a second.
        nonce: what a worker must find in the sweep's folder.
        handed_back: trials that came back unfinished, from a node left out or out of memory; they
            are handed out again.
        alone: trials that get a whole GPU, as its memory did not suffice beside others.
        waits_for_gpu: one of those waits for its GPU, and no other trial is handed out meanwhile.
        slots: how many trials may be handed out at a time.
        nodes: which nodes are left out, and where trials run.
        fatal: an error that ends this run; unfinished trials stay unfinished in the ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        observer: Observer,
        *,
        import_path: Path,
        stop: Event | None = None,
    ) -> None:
        self.ledger = ledger
        self.observer = observer
        self._interrupted = False
        self._stop = stop or Event()
        self.has_signal: Callable[[], bool] = lambda: False
        self.heeds = False
        self.fatal: BaseException | None = None
        self.nonce = leave_sign(ledger.folder.path, code_of(ledger.spec, import_path))
        self.handed_back: deque[int] = deque()
        self.alone: set[int] = set()
        self.waits_for_gpu = False
        self.nodes = Nodes()
        self.slots = 1
        self._failed_before_any_epoch: int | None = 0
        self.import_path = import_path
        self._said: set[str] = set()
        self._node_deaths: Counter[int] = Counter()
        self._handed_out_ms: dict[int, int] = {}
        self._keep = 0 if ledger.has_jobs else ledger.spec.tracking.best_checkpoints
        kept = ledger.folder.trials.glob("*/checkpoints")
        self._with_checkpoints = {int(path.parent.name) for path in kept}
        self._drop_lost_checkpoints()

    @property
    def interrupted(self) -> bool:
        """A stop was requested (by a signal or another thread); unfinished trials stay unfinished
        in the ledger.
        """
        return self._interrupted or self._stop.is_set() or self.has_signal()

    @interrupted.setter
    def interrupted(self, value: bool) -> None:
        self._interrupted = value

    @property
    def has_handled_signal(self) -> bool:
        """Whether the handler of a signal has run, which it does only between two steps of Python."""
        return self._interrupted

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """The block looks at `interrupted` by itself: a first signal raises nothing in it."""
        self.heeds = True
        try:
            yield
        finally:
            self.heeds = False

    @property
    def was_interrupted_first(self) -> bool:
        """Whether Ray died of the signal that asked us to stop, which reaches the whole group."""
        return self.interrupted and isinstance(self.fatal, ClusterLostError)

    @property
    def stopping(self) -> bool:
        return self.interrupted or self.fatal is not None

    @property
    def can_record(self) -> bool:
        """Whether the ledger can still be written: not once its memory is ahead of its file."""
        return not self.ledger.in_transaction and not isinstance(self.fatal, LedgerError)

    def on_cluster_lost(self, what: str) -> float:
        """Ray has died; returns how many seconds its loop may take to notice. Called from another
        thread.
        """
        give_up = time.monotonic() + SIGNAL_PATIENCE_S
        while not self.interrupted and time.monotonic() < give_up:
            time.sleep(0.1)  # the signal that ended it may be for us, too
        self.fatal = self.fatal or ClusterLostError(
            f"{what}. Nothing that was reported is lost; to continue: {self.ledger.resume_command}"
        )
        return SIGNAL_PATIENCE_S if self.interrupted else LEAVE_S

    def worker_config(self, suggestion: Suggestion) -> dict[str, Any]:
        """What a worker needs to run a trial; the rest it reads in the sweep's folder."""
        folder = self.ledger.folder
        return {
            "candidates": self.ledger.get(schema.CANDIDATES),  # a confirmation's
            "nonce": self.nonce,
            "home": str(folder.home),
            "sweep": str(folder.path),
            "import_path": str(self.import_path),
            "trial": suggestion.number,
            "params": suggestion.params,
        }

    def on_start(self, suggestion: Suggestion) -> None:
        self._handed_out_ms[suggestion.number] = system_ms()
        trial = self.ledger.trial(suggestion.number)
        if self.ledger.folder.trial(trial.number).exists():  # of an earlier run, or handed back
            write_record(self.ledger.folder, trial)
        else:
            write_news(self.ledger.folder, trial, 0)
        self.observer.on_start(trial)

    def on_report(self, report: Report) -> bool:
        """Record a worker's report; True if its trial ends."""
        if self.stopping or self.ledger.is_finished(report.trial):
            return True
        if self._leave_out(report):
            self.handed_back.append(report.trial)
            return True
        if self._goes_alone(report):
            return True
        self._keep_notes(report)
        if report.is_greeting:
            self._keep_place(report)
            self._say_other_gpu(report)
            write_record(self.ledger.folder, self.ledger.trial(report.trial))
            return False
        if report.ends_sweep:
            raise LmoeTuneError(
                f"{report.failure}. No trial can be trained, so the sweep has stopped; once that is fixed: "
                f"{self.ledger.resume_command}"
            )
        before = self.ledger.standing.running[report.trial]
        if report.failure is not None:
            self.ledger.fail(report.trial, report.failure, report.traceback)
            self._refuse_failures_only(report.failure)
            ended = True
        else:
            self._failed_before_any_epoch = None
            with self.ledger.transaction():
                self._keep_place(report)
                ended = self.ledger.record_epoch(
                    report.trial, report.epoch, report.metrics, report.baseline
                )
            self._say_other_gpu(report)
        trial = self.ledger.trial(report.trial)
        if ended:
            self._ended(trial, before)
        else:
            write_news(self.ledger.folder, trial, before, about=bool(report.notes))
            if len(trial.epochs) > before:
                self.observer.on_epoch(trial)
        return ended

    def _leave_out(self, report: Report) -> bool:
        """Whether the node of a report is unfit to run trials; the user is told once."""
        if report.place is None or report.failure is not None:
            return False
        faults = list(report.unfit)
        if report.is_greeting:
            handed_out_ms = self._handed_out_ms.get(report.trial, report.time_ms)
            clock = clock_fault(handed_out_ms, system_ms(), report.time_ms)
            faults += [clock] if clock is not None else []
        if not faults and not self._has_arrived(report):
            faults.append("its checkpoints do not arrive in the home")
        if faults and self.nodes.leave_out(report.place.node, report.place.host, faults):
            self.observer.on_message(
                f"node {report.place.host} is left out: {'; '.join(faults)}; its trials go elsewhere"
            )
        return bool(faults)

    def _goes_alone(self, report: Report) -> bool:
        """Whether a trial that ran out of memory beside others is trained once more with a GPU to
        itself.
        """
        number, share = report.trial, self.ledger.spec.resources.gpu
        if not report.out_of_memory or number in self.alone or not 0 < share < 1:
            return False
        self.alone.add(number)
        self.handed_back.append(number)
        said = (
            f"{report.failure}, or give every trial a GPU with {advice.setting('resources.gpu', 1)}. "
            "It continues with a GPU to itself"
        )
        self.ledger.note(number, (said,))
        self.observer.on_message(f"trial {number}: {said}")
        return True

    def _has_arrived(self, report: Report) -> bool:
        """Whether the driver sees the checkpoint of an epoch: without it a trial could not be
        complete.
        """
        if self.ledger.has_jobs or report.epoch == 0:
            return True
        folder = self.ledger.folder.checkpoints(report.trial)
        give_up = time.monotonic() + ARRIVAL_PATIENCE_S
        while not any(folder.glob(f"epoch-{report.epoch:04d}-*.pt")):
            if time.monotonic() > give_up:
                return False
            time.sleep(0.05)
        return True

    def _keep_place(self, report: Report) -> None:
        """Record where a trial runs."""
        place = report.place
        if place is not None:
            self.ledger.place(report.trial, host=place.host, device=place.device, gpu=place.gpu)

    def _say_other_gpu(self, report: Report) -> None:
        gpu = report.place.gpu if report.place is not None else None
        if gpu is not None and self.nodes.is_another_gpu(gpu):
            self.observer.on_message(
                f"trials run on different GPUs ({', '.join(self.nodes.gpus)}): their numbers differ in the last bits"
            )

    def _refuse_failures_only(self, failure: str) -> None:
        """Raises LmoeTuneError if several trials of a run failed before any had an epoch."""
        if self._failed_before_any_epoch is None:
            return
        self._failed_before_any_epoch += 1
        if self._failed_before_any_epoch >= SEVERAL and self.ledger.exhausted() is None:
            raise LmoeTuneError(
                f"{SEVERAL} trials failed before any had an epoch, the last one with: {failure}. The sweep has "
                f"stopped; once that is fixed: {self.ledger.resume_command}"
            )

    def _keep_notes(self, report: Report) -> None:
        if report.notes:
            self.ledger.note(report.trial, report.notes)
        for note in report.notes:
            if note not in self._said:  # each process may say it again
                self._said.add(note)
                self.observer.on_message(f"trial {report.trial}: {note}")

    def on_process_died(self, number: int, *, with_node: bool = False, how: str = "") -> bool:
        """A trial's process died; it is started again from its newest checkpoint. True if it has
        died too often.

        The ledger counts, over all runs. A process that died with its node does not count, as
        nothing says that it was the trial's fault; unless it happens NODE_DEATHS times in a run.
        """
        if self.stopping or self.ledger.is_finished(number):
            return True
        self._node_deaths[number] += with_node
        if with_node and self._node_deaths[number] <= NODE_DEATHS:
            self.observer.on_message(f"trial {number}: its node died; it continues on another one")
            return False
        retries = self.ledger.spec.resources.max_retries
        if self.ledger.count_retry(number) > retries:
            cause = f": {how}" if how else ""
            failure = (
                f"its process died {retries + 1} times (resources.max_retries is {retries}){cause}"
            )
            self.ledger.fail(number, failure)
            self._ended(self.ledger.trial(number))
            self._refuse_failures_only(failure)
            return True
        died = f"its process died{f' ({how})' if how else ''}"
        self.observer.on_message(f"trial {number}: {died}; it continues in a new one")
        return False

    def time_is_up(self) -> bool:
        """Whether the time or GPU budget is used up; if so, ends the running trials at their last
        epoch.
        """
        budget = self.ledger.budget
        if self.stopping or (budget.time_s is None and budget.gpu_hours is None):
            return False  # the usual case, in every turn of the loop
        used = self.ledger.exhausted()
        if used is None or not used.ends_trials:
            return False
        for number in sorted(self.ledger.standing.running):
            self.ledger.end_early(number, "the sweep's time is used up")
            self._ended(self.ledger.trial(number))
        return True

    @contextmanager
    def fatal_errors(self) -> Iterator[None]:
        """Ray swallows what a hook raises, or retries the trial because of it: keep the error and
        stop cleanly.
        """
        try:
            yield
        except BaseException as error:
            self.fatal = self.fatal or error

    def _ended(self, trial: TrialRecord, num_written: int | None = None) -> None:
        """Take in the end of a trial; `num_written` of its epochs are in its records, None: all."""
        if num_written is None:
            num_written = len(trial.epochs)
        write_news(self.ledger.folder, trial, num_written)
        self._drop_checkpoints(trial.number)
        self.observer.on_end(trial)

    def _drop_lost_checkpoints(self) -> None:
        """Drop those of trials that the ledger has lost: the next trials of their numbers may have other
        parameters, and would continue from them.
        """
        standing = self.ledger.standing
        known = {one for one in self._with_checkpoints if one < standing.num_trials}
        known -= standing.waiting.keys()
        for lost in self._with_checkpoints - known:
            shutil.rmtree(self.ledger.folder.checkpoints(lost), ignore_errors=True)
        self._with_checkpoints = known

    def _drop_checkpoints(self, number: int) -> None:
        """Keep the last checkpoint of the best few trials, and nothing of the other finished ones."""
        best = set(self.ledger.standing.ranking.best(self._keep))
        unfinished = self.ledger.standing.running.keys()
        for other in (self._with_checkpoints | {number}) - best - unfinished:
            shutil.rmtree(self.ledger.folder.checkpoints(other), ignore_errors=True)
            if not self.ledger.has_jobs:  # a reseeding needs those of all its jobs
                trial = self.ledger.trial(other)
                drop_placements(self.ledger.folder, trial, self.ledger.spec, self.import_path)
        self._with_checkpoints = best | unfinished
