"""Energy-bounded fine-tuning with outliers (Energy-OE; Liu, Wang, Owens & Li, NeurIPS 2020).

B in-distribution images x with labels y over K classes, M outliers o, energy E(z) = -logsumexp(z):

    L = CE(f(x), y) + eta (mean max(0, E(f(x)) - m_in)^2 + mean max(0, m_out - E(f(o)))^2)

so that in-distribution energies fall below m_in and those of outliers rise above m_out. Meant for
the score `energy`. Published: eta 0.1, m_in -23 and m_out -5 for 10 classes, -27 and -5 for 100,
each chosen near the energies of the pretrained network; give them as parameters to have them.

The default margins are this project's, and follow the number of classes. A network that knows
nothing (all logits 0) has the energy -log K, and one that gives a class the probability p, all
other logits 0, has the energy -log((K - 1) / (1 - p)), about -log K - log(1 / (1 - p)). m_in = -log
K - 10 therefore asks for 1 - p below 4.5e-5, and m_out = -log K - 1 for 1 - p above 0.37.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from lmoe_tune.data.batches import Batch
from lmoe_tune.data.streams import StepDraws
from lmoe_tune.methods.batch_norm import BatchNormMode, forward_groups
from lmoe_tune.methods.objective import Objective, StepLoss, Terms, weighted_sum

DEPTH_IN, DEPTH_OUT = (
    10.0,
    1.0,
)  # how far the margins are below the energy of a network that knows nothing


@dataclass(frozen=True)
class EnergyOE(Objective):
    """The objective of this module's docstring; without a weight the outliers cost no forward."""

    energy_weight: float
    m_in: float | None
    """None: -10 - log K."""
    m_out: float | None
    """None: -1 - log K."""
    outlier_ratio: float
    batch_norm: BatchNormMode

    def loss(self, model: nn.Module, batch: Batch, draws: StepDraws) -> StepLoss:
        groups = [batch.images]
        if self.energy_weight > 0:
            groups.append(batch.outliers)
        z_id, *z_rest = forward_groups(model, groups, self.batch_norm)

        id_loss, terms = F.cross_entropy(z_id, batch.labels), Terms()
        for z_out in z_rest:
            terms["energy_loss"] = self.energy_weight, self.energy_loss(z_id, z_out)
        return weighted_sum(id_loss, terms)

    def energy_loss(self, z_id: Tensor, z_out: Tensor) -> Tensor:
        """The two squared hinges on the logits (B, K) and (M, K), each a mean over its own rows."""
        log_K = math.log(z_id.shape[1])
        m_in = -DEPTH_IN - log_K if self.m_in is None else self.m_in
        m_out = -DEPTH_OUT - log_K if self.m_out is None else self.m_out
        too_high = F.relu(-z_id.logsumexp(dim=1) - m_in)
        too_low = F.relu(m_out + z_out.logsumexp(dim=1))
        return too_high.square().mean() + too_low.square().mean()
