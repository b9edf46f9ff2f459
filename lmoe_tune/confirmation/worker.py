"""What runs a confirmation's jobs on Ray; a module of its own, as it is loaded before a node is
known to be fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainables.worker import TrialWorker

if TYPE_CHECKING:
    from lmoe_tune.training.trial import TrialEpoch


class JobWorker(TrialWorker):
    """Runs the job that its config names: that of a trial, with the study's `candidates`."""

    def start(self) -> Iterator[TrialEpoch]:
        from lmoe_tune.confirmation.job import run_job

        return run_job(self.config)
