"""Mixing in-distribution images with outliers: the weights, the images, the target.

M pairs, K classes, C channels, H W pixels. `lam` is always the in-distribution image's share.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

_Integers = npt.NDArray[np.int64]
Per = Literal["batch", "sample"]


def draw_lam(rng: np.random.Generator, alpha: float, num_pairs: int, per: Per) -> Tensor:
    """Mixing weights (M,) in [0, 1] from Beta(alpha, alpha): one for the batch, or one per pair."""
    lam = rng.beta(alpha, alpha, size=num_pairs if per == "sample" else 1)
    return torch.from_numpy(lam).float().expand(num_pairs)


def mixup(images: Tensor, outliers: Tensor, lam: Tensor) -> Tensor:
    """lam x + (1 - lam) o for paired images (M, C, H, W) and weights (M,) (Zhang et al., 2018)."""
    lam = lam.view(-1, 1, 1, 1)
    return lam * images + (1 - lam) * outliers


def draw_boxes(rng: np.random.Generator, lam: Tensor, height: int, width: int, per: Per) -> Tensor:
    """Where CutMix pastes (Yun et al., 2019): bool (M, 1, H, W) for weights (M,); one box for the batch, or M.

    A box has the image's proportions and 1 - lam of its area. Its centre lies anywhere, so that it may hang
    over the border, where it is cut off.
    """
    num_boxes = len(lam) if per == "sample" else 1
    side_frac = (1 - lam[:num_boxes].double()).sqrt().numpy()
    rows = _span(rng.integers(height, size=num_boxes), side_frac, height)
    columns = _span(rng.integers(width, size=num_boxes), side_frac, width)
    boxes = torch.from_numpy(rows[:, None, :, None] & columns[:, None, None, :])
    return boxes.expand(len(lam), 1, height, width)


def cutmix(images: Tensor, outliers: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The outliers' `boxes` (M, 1, H, W) pasted into the paired images (M, C, H, W); also lam as it came out.

    That lam (M,) is the exact share of pixels that are still the image's: boxes have whole pixels, and what
    hangs over the border is lost.
    """
    return torch.where(boxes, outliers, images), 1 - boxes.flatten(1).float().mean(dim=1)


def _span(
    centre: _Integers, side_frac: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.bool_]:
    """Which of `size` positions lie in a stretch of floor(side_frac size) around each centre, (N, size)."""
    length = (size * side_frac).astype(np.int64)
    first = centre - length // 2
    position = np.arange(size)
    return (position >= first[:, None]) & (position < (first + length)[:, None])


def softened_target(labels: Tensor, lam: Tensor, num_classes: int) -> Tensor:
    """lam onehot(y) + (1 - lam) / K, shape (M, K), from labels (M,) and mixing weights (M,)."""
    onehot = F.one_hot(labels, num_classes).float()
    return lam[:, None] * onehot + (1 - lam[:, None]) / num_classes
