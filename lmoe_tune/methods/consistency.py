"""Distances D between the logits of the mixed input and the mixed logits.

M pairs, K classes. All are means over the pairs and computed in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ConsistencyName = Literal["mse", "mse_log_softmax", "kl", "js"]


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
