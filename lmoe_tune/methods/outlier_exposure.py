"""Outlier Exposure (OE; Hendrycks, Mazeika & Dietterich, ICLR 2019).

B in-distribution images x with labels y over K classes, M outliers o, u = 1/K for every class:

    L = CE(f(x), y) + delta CE(f(o), u)

Each term is a mean over its own rows. Published: delta 0.5 and twice as many outliers as images, in
one forward; MixOE's fine-grained comparison has delta 1 and as many outliers as images, which are
the defaults here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from lmoe_tune.data.batches import Batch
from lmoe_tune.data.streams import StepDraws
from lmoe_tune.methods.batch_norm import BatchNormMode, forward_groups
from lmoe_tune.methods.objective import (
    Objective,
    StepLoss,
    Terms,
    uniform_cross_entropy,
    weighted_sum,
)


@dataclass(frozen=True)
class OutlierExposure(Objective):
    """The objective of this module's docstring; without a weight the outliers cost no forward."""

    outlier_weight: float
    outlier_ratio: float
    batch_norm: BatchNormMode

    def loss(self, model: nn.Module, batch: Batch, draws: StepDraws) -> StepLoss:
        groups = [batch.images]
        if self.outlier_weight > 0:
            groups.append(batch.outliers)
        z_id, *z_rest = forward_groups(model, groups, self.batch_norm)

        id_loss, terms = F.cross_entropy(z_id, batch.labels), Terms()
        for z_out in z_rest:
            terms["outlier_loss"] = self.outlier_weight, uniform_cross_entropy(z_out)
        return weighted_sum(id_loss, terms)
