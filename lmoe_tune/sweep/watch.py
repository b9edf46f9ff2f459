"""Looks after a sweep once per turn of Tune's loop, and leaves the loop when nothing is left to do."""

from __future__ import annotations

from typing import Any

from ray.tune import Stopper

from lmoe_tune.sweep.control import SweepControl
from lmoe_tune.sweep.projector import Projector


class LeaveLoop(BaseException):
    """Out of Tune's loop: everything is in the ledger, so there is nothing for Tune to save or to clean up."""


class Watch(Stopper):  # type: ignore[misc]
    """A stopper only because Tune calls it every turn; raises LeaveLoop at the end of a run."""

    def __init__(self, control: SweepControl, projector: Projector) -> None:
        self._control = control
        self._projector = projector

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        done = False
        with self._control.fatal_errors():
            self._projector.collect()
            done = self._control.time_is_up() or self._control.ledger.is_complete()
        if done or self._control.stopping:
            raise LeaveLoop
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it; nothing would ever read that
