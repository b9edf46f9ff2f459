"""How well scores tell in-distribution from out-of-distribution, with ties counted exactly.

A score is higher for in-distribution, everywhere in this project, and in-distribution is the positive class.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ScoreName = Literal["msp", "max_logit", "energy"]


def score(logits: Tensor, name: ScoreName) -> Tensor:
    """Confidence (N,) in float64 from logits (N, K).

    `msp`: largest softmax probability (Hendrycks & Gimpel, 2017). `max_logit`: largest logit (Hendrycks et
    al., 2022). `energy`: logsumexp of the logits (Liu et al., 2020). float64, as probabilities near 1 would
    otherwise collapse into ties.
    """
    logits = logits.double()
    if name == "msp":
        return logits.softmax(dim=1).amax(dim=1)
    if name == "max_logit":
        return logits.amax(dim=1)
    if name == "energy":
        return logits.logsumexp(dim=1)
    raise ValueError(f"score is '{name}', but must be msp, max_logit or energy")


def auroc(id_scores: Tensor, ood_scores: Tensor) -> float:
    """P(ID score > OOD score) + P(tie) / 2 over all pairs; inputs (N,) and (M,), neither empty."""
    assert len(id_scores) > 0 and len(ood_scores) > 0, "AUROC of an empty set"
    ordered = id_scores.sort().values
    below = torch.searchsorted(ordered, ood_scores.contiguous(), side="left")
    not_above = torch.searchsorted(ordered, ood_scores.contiguous(), side="right")
    # in half pairs, so that the sum is exact in integers
    half_pairs = (2 * len(ordered) - below - not_above).sum()
    return half_pairs.item() / (2 * len(id_scores) * len(ood_scores))


def tnr_at_tpr(id_scores: Tensor, ood_scores: Tensor, tpr: float = 0.95) -> float:
    """True-negative rate on OOD at the highest threshold that keeps `tpr` of the ID scores (score >= threshold)."""
    return (ood_scores < threshold_at_tpr(id_scores, tpr)).double().mean().item()


def threshold_at_tpr(id_scores: Tensor, tpr: float = 0.95) -> float:
    """The highest threshold with at least `tpr` of the ID scores (N,) at or above it."""
    assert len(id_scores) > 0, "threshold of an empty set"
    kept = -int(-tpr * len(id_scores) // 1)  # ceil
    return id_scores.sort(descending=True).values[kept - 1].item()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows of (N, K) whose largest logit is the label (N,)."""
    return (logits.argmax(dim=1) == labels).double().mean().item()


def validation_metrics(
    id_logits: Tensor, labels: Tensor, fine_logits: Tensor, coarse_logits: Tensor, score_name: ScoreName
) -> dict[str, float]:
    """The validation metrics of one epoch: accuracy, and AUROC and TNR95 against fine and coarse novelty.

    `val_auroc`, what a search maximises by default, is the mean of the fine and the coarse AUROC. Without outliers
    there is nothing coarse (0, K): then it is the fine one, and the coarse metrics are left out.
    """
    id_scores = score(id_logits, score_name)
    fine_scores = score(fine_logits, score_name)
    fine = auroc(id_scores, fine_scores)
    metrics = {
        "val_accuracy": accuracy(id_logits, labels),
        "val_fine_auroc": fine,
        "val_auroc": fine,
        "val_fine_tnr95": tnr_at_tpr(id_scores, fine_scores),
    }
    if len(coarse_logits) > 0:
        coarse_scores = score(coarse_logits, score_name)
        coarse = auroc(id_scores, coarse_scores)
        metrics["val_coarse_auroc"], metrics["val_auroc"] = coarse, (fine + coarse) / 2
        metrics["val_coarse_tnr95"] = tnr_at_tpr(id_scores, coarse_scores)
    return metrics
