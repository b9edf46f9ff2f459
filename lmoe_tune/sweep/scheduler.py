"""Ray's scheduler over the ledger: records an epoch, the pruner's decision and the trial's end in
one transaction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.exceptions import OutOfMemoryError
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from lmoe_tune.sweep.control import SweepControl


class LedgerScheduler(FIFOScheduler):  # type: ignore[misc]
    """Records every result and stops a trial that failed, was pruned or reached its last epoch.

    Attributes:
        trials: Tune's own objects of the trials that were handed out.
    """

    def __init__(self, control: SweepControl) -> None:
        super().__init__()
        self._control = control
        self.trials: dict[int, Any] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.trials[trial.config["trial"]] = trial
        self._place(trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        with self._control.fatal_errors():
            ended = self._control.on_report(result["report"])
            return str(TrialScheduler.STOP if ended else TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        if trial.status == Trial.PENDING:
            return  # the same death once more (see `LedgerSearcher.on_trial_complete`)
        with self._control.fatal_errors():
            number, how = trial.config["trial"], _how_it_died(trial)
            if self._control.on_process_died(number, with_node=_node_died(trial), how=how):
                # Tune starts it again nevertheless, on whose word no end of this is to depend.
                trial.config["ended"] = True
                trial.max_failures = 0

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self.trials.pop(trial.config["trial"], None)

    def _place(self, trial: Any) -> None:
        """What a trial needs, on a node that is not left out."""
        asked = self._control.ledger.spec.resources
        bundle = {"CPU": asked.cpu}
        if trial.config["trial"] in self._control.alone:
            bundle["GPU"] = 1.0
        elif asked.gpu:
            bundle["GPU"] = asked.gpu
        left_out = ",".join(sorted(self._control.nodes.left_out))
        if left_out:
            elsewhere = [{"ray.io/node-id": f"!in({left_out})"}]
            placed = PlacementGroupFactory([bundle], bundle_label_selector=elsewhere)
        else:
            placed = PlacementGroupFactory([bundle])
        trial.update_resources(placed)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _node_died(trial: Any) -> bool:
    """Whether it was the node that took the trial's process with it."""
    try:
        said = (
            Path(trial.error_file)
            .read_text(errors="replace", encoding="utf-8")
            .rpartition("Failure # ")[2]
        )
    except OSError:
        return False
    return (
        "its node has died" in said or "is unavailable: " in said
    )  # in the latter case Ray heard nothing from it any more


def _how_it_died(trial: Any) -> str:
    """What Ray knows of a process that has died: it names no signal."""
    if isinstance(trial.get_pickled_error(), OutOfMemoryError):
        return "Ray ended it because its machine was running out of memory"
    return "it was killed, perhaps because its machine ran out of memory, or it crashed"
