"""Looks after a sweep once per turn of Tune's loop, and leaves the loop when nothing is left to do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.tune import Stopper
from ray.tune.experiment import Trial

from lmoe_tune.sweep.control import SweepControl
from lmoe_tune.sweep.projector import Projector

WAITING_S = 30.0  # without any trial's process, until the user is told


class LeaveLoop(BaseException):
    """Out of Tune's loop: everything is in the ledger, so there is nothing for Tune to save or to clean up."""


class Watch(Stopper):  # type: ignore[misc]
    """A stopper only because Tune calls it every turn; raises LeaveLoop at the end of a run.

    Args:
        trials: Tune's own objects of the trials that were handed out, by number.
    """

    def __init__(
        self, control: SweepControl, projector: Projector, trials: Mapping[int, Any]
    ) -> None:
        self._control = control
        self._projector = projector
        self._trials = trials
        self._last_run = time.monotonic()
        self._told = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        done = False
        with self._control.fatal_errors():
            self._projector.collect()
            done = self._control.time_is_up() or self._control.ledger.is_complete()
            self._tell_of_waiting()
        if done or self._control.stopping:
            raise LeaveLoop
        return False

    def _tell_of_waiting(self) -> None:
        """Ray waits in silence when no node has room: nodes may have died, or others use them."""
        states = {trial.status for trial in self._trials.values()}
        if Trial.PENDING not in states or Trial.RUNNING in states:
            self._last_run = time.monotonic()
            if self._told:
                self._told = False
                self._control.observer.on_message("there is room again: the trials go on")
        elif not self._told and time.monotonic() - self._last_run > WAITING_S:
            self._told = True
            asked = self._control.ledger.spec.resources
            self._control.observer.on_message(
                f"no trial runs: no node of Ray's has cpu {asked.cpu:g} and gpu {asked.gpu:g} free for one. "
                "It is waited for; Ctrl-C ends the wait, and nothing is lost"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it; nothing would ever read that
