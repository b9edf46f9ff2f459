"""Ray's scheduler over the ledger: an epoch, the pruner's decision and the trial's end in one transaction."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from lmoe_tune.sweep.control import SweepControl


class LedgerScheduler(FIFOScheduler):  # type: ignore[misc]
    """Records every result and stops a trial that failed, was pruned or reached its last epoch."""

    def __init__(self, control: SweepControl) -> None:
        super().__init__()
        self._control = control

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        with self._control.fatal_errors():
            ended = self._control.on_report(result["report"])
            return str(TrialScheduler.STOP if ended else TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        if trial.status == Trial.PENDING:
            return  # the same death once more (see `LedgerSearcher.on_trial_complete`)
        with self._control.fatal_errors():
            self._control.on_process_died(trial.config["trial"])

    def __getstate__(self) -> dict[str, Any]:
        return {}
