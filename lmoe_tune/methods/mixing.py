"""Mixing in-distribution images with outliers: the weights, the images, the target.

M pairs, K classes, C channels, H W pixels. `lam` is always the in-distribution image's share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def mixup(images: Tensor, outliers: Tensor, lam: Tensor) -> Tensor:
    """lam x + (1 - lam) o for paired images (M, C, H, W) and weights (M,) (Zhang et al., 2018)."""
    lam = lam.view(-1, 1, 1, 1)
    return lam * images + (1 - lam) * outliers


@dataclass(frozen=True)
class Boxes:
    """Where CutMix pastes: which rows (M, H) and which columns (M, W) of each image, both bool."""

    rows: Tensor
    columns: Tensor


def boxes_of(lam: Tensor, centres: Tensor, height: int, width: int) -> Boxes:
    """The boxes (Yun et al., 2019) for weights (M,), from uniform numbers (M, 2) that place their
    centres.

    A box has the image's proportions and 1 - lam of its area. Its centre lies anywhere, so that it
    may hang over the border, where it is cut off.
    """
    side_frac = (1 - lam.double()).sqrt()
    return Boxes(
        rows=_span(centres[:, 0], side_frac, height),
        columns=_span(centres[:, 1], side_frac, width),
    )


def cutmix(images: Tensor, outliers: Tensor, boxes: Boxes) -> tuple[Tensor, Tensor]:
    """The outliers' boxes pasted into the paired images (M, C, H, W); also lam as it came out.

    That lam (M,) is the exact share of pixels that are still the image's: boxes have whole pixels,
    and what hangs over the border is lost.
    """
    is_pasted = boxes.rows[:, None, :, None] & boxes.columns[:, None, None, :]
    share = boxes.rows.float().mean(dim=1) * boxes.columns.float().mean(dim=1)
    return torch.where(is_pasted, outliers, images), 1 - share


def _span(centre: Tensor, side_frac: Tensor, size: int) -> Tensor:
    """Which of `size` positions lie in a stretch of floor(side_frac size) around each centre in [0,
    1), (M, size).
    """
    length = (size * side_frac).long()
    first = (size * centre.double()).long() - length // 2
    position = torch.arange(size, device=centre.device)
    return (position >= first[:, None]) & (position < (first + length)[:, None])


def softened_target(labels: Tensor, lam: Tensor, num_classes: int) -> Tensor:
    """lam onehot(y) + (1 - lam) / K, shape (M, K), from labels (M,) and mixing weights (M,)."""
    is_label = labels[:, None] == torch.arange(num_classes, device=labels.device)
    return lam[:, None] * is_label + (1 - lam[:, None]) / num_classes
