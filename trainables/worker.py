"""The Ray Trainable: a thin shell around `run_trial`, reused for one trial after the other."""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from lmoe_tune.errors import BaselineError, LmoeTuneError, UsageError
from lmoe_tune.spec import Spec, spec_from_resolved
from trainables.method import configured

if TYPE_CHECKING:
    from lmoe_tune.training.trial import TrialEpoch

PR_SET_PDEATHSIG = 1  # linux/prctl.h


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
    """The failure is none of this trial's: every other one would fail in the same way."""


class TrialWorker(tune.Trainable):  # type: ignore[misc]
    """Runs the trial that its config names: `home`, `sweep` (folder), `trial`, `params`, `import_path`.

    An error in a trial is reported, not raised: Ray would retry it, and it would only happen again. What
    Ray does retry is a process that died; the trial then continues from its newest checkpoint.
    """

    def setup(self, config: dict[str, Any]) -> None:
        if sys.platform == "linux":  # when the raylet dies, so do we, and no orphan trains on
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        self._epochs: Iterator[TrialEpoch] | None = None

    def step(self) -> dict[str, Any]:
        try:
            return {"report": self._next_epoch()}
        except Exception as error:
            self._epochs = None
            if type(error).__name__ == "AcceleratorError":
                raise  # the CUDA context is lost, and with it this process: Ray starts another
            report = Report(
                self.config["trial"],
                failure=str(error) if isinstance(error, LmoeTuneError) else f"{type(error).__name__}: {error}",
                traceback=traceback.format_exc(),
                ends_sweep=isinstance(error, BaselineError | UsageError),
            )
            return {"report": report}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._epochs = None
        gc.collect()  # the finished trial's model
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return True

    def _next_epoch(self) -> Report:
        if self._epochs is None:
            self._epochs = start_trial(self.config)
        result = next(self._epochs, None)
        if result is None:
            raise LmoeTuneError("the trial ended without an epoch's result")
        return Report(self.config["trial"], result.epoch, result.metrics, result.baseline)


def start_trial(config: dict[str, Any]) -> Iterator[TrialEpoch]:
    """The epochs of the trial that a worker's config names."""
    from lmoe_tune.training.trial import run_trial

    sweep = Path(config["sweep"])
    spec = _read_spec(sweep / "spec.yaml")
    method, params = configured(spec, config["params"], Path(config["import_path"]))
    return run_trial(
        spec,
        method.objective(params),
        params,
        home=Path(config["home"]),
        folder=sweep / "trials" / str(config["trial"]) / "checkpoints",
    )


@lru_cache(maxsize=1)
def _read_spec(path: Path) -> Spec:
    return spec_from_resolved(path.read_text())
