"""The metrics of the validation split, of the test split, and of resamples of the test split."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmoe_tune.evaluation.detection import aupr_in, aupr_out, auroc, tnr_at_tpr
from lmoe_tune.evaluation.scores import SCORES, Outputs, Score, calibration_errors, outputs

Floats = npt.NDArray[np.float64]

_ROWS_AT_ONCE = 1_000_000  # resampled scores in memory at a time: 8 MB a copy


def validation_metrics(found: Outputs, labels: Tensor, num_fine: int) -> dict[str, float]:
    """The validation metrics of one epoch: accuracy, calibration, and how well fine and coarse
    novelty are recognised.

    `val_auroc`, what a search maximises by default, is the mean of the fine and the coarse AUROC.
    Without coarse images it is the fine one, and the coarse metrics are left out; and the other way
    round if no class is held out. `val_fine_auroc` and the like are for the chosen score; AUROC and
    FPR95 of each of `SCORES` are `val_fine_auroc_msp`, `val_fine_auroc_maxlogit` and so on.

    Args:
        found: of the in-distribution images first, then `num_fine` of held-out classes, then the
            coarse ones.
        labels: (N,) of the in-distribution images.
    """
    num_id = len(labels)
    correct = found.predicted[:num_id] == labels.to(found.predicted.device)
    metrics = {
        "val_accuracy": correct.double().mean(),
        "val_ece": calibration_errors(found.confidence[:num_id], correct),
    }
    # the chosen score in the first row
    rows = torch.cat([found.scores[None], found.named])
    ends = ["", *(f"_{name}" for name in SCORES.values())]
    id_scores, fine, coarse = rows.tensor_split([num_id, num_id + num_fine], dim=1)

    aurocs = []
    for name, ood_scores in (("fine", fine), ("coarse", coarse)):
        if ood_scores.shape[1] == 0:
            continue
        areas, tnr95 = auroc(id_scores, ood_scores), tnr_at_tpr(id_scores, ood_scores)
        for place, end in enumerate(ends):
            metrics[f"val_{name}_auroc{end}"] = areas[place]
            metrics[f"val_{name}_fpr95{end}"] = 1 - tnr95[place]
        metrics[f"val_{name}_tnr95"] = tnr95[0]
        aurocs.append(areas[0])
    if aurocs:
        metrics["val_auroc"] = torch.stack(aurocs).mean()

    values = torch.stack(list(metrics.values())).tolist()  # GPU sync: once per evaluation only
    return dict(zip(metrics, values, strict=True))


def test_metrics(
    logits_id: Tensor,
    labels: Tensor,
    logits_fine: Tensor,
    logits_coarse: Mapping[str, Tensor],
    score: Score,
) -> dict[str, float]:
    """The metrics of the sealed test split, from logits (N, K) of each set.

    `test_accuracy` and `test_ece` of the in-distribution images; `test_fine_*` against the
    test-novel classes; `test_coarse_*` the means over the coarse sets, and
    `test_coarse_<set>_auroc` of each; `test_auroc` the mean of fine and coarse. * is auroc, tnr95,
    aupr_in or aupr_out. Empty sets are left out, and `test_auroc` is then the mean of what remains.
    """
    return metrics_of_scores(*_reduced(logits_id, labels, logits_fine, logits_coarse, score))


def metrics_of_scores(
    scores: Mapping[str, Tensor], confidence: Tensor, correct: Tensor
) -> dict[str, float]:
    """`test_metrics` from what was kept of the logits; of a set `outliers`, the sealed pool of the
    training outliers, also `test_outliers_*`, which are in no mean.

    Args:
        scores: (N,) of the sets `id`, `fine`, `coarse_<set>` and `outliers`.
        confidence: (N,), the largest probabilities of the in-distribution images.
        correct: (N,) bool, whether their predicted classes are right.
    """
    metrics = _measured(
        {name: of for name, of in scores.items() if name == "id" or len(of)}, confidence, correct
    )
    values = torch.stack(list(metrics.values())).tolist()
    return dict(zip(metrics, values, strict=True))


def resampled_test_metrics(
    logits_id: Tensor,
    labels: Tensor,
    logits_fine: Tensor,
    logits_coarse: Mapping[str, Tensor],
    score: Score,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Floats]:
    """`test_metrics` of bootstrap resamples of the test images, (R,) each.

    Each set is resampled separately, with a stream that depends only on `seed` and its name. So
    resample r has the same images for every model with the same sets and seed: differences between
    models can be taken resample by resample.
    """
    found = _reduced(logits_id, labels, logits_fine, logits_coarse, score)
    return resampled_metrics_of_scores(*found, num_resamples=num_resamples, seed=seed)


def resampled_metrics_of_scores(
    scores: Mapping[str, Tensor],
    confidence: Tensor,
    correct: Tensor,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Floats]:
    """`resampled_test_metrics` from what was kept of the logits: see `metrics_of_scores`."""
    sets = {name: of for name, of in scores.items() if name == "id" or len(of)}
    streams = {name: np.random.default_rng([seed, zlib.crc32(name.encode())]) for name in sets}
    num_rows = sum(len(of) for of in sets.values())
    at_once = max(1, _ROWS_AT_ONCE // max(1, num_rows))
    parts: list[Tensor] = []
    names: list[str] = []
    for start in range(0, num_resamples, at_once):
        count = min(at_once, num_resamples - start)
        chosen = {name: _drawn(streams[name], count, of) for name, of in sets.items()}
        drawn = {name: of[chosen[name]] for name, of in sets.items()}
        metrics = _measured(drawn, confidence[chosen["id"]], correct[chosen["id"]])
        names = list(metrics)
        parts.append(torch.stack(list(metrics.values())))
    table = torch.cat(parts, dim=1).cpu().numpy()
    return dict(zip(names, table, strict=True))


def _reduced(
    logits_id: Tensor,
    labels: Tensor,
    logits_fine: Tensor,
    logits_coarse: Mapping[str, Tensor],
    score: Score,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """What `metrics_of_scores` takes, from logits; empty sets are left out."""
    of_id, coarse = outputs(logits_id, score), logits_coarse.items()
    novel = {"fine": logits_fine} | {f"coarse_{name}": of for name, of in coarse}
    scores = {name: outputs(of, score).scores for name, of in novel.items() if len(of) > 0}
    correct = of_id.predicted == labels.to(of_id.predicted.device)
    return {"id": of_id.scores} | scores, of_id.confidence, correct


def _drawn(rng: np.random.Generator, count: int, values: Tensor) -> Tensor:
    return torch.from_numpy(rng.integers(len(values), size=(count, len(values)))).to(values.device)


def _measured(
    scores: Mapping[str, Tensor], confidence: Tensor, correct: Tensor
) -> dict[str, Tensor]:
    """The test metrics (...,) of scores (..., N) by set, and of the in-distribution images'
    confidence and hits.
    """
    id_scores = scores["id"]
    metrics = {
        "test_accuracy": correct.double().mean(dim=-1),
        "test_ece": calibration_errors(confidence, correct),
    }
    against = {name: _detection(id_scores, of) for name, of in scores.items() if name != "id"}
    coarse = {name: of for name, of in against.items() if name not in ("fine", "outliers")}
    aurocs = []
    if "fine" in against:
        metrics |= {f"test_fine_{name}": value for name, value in against["fine"].items()}
        aurocs.append(metrics["test_fine_auroc"])
    if coarse:
        for name in next(iter(coarse.values())):
            metrics[f"test_coarse_{name}"] = torch.stack([of[name] for of in coarse.values()]).mean(
                dim=0
            )
        metrics |= {f"test_{name}_auroc": of["auroc"] for name, of in coarse.items()}
        aurocs.append(metrics["test_coarse_auroc"])
    if aurocs:
        metrics["test_auroc"] = torch.stack(aurocs).mean(dim=0)
    for name, value in against.get("outliers", {}).items():
        metrics[f"test_outliers_{name}"] = value
    return metrics


def chance_metrics(sizes: Mapping[str, int], num_classes: int) -> dict[str, float]:
    """The test metrics of a model that knows nothing: what a diverged training counts as.

    Args:
        sizes: numbers of images of the sets `id`, `fine`, `coarse_<set>` and `outliers`.
    """
    scores = {name: torch.zeros(size) for name, size in sizes.items()}
    of_id = torch.ones(sizes["id"])
    metrics = metrics_of_scores(
        scores, of_id, of_id > 0
    )  # AUROC .5, AUPR the share of the positives

    metrics |= {name: 0.05 for name in metrics if name.endswith("_tnr95")}
    metrics |= {"test_accuracy": 1 / num_classes, "test_ece": 1 - 1 / num_classes}
    return metrics


def _detection(id_scores: Tensor, ood_scores: Tensor) -> dict[str, Tensor]:
    return {
        "auroc": auroc(id_scores, ood_scores),
        "tnr95": tnr_at_tpr(id_scores, ood_scores),
        "aupr_in": aupr_in(id_scores, ood_scores),
        "aupr_out": aupr_out(id_scores, ood_scores),
    }
