"""How well scores separate in-distribution (ID, the positive class) from out-of-distribution (OOD),
with ties counted exactly.

Scores are (..., N) of ID and (..., M) of OOD images; the functions give one number for each leading
index, so that a thousand resamples take one call. They only sort and count, on the scores' device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def auroc(id_scores: Tensor, ood_scores: Tensor) -> Tensor:
    """P(ID score > OOD score) + P(tie) / 2 over all pairs, (...,); neither set may be empty."""
    _refuse_empty(id_scores, ood_scores)
    ordered, ood_scores = id_scores.contiguous().sort(dim=-1).values, ood_scores.contiguous()
    below = torch.searchsorted(ordered, ood_scores, side="left")
    not_above = torch.searchsorted(ordered, ood_scores, side="right")
    # in half pairs, so that the sum is exact in integers
    half_pairs = (2 * ordered.shape[-1] - below - not_above).sum(dim=-1)
    return half_pairs.double() / (2 * ordered.shape[-1] * ood_scores.shape[-1])


def tnr_at_tpr(id_scores: Tensor, ood_scores: Tensor, tpr: float = 0.95) -> Tensor:
    """True-negative rate (...,) on OOD at the highest threshold that keeps `tpr` of the ID scores
    (score >= threshold).
    """
    _refuse_empty(id_scores, ood_scores)
    return (ood_scores < threshold_at_tpr(id_scores, tpr)[..., None]).double().mean(dim=-1)


def threshold_at_tpr(id_scores: Tensor, tpr: float = 0.95) -> Tensor:
    """The highest threshold (...,) with at least `tpr` of the ID scores at or above it."""
    _refuse_empty(id_scores)
    kept = -int(-tpr * id_scores.shape[-1] // 1)  # ceil
    return id_scores.sort(dim=-1, descending=True).values[..., kept - 1]


def aupr_in(id_scores: Tensor, ood_scores: Tensor) -> Tensor:
    """Area under the precision-recall curve (...,), ID positive: scikit-learn's average precision.

    The recall rises by 1 / N at every ID image, where the precision counts all images that score at
    least as high: the result is the mean of these precisions over the ID images.
    """
    _refuse_empty(id_scores, ood_scores)
    ordered, ood_ordered = (
        scores.contiguous().sort(dim=-1).values for scores in (id_scores, ood_scores)
    )
    true = ordered.shape[-1] - torch.searchsorted(ordered, ordered, side="left")
    false = ood_ordered.shape[-1] - torch.searchsorted(ood_ordered, ordered, side="left")
    return (true.double() / (true + false)).mean(dim=-1)


def aupr_out(id_scores: Tensor, ood_scores: Tensor) -> Tensor:
    """The same with OOD positive and the scores negated."""
    return aupr_in(-ood_scores, -id_scores)


def _refuse_empty(*score_sets: Tensor) -> None:
    assert all(scores.shape[-1] > 0 for scores in score_sets), "scores of an empty set"
