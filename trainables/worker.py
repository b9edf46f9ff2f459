"""The Ray Trainable: a thin shell around `run_trial`, reused for one trial after the other."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from lmoe_tune.durable import keep_others_out, read_text
from lmoe_tune.errors import (
    BaselineError,
    DeviceMemoryError,
    LmoeTuneError,
    StorageError,
    TrainingError,
    UsageError,
)
from lmoe_tune.processes import die_with_parent
from lmoe_tune.spec import Spec, spec_from_resolved
from lmoe_tune.spec.metrics import RESERVED
from trainables import handshake
from trainables.failure import MESSAGE_CHARS, message_of, printable, traceback_of
from trainables.handshake import Place
from trainables.method import Method, configured

if TYPE_CHECKING:
    from lmoe_tune.methods.objective import Objective
    from lmoe_tune.training.trial import TrialEpoch


@dataclass(frozen=True)
class Report:
    """What one `step` tells the driver: an epoch, or why there will be none."""

    trial: int
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)
    failure: str | None = None
    traceback: str | None = None
    ends_sweep: bool = False
    """The failure is not specific to this trial: every other one would fail in the same way."""
    out_of_memory: bool = False
    """The GPU's memory did not suffice: beside fewer trials it might."""
    notes: tuple[str, ...] = ()
    """The warnings since the last report."""
    place: Place | None = None
    unfit: tuple[str, ...] = ()
    """Why no trial may run where this one was to run."""
    time_ms: int = 0
    """By the clock of its machine."""

    @property
    def is_greeting(self) -> bool:
        """Whether it only says where a process works: it comes before the first epoch there."""
        return self.epoch == 0 and self.failure is None and self.place is not None


class _Notes(logging.Handler):
    """Collects warnings: nobody sees what a worker logs."""

    MOST = 20

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._texts) < self.MOST:
            self._texts.append(printable(record.getMessage(), MESSAGE_CHARS))

    def take(self) -> tuple[str, ...]:
        taken, self._texts = tuple(self._texts), []
        return taken


_notes = _Notes()  # one for the process, however many workers it has had


class TrialWorker(tune.Trainable):  # type: ignore[misc]
    """Runs the trial that its config names: `home`, `sweep` (folder), `trial`, `params`,
    `import_path`.

    An error in a trial is reported, not raised: Ray would retry it, and it would only happen again.
    What Ray does retry is a process that died; the trial then continues from its newest checkpoint.

    If the config says `ended`, the trial is over and only the driver has to hear of it: it died too
    often. What works on something else than a search overrides `start`.
    """

    def setup(self, config: dict[str, Any]) -> None:
        keep_others_out()  # even in a cluster that another user started
        die_with_parent()  # when the raylet dies, so do we, and no orphan trains on
        if threading.current_thread() is threading.main_thread():
            # Left to Ray, SIGTERM raises SystemExit here, which would look like an error of the trial's.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
        logging.getLogger("lmoe_tune").addHandler(_notes)
        self._epochs: Iterator[TrialEpoch] | None = None
        self._held_since = time.monotonic()

    _place: Place | None = None

    def step(self) -> dict[str, Any]:
        if self.config.get("ended"):
            return {"report": Report(self.config["trial"])}
        try:
            report = self._next_epoch()
        except (
            BaseException
        ) as error:  # SystemExit and KeyboardInterrupt too: both are the trial's own here
            self._epochs = None
            if _gpu_is_lost(error):
                raise  # no later trial could use it in this process: Ray starts another one
            report = Report(
                self.config["trial"],
                failure=message_of(error),
                traceback=traceback_of(error),
                ends_sweep=isinstance(error, BaselineError | UsageError | StorageError),
                out_of_memory=isinstance(error, DeviceMemoryError),
            )
        if report.failure is not None:
            _free_memory()  # only now is the error gone, and with its frames what they held
        clock_ms = time.time_ns() // 1_000_000
        return {"report": replace(report, notes=_notes.take(), time_ms=clock_ms)}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._epochs = None
        _free_memory()  # the finished trial's model
        return True

    def start(self) -> Iterator[TrialEpoch]:
        """The epochs of the trial that the config names."""
        from lmoe_tune.training.trial import run_trial

        trial = trial_folder(self.config)
        spec = read_spec(self.config)
        method, params = configured(spec, self.config["params"], import_path_of(self.config))
        return run_trial(
            spec,
            objective_of(method, params),
            params,
            home=Path(self.config["home"]),
            folder=trial / "checkpoints",
            num_recorded=num_recorded(trial),
        )

    def _next_epoch(self) -> Report:
        if self._epochs is None:
            is_new_here = "nonce" in self.config and self.config["nonce"] not in _fit
            unfit = _unfit(self.config)
            if unfit:
                return Report(self.config["trial"], place=handshake.place(), unfit=unfit)
            if "nonce" in self.config:
                self._place = handshake.place(read_spec(self.config).train.device)
            self._epochs = self.start()
            if is_new_here:  # nothing is trained before the driver has seen this
                return Report(self.config["trial"], place=self._place)
        result = next(self._epochs, None)
        if result is None:
            raise LmoeTuneError("the trial ended without an epoch's result")
        now = time.monotonic()
        reserved_s, self._held_since = now - self._held_since, now
        return Report(
            self.config["trial"],
            result.epoch,
            result.metrics | {RESERVED: reserved_s},
            result.baseline,
            place=self._place,
        )


