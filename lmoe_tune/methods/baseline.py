"""The classifier without any outlier exposure."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from lmoe_tune.data.batches import Batch
from lmoe_tune.data.streams import StepDraws
from lmoe_tune.methods.objective import Objective, StepLoss, weighted_sum


class CrossEntropy(Objective):
    """L = CE(f(x), y), the mean over the in-distribution batch."""

    outlier_ratio = 0.0

    def loss(self, model: nn.Module, batch: Batch, draws: StepDraws) -> StepLoss:
        return weighted_sum(F.cross_entropy(model(batch.images).float(), batch.labels), {})
