"""The metrics of an epoch: the names that an objective or a constraint may use, and the columns in
MLflow.

In-distribution is the positive class: `tnr95` is the true-negative rate on out-of-distribution
images at 95% true-positive rate on in-distribution ones. `fine` means the held-out classes
(val-novel), `coarse` the validation pool of the outliers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Metric:
    """One number per epoch."""

    name: str
    low: float
    high: float
    direction: Direction | None
    """What is better; None if neither is."""
    help: str
    searchable: bool = True
    """Whether an objective or a constraint may use it: timings may not, they differ from run to
    run.
    """
    in_baseline: bool = True
    """Whether the baseline, which is plain cross entropy, has it too."""
    needs_outliers: bool = False
    """Whether it exists only where the spec names outliers."""


_INFINITY = math.inf


def _of_each_score(novelty: str, against: str) -> list[Metric]:
    """FPR95 by the objective's score, and AUROC and FPR95 by each of the three scores."""
    outliers = novelty == "coarse"
    rate = f"false-positive rate on {against} at 95% true positives"
    found = [
        Metric(f"val_{novelty}_fpr95", 0, 1, "minimize", rate, needs_outliers=outliers),
    ]

    for score in ("msp", "maxlogit", "energy"):
        auroc = f"AUROC against {against} by {score}, whatever the objective's score"
        named = f"{rate} by {score}"
        found += [
            Metric(
                f"val_{novelty}_auroc_{score}", 0, 1, "maximize", auroc, needs_outliers=outliers
            ),
            Metric(
                f"val_{novelty}_fpr95_{score}", 0, 1, "minimize", named, needs_outliers=outliers
            ),
        ]

    return found


RESERVED = "reserved_s"

_ALL = (
    Metric("train_loss", 0, _INFINITY, "minimize", "the whole training loss, mean over the epoch"),
    Metric("train_id_loss", 0, _INFINITY, "minimize", "cross entropy on the in-distribution images"),
    Metric("train_mix_loss", 0, _INFINITY, "minimize", "soft cross entropy of the mixed logits or images",
           in_baseline=False),
    Metric("train_consistency_loss", 0, _INFINITY, "minimize",
           "distance between the mixed logits and the logits of the mixed input", in_baseline=False),
    Metric("train_outlier_loss", 0, _INFINITY, "minimize",
           "cross entropy of the outliers against the uniform distribution", in_baseline=False),
    Metric("train_energy_loss", 0, _INFINITY, "minimize",
           "squared hinges on the energies of images and outliers", in_baseline=False),
    Metric("train_margin", -_INFINITY, _INFINITY, "maximize",
           "mixed logit of the true class minus the largest other, mean", in_baseline=False),
    Metric("val_accuracy", 0, 1, "maximize", "accuracy on the in-distribution validation images"),
    Metric("val_ece", 0, 1, "minimize", "expected calibration error on the same images, 15 bins"),
    Metric("val_fine_auroc", 0, 1, "maximize", "AUROC against the held-out (val-novel) classes"),
    Metric("val_coarse_auroc", 0, 1, "maximize", "AUROC against the outliers' validation pool",
           needs_outliers=True),
    Metric("val_auroc", 0, 1, "maximize", "mean of val_fine_auroc and val_coarse_auroc"),
    Metric("val_fine_tnr95", 0, 1, "maximize", "true-negative rate on val-novel at 95% true positives"),
    Metric("val_coarse_tnr95", 0, 1, "maximize", "true-negative rate on outliers at 95% true positives",
           needs_outliers=True),
    *_of_each_score("fine", "val-novel"),
    *_of_each_score("coarse", "the outliers' validation pool"),
    Metric("lr", 0, _INFINITY, None, "learning rate at the epoch's last step", searchable=False),
    Metric("outlier_ratio_used", 0, _INFINITY, None,
           "outliers per image of a full batch, after rounding to whole outliers", searchable=False,
           in_baseline=False, needs_outliers=True),
    Metric("epoch_s", 0, _INFINITY, "minimize", "wall time of the epoch, seconds", searchable=False),
    Metric(RESERVED, 0, _INFINITY, "minimize",
           "wall time that the slot was held for since the epoch before, waiting for the baseline included, seconds",
           searchable=False, in_baseline=False),
    Metric("images_per_s", 0, _INFINITY, "maximize", "images through the network per second",
           searchable=False),
    Metric("gpu_mem_peak_mb", 0, _INFINITY, "minimize",
           "the most memory that torch held on the GPU in the epoch, megabytes", searchable=False),
)  # fmt: skip


def of_term(name: str) -> Metric:
    """A term of the loss that only a method of the user's has; which direction is better, it does
    not say.
    """
    said = "a term of the method's loss, mean over the epoch"
    return Metric(f"train_{name}", -_INFINITY, _INFINITY, None, said, in_baseline=False)


METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
SEARCHABLE: tuple[str, ...] = tuple(metric.name for metric in _ALL if metric.searchable)
TEST_METRICS = (
    "test_auroc", "test_fine_auroc", "test_coarse_auroc", "test_fine_tnr95", "test_coarse_tnr95", "test_accuracy",
    "test_auroc_distinct", "test_accuracy_distinct",
)  # fmt: skip
"""What a confirmation compares in, and its tables show; the verdict is about the first. The last
two are without near-duplicates of training images, where there are any."""
