"""A user's own method for the benches: Logit MixOE that also writes down when it made each step.

A bench copies this file beside a spec with `trainable: marked_steps:MarkedSteps`. Every training step adds a
line to `steps.log` there: seconds since the epoch, and the trial's `mixing_alpha`, which tells trials apart.
So what was trained, and when, is known from outside the ledger.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.logit_mixoe import LogitMixOE

if TYPE_CHECKING:
    from torch import nn

    from lmoe_tune.data.batches import Batch
    from lmoe_tune.data.streams import StepDraws
    from lmoe_tune.methods.objective import Objective, StepLoss

LOG = Path(__file__).with_name("steps.log")


class MarkedSteps(LogitMixOE):
    """Computes what `logit_mixoe` computes, bit for bit."""

    def objective(self, params: Mapping[str, Any]) -> Objective:
        from lmoe_tune.methods.logit_mixoe import LogitMixOE as Unmarked

        class Marked(Unmarked):
            def loss(self, model: nn.Module, batch: Batch, draws: StepDraws) -> StepLoss:
                mark(self.mixing_alpha)
                return super().loss(model, batch, draws)

        return Marked(**vars(super().objective(params)))


def mark(mixing_alpha: float) -> None:
    """Add a line, whole even when several processes do and one is killed."""
    descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, f"{time.time():.4f} {mixing_alpha!r}\n".encode())
    finally:
        os.close(descriptor)


def read_marks(folder: Path) -> list[tuple[float, str]]:
    """All steps made with the copy of this file in `folder`: time, and the trial's `mixing_alpha` as text."""
    try:
        lines = (folder / LOG.name).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [(float(when), alpha) for when, alpha in (line.split() for line in lines)]
