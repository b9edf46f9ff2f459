"""What the training loop asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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


LossOfStep = Callable[[nn.Module, Batch, np.random.Generator, Mapping[str, Any]], tuple[Tensor, Mapping[str, Tensor]]]


@dataclass(frozen=True)
class LossFunction(Objective):
    """An objective made of a function that gives the loss and its terms by name."""

    function: LossOfStep
    params: Mapping[str, Any]
    outlier_ratio: float

    def loss(self, model: nn.Module, batch: Batch, rng: np.random.Generator) -> StepLoss:
        total, terms = self.function(model, batch, rng, self.params)
        return StepLoss(total, {name: value.detach().float() for name, value in terms.items()})


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """CE(logits, u) with u = 1/K for every class, the mean over the rows of (M, K) (Hendrycks et al., 2019)."""
    return -logits.log_softmax(dim=1).mean()
