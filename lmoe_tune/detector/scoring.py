"""Pixels through a network, always `BATCH` images at a time.

A convolution may use another algorithm for another number of images, and its last bits then differ:
an image on the threshold could be in-distribution alone and out-of-distribution in a batch. So
every forward has the same shape, and a short batch is filled up with blank images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmoe_tune.errors import UsageError
from lmoe_tune.evaluation.scores import Outputs, ScoreName, outputs

BATCH = 8
"""Two or more: for a single image the last bits differ from those of any batch."""


def score_pixels(
    network: Callable[[Tensor], Tensor],
    pixels: npt.NDArray[Any],
    score: ScoreName,
    device: torch.device,
) -> Outputs:
    """Scores and predicted classes of images (N, C, H, W), values in 0-255, on the CPU.

    Raises:
        UsageError: an image's logits are not finite, so it has no score.
    """
    chunks = []
    with torch.inference_mode():
        for start in range(0, len(pixels), BATCH):
            some = pixels[start : start + BATCH]
            batch = np.zeros((BATCH, *pixels.shape[1:]), dtype=np.float32)
            batch[: len(some)] = some
            logits_NK = network(torch.from_numpy(batch).to(device))[: len(some)].float()
            chunks.append(logits_NK.cpu())
        found = outputs(torch.cat(chunks) if chunks else torch.zeros(0, 1), score)
    if not found.finite:
        bad = int((~torch.cat(chunks).isfinite().all(dim=1)).nonzero()[0])
        raise UsageError(
            f"image {bad} of the batch has no finite logits; pixels must be finite numbers in 0-255"
        )
    return found


def is_ood(scores: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.bool_]:
    """Which images are out-of-distribution: those that score below the threshold."""
    return scores < threshold