_fit: set[str] = set()  # runs of which this process has shown that it can work for them


def _unfit(config: dict[str, Any]) -> tuple[str, ...]:
    """Why no trial may run in this process; looked into once for each run."""
    nonce = config.get("nonce")
    if nonce is None or nonce in _fit:
        return ()
    folder, home = Path(config["sweep"]), Path(config["home"])
    try:
        spec = read_spec(config)
    except OSError:
        return (f"it does not see the home {home}",)

    found = handshake.faults(nonce, folder, home, spec, import_path_of(config))
    found += handshake.device_faults(spec)
    if not found:
        _fit.add(nonce)
    return tuple(found)


def import_path_of(config: dict[str, Any]) -> Path:
    """Where the user's own modules are: those that the driver sent, else those beside the spec."""
    sent = os.environ.get(handshake.SENT_MODULES)
    if sent and os.listdir(sent):
        return Path(sent)

    return Path(config["import_path"])


def trial_folder(config: dict[str, Any]) -> Path:
    """Where the records and checkpoints of a worker's trial are."""
    return Path(config["sweep"]) / "trials" / str(config["trial"])


def read_spec(config: dict[str, Any]) -> Spec:
    """The spec of the sweep that a worker's config names; its `epoch_timeout` holds from now on."""
    from lmoe_tune.training.epoch_timeout import FROZEN_MARGIN_S, kill_when_frozen

    spec = _read_spec(Path(config["sweep"]) / "spec.yaml")
    if spec.resources.epoch_timeout is not None:
        kill_when_frozen(spec.resources.epoch_timeout + FROZEN_MARGIN_S)
    return spec


def objective_of(method: Method, params: dict[str, Any]) -> Objective:
    """The training objective for these parameters; raises TrainingError where a method gives
    something else.
    """
    from lmoe_tune.methods.objective import Objective

    objective = method.objective(params)
    if not isinstance(objective, Objective):
        raise TrainingError(
            f"{type(method).__name__}.objective gave {type(objective).__name__}, but must give an Objective"
        )
    return objective


def _gpu_is_lost(error: BaseException) -> bool:
    """Whether this process can no longer use its GPU: after some errors every later call fails,
    too.
    """
    if type(error).__name__ == "AcceleratorError":
        return True

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except Exception:
        return True  # cuBLAS and cuDNN report a lost context by errors of their own
    return False


def _free_memory() -> None:
    from lmoe_tune.training.allocator import give_back_memory

    give_back_memory()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def num_recorded(trial: Path) -> int | None:
    """Epochs in the records of the trial in this folder; None if there are none."""
    try:
        return (trial / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return None


@lru_cache(maxsize=1)
def _read_spec(path: Path) -> Spec:
    return spec_from_resolved(read_text(path))
