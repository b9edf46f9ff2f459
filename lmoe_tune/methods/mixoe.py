"""Mixture Outlier Exposure (MixOE; Zhang, Inkawhich, Linderman, Chen & Li, WACV 2023).

B in-distribution images x with labels y over K classes, M outliers o, pairs (i, j), u = 1/K for
every class:

    L = CE(f(x), y) + beta SoftCE(f(mix(x[i], o[j], lam)), lam onehot(y[i]) + (1 - lam) u)

with lam ~ Beta(alpha, alpha). `mixup` interpolates the pixels; `cutmix` pastes a box of the outlier
into the in-distribution image, and lam in the target is the exact share of pixels that it left.
Each term is a mean over its own rows. Published: alpha 1 and beta 5 with mixup, alpha 2 and beta 5
with cutmix, one lam per batch. The BatchNorm modes are this project's; by default every method here
normalises all rows alike, so that methods are compared by their losses (on the digits it is also
the better one for MixOE).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lmoe_tune.data.batches import Batch
from lmoe_tune.data.streams import Per, StepDraws
from lmoe_tune.methods.batch_norm import BatchNormMode, forward_groups
from lmoe_tune.methods.mixing import boxes_of, cutmix, mixup, softened_target
from lmoe_tune.methods.objective import Objective, StepLoss, Terms, weighted_sum

PUBLISHED_ALPHA = {"mixup": 1.0, "cutmix": 2.0}


@dataclass(frozen=True)
class MixOE(Objective):
    """The objective of this module's docstring; without a weight the mixtures cost no forward."""

    mixing: Literal["mixup", "cutmix"]
    mixing_alpha: float | None
    """None: the published value for `mixing`."""
    mix_weight: float
    outlier_ratio: float
    per: Per
    batch_norm: BatchNormMode

    def loss(self, model: nn.Module, batch: Batch, draws: StepDraws) -> StepLoss:
        mixed, lam = self.mixed(batch, draws)
        groups = [batch.images]
        if self.mix_weight > 0:
            groups.append(mixed)
        z_id, *z_rest = forward_groups(model, groups, self.batch_norm)

        id_loss, terms = F.cross_entropy(z_id, batch.labels), Terms()
        for z_mixed in z_rest:
            target = softened_target(batch.labels[batch.pairs], lam, z_mixed.shape[1])
            terms["mix_loss"] = self.mix_weight, F.cross_entropy(z_mixed, target)
        return weighted_sum(id_loss, terms)

    def mixed(self, batch: Batch, draws: StepDraws) -> tuple[Tensor, Tensor]:
        """The mixtures (M, C, H, W) of a batch's pairs, and the in-distribution images' share (M,)
        of each.
        """
        images = batch.images[batch.pairs]
        alpha = self.mixing_alpha
        if alpha is None:
            alpha = PUBLISHED_ALPHA[self.mixing]
        lam = draws.beta(alpha, per=self.per)
        if self.mixing == "mixup":
            return mixup(images, batch.outliers, lam), lam

        height, width = images.shape[-2:]
        boxes = boxes_of(lam, draws.uniforms("box", 2, per=self.per), height, width)
        return cutmix(images, batch.outliers, boxes)
