"""Watches a sweep once per turn of Tune's loop, and leaves the loop when nothing is left to do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.tune import Stopper
from ray.tune.experiment import Trial

from lmoe_tune.sweep.cluster import Cluster
from lmoe_tune.sweep.control import SweepControl
from lmoe_tune.sweep.nodes import slots_of
from lmoe_tune.sweep.projector import Projector
from lmoe_tune.training.baseline_record import read_baseline_record

LOOKED_EVERY_S = 1.0
WAITING_S = 30.0  # without any trial's process, until the user is told


class LeaveLoop(BaseException):
    """Out of Tune's loop: everything is in the ledger, so there is nothing for Tune to save or to
    clean up.
    """


class Watch(Stopper):  # type: ignore[misc]
    """A stopper only because Tune calls it every turn; raises LeaveLoop at the end of a run.

    Args:
        trials: Tune's own objects of the trials that were handed out, by number.
    """

    def __init__(
        self,
        control: SweepControl,
        projector: Projector,
        cluster: Cluster,
        trials: Mapping[int, Any],
    ) -> None:
        self._control = control
        self._projector = projector
        self._cluster = cluster
        self._trials = trials
        self._slots: int | None = None
        self._has_baseline = False
        self._looked = -LOOKED_EVERY_S
        self._last_run = time.monotonic()
        self._told = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        done = False
        with self._control.fatal_errors():
            self._projector.collect()
            self._follow_cluster()
            self._follow_lone_trials()
            done = self._control.time_is_up() or self._control.ledger.is_complete()
            self._tell_of_waiting()
        if not (done or self._control.stopping):
            return False
        if self._cluster.stays and self._cluster.vitals.lost is None:
            return True  # Tune then ends its actors
        raise LeaveLoop

    def _follow_cluster(self) -> None:
        """Nodes join and leave, and other sweeps come and go."""
        now = time.monotonic()
        if now - self._looked < LOOKED_EVERY_S:
            return
        self._looked = now
        control, spec = self._control, self._control.ledger.spec
        left_out = control.nodes.left_out
        large = {
            node: capacity
            for node, capacity in self._cluster.capacities().items()
            if capacity.slots(spec.resources)
        }
        control.nodes.refuse_none_left(large, control.ledger.resume_command)

        fit = [capacity for node, capacity in large.items() if node not in left_out]
        in_all = slots_of(fit, spec.resources, None)
        slots = slots_of(fit, spec.resources, spec.search.max_concurrent)
        slots = min(slots, self._cluster.share(in_all))
        is_early = slots > 1 and self._waits_for_baseline()
        if is_early:
            slots = 1
        if slots != self._slots:
            self._slots = slots
            control.observer.on_message(_slots_line(slots, is_early=is_early))
        control.slots = slots + (not is_early and self._may_grow(slots, in_all))

    def _waits_for_baseline(self) -> bool:
        """Whether a second trial could only wait for the first one's baseline.

        Another sweep of the cluster may have its place until then. Where each node decodes the
        images for itself, it does so meanwhile.
        """
        ledger = self._control.ledger
        if self._has_baseline or self._cluster.local or ledger.has_jobs:
            return False
        if ledger.spec.data.cache_dir is not None:
            return False
        key = ledger.attrs.get("baseline")
        record = read_baseline_record(ledger.folder.home, key) if key else None
        is_trained = record is not None and record["state"] == "complete"
        self._has_baseline = is_trained or ledger.standing.last_ms > 0  # no epoch without one
        return not self._has_baseline

    def _may_grow(self, slots: int, in_all: int) -> bool:
        """Whether one more trial than fits is handed out: only what waits makes an autoscaler add a
        node.
        """
        wanted = self._control.ledger.spec.search.max_concurrent
        return (
            not self._cluster.local and slots == in_all and wanted is not None and in_all < wanted
        )

    def _follow_lone_trials(self) -> None:
        """A trial that has got its own GPU, or has ended, no longer holds up others."""
        control = self._control
        if control.waits_for_gpu:
            lone = [self._trials[number] for number in control.alone if number in self._trials]
            control.waits_for_gpu = any(trial.status == Trial.PENDING for trial in lone)

    def _tell_of_waiting(self) -> None:
        """Ray waits silently if no node has room: nodes may have died, or be in use by others."""
        states = {trial.status for trial in self._trials.values()}
        if Trial.PENDING not in states or Trial.RUNNING in states:
            self._last_run = time.monotonic()
            if self._told:
                self._told = False
                self._control.observer.on_message("there is room again: the trials continue")
        elif not self._told and time.monotonic() - self._last_run > WAITING_S:
            self._told = True
            asked = self._control.ledger.spec.resources
            needed = f"cpu {asked.cpu:g} and gpu {asked.gpu:g}"
            why = f"no node of the cluster has {needed} free, or a worker is slow to start there"
            if self._cluster.local:
                why = "the machine is busy, and a worker is slow to start"
            elif not self._slots:
                why = f"no node of the cluster has {needed}"
            self._control.observer.on_message(
                f"no trial runs yet: {why}; waiting for it. Ctrl-C ends the wait, and nothing is lost"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it; nothing would ever read that


def _slots_line(slots: int, *, is_early: bool) -> str:
    if not slots:
        return "no node that a trial fits on is there yet; waiting for one"
    if is_early:
        return "1 trial until the baseline is trained, which all others start from"
    return f"{slots} trial{'s' if slots > 1 else ''} at a time"
