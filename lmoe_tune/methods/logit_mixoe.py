"""Logit Mixture Outlier Exposure (Logit MixOE, arXiv 2509.11892).

B in-distribution images x with labels y over K classes, M outliers o, pairs (i, j), u = 1/K for
every class:

    z_id  = f(x)
    z_out = f(o)
    z_mix = lam z_id[i] + (1 - lam) z_out[j]
    z_in  = f(lam x[i] + (1 - lam) o[j])

    L = CE(z_id, y)
        + beta SoftCE(z_mix, lam onehot(y[i]) + (1 - lam) u)
        + gamma D(z_in, z_mix)
        [+ delta CE(z_out, u)]

with lam ~ Beta(alpha, alpha). Each term is a mean over its own rows. Only the paper's abstract is
public to us: the form of D, the default weights, the BatchNorm modes and the side that the gradient
passes are choices of this project; we do not claim to reproduce the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmoe_tune.data.batches import Batch
from lmoe_tune.data.streams import Per, StepDraws
from lmoe_tune.methods.batch_norm import BatchNormMode, forward_groups
from lmoe_tune.methods.mixing import mixup, softened_target
from lmoe_tune.methods.objective import (
    Objective,
    StepLoss,
    Terms,
    uniform_cross_entropy,
    weighted_sum,
)

ConsistencyName = Literal["mse", "mse_log_softmax", "kl", "js"]


@dataclass(frozen=True)
class LogitMixOE(Objective):
    """The objective of this module's docstring; a term whose weight is 0 costs no forward."""

    mixing_alpha: float
    mix_weight: float
    consistency_weight: float
    outlier_weight: float
    outlier_ratio: float
    consistency: ConsistencyName
    center_logits: bool
    stop_gradient: Literal["none", "mixed_logits", "mixed_input"]
    per: Per
    batch_norm: BatchNormMode

    def loss(self, model: nn.Module, batch: Batch, draws: StepDraws) -> StepLoss:
        lam = draws.beta(self.mixing_alpha, per=self.per)
        groups = [batch.images]
        if max(self.mix_weight, self.consistency_weight, self.outlier_weight) > 0:
            groups.append(batch.outliers)
        if self.consistency_weight > 0:
            groups.append(mixup(batch.images[batch.pairs], batch.outliers, lam))
        z_id, *z_rest = forward_groups(model, groups, self.batch_norm)

        id_loss, terms = F.cross_entropy(z_id, batch.labels), Terms()
        if not z_rest:
            return weighted_sum(id_loss, terms)

        z_out = z_rest[0]
        z_mix = lam[:, None] * z_id[batch.pairs] + (1 - lam[:, None]) * z_out
        labels = batch.labels[batch.pairs]
        if self.mix_weight > 0:
            mix_loss = F.cross_entropy(z_mix, softened_target(labels, lam, z_mix.shape[1]))
            terms["mix_loss"] = self.mix_weight, mix_loss
        if self.consistency_weight > 0:
            terms["consistency_loss"] = self.consistency_weight, self.distance(z_rest[1], z_mix)
        if self.outlier_weight > 0:
            terms["outlier_loss"] = self.outlier_weight, uniform_cross_entropy(z_out)
        found = weighted_sum(id_loss, terms)
        found.logged["margin"] = margin(z_mix.detach(), labels)
        return found

    def distance(self, input_logits: Tensor, mixed_logits: Tensor) -> Tensor:
        """D(z_in, z_mix) with the gradient stopped on the side that `stop_gradient` names; both (M,
        K).
        """
        if self.stop_gradient == "mixed_logits":
            mixed_logits = mixed_logits.detach()
        elif self.stop_gradient == "mixed_input":
            input_logits = input_logits.detach()
        if (
            self.center_logits
        ):  # a shift of all logits: invisible to CE, but not to the energy score
            input_logits = input_logits - input_logits.mean(dim=1, keepdim=True)
            mixed_logits = mixed_logits - mixed_logits.mean(dim=1, keepdim=True)
        return DISTANCES[self.consistency](input_logits, mixed_logits)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of the label's logit minus the largest other one, for logits (M, K) and labels (M,).

    The target is arithmetic in the probabilities while the mixture is geometric, so no single
    margin fits every lam and a small alpha stretches the logits; this number shows it.
    """
    at_label = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return (at_label.squeeze(1) - others.amax(dim=1)).mean()


# The distances D between the logits of the mixed input and the mixed logits, both (M, K): means over
# the pairs, in fp32.


def mse(input_logits: Tensor, mixed_logits: Tensor) -> Tensor:
    """Mean over pairs and classes of the squared difference of the logits."""
    return F.mse_loss(input_logits, mixed_logits)


def mse_log_softmax(input_logits: Tensor, mixed_logits: Tensor) -> Tensor:
    """The same over log-probabilities, so that a shift of all logits does not count."""
    return F.mse_loss(input_logits.log_softmax(dim=1), mixed_logits.log_softmax(dim=1))


def kl(input_logits: Tensor, mixed_logits: Tensor) -> Tensor:
    """KL(softmax(mixed logits) || softmax(logits of the mixed input)), in nats."""
    return F.kl_div(
        input_logits.log_softmax(dim=1),
        mixed_logits.log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )


def js(input_logits: Tensor, mixed_logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the two distributions, in nats; at most log 2."""
    log_p, log_q = input_logits.log_softmax(dim=1), mixed_logits.log_softmax(dim=1)
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * (
        F.kl_div(log_mean, log_p, reduction="batchmean", log_target=True)
        + F.kl_div(log_mean, log_q, reduction="batchmean", log_target=True)
    )


DISTANCES: dict[ConsistencyName, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "mse_log_softmax": mse_log_softmax,
    "kl": kl,
    "js": js,
}
