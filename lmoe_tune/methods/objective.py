"""What the training loop asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from lmoe_tune.data.batches import Batch


@dataclass(frozen=True)
class StepLoss:
    """`total` is what is differentiated; `logged` are detached scalars by metric name, `train_` left off."""

    total: Tensor
    logged: dict[str, Tensor]


class Objective(ABC):
    """A training objective.

    Attributes:
        outlier_ratio: outliers drawn per in-distribution image; 0 where the method needs none.
    """

    outlier_ratio: float = 0.0

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> StepLoss:
        """The loss of one step; all randomness comes from `rng`, whose state is in the checkpoint."""
