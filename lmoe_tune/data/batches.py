"""Paired batches: every in-distribution image once per epoch, and the outliers that go with it.

B in-distribution images, K outliers, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmoe_tune.data.search_data import SearchData

MIN_OUTLIERS = 2  # BatchNorm over one outlier's constant channel would divide by zero


@dataclass(frozen=True)
class Batch:
    """`images` (B, C, H, W) float, `labels` (B,) int64, `outliers` (K, C, H, W) float, `pairs` (K,) int64.

    `pairs[j]` is the in-distribution image that outlier j is mixed with.
    """

    images: Tensor
    labels: Tensor
    outliers: Tensor
    pairs: Tensor


class Images:
    """A split's images on the device, normalised once: small sets fit, and nothing is left to do per step."""

    def __init__(self, data: SearchData, device: torch.device) -> None:
        self._mean = torch.tensor(data.mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(data.std, device=device).view(1, -1, 1, 1)
        self.device = device
        self.train = self._normalised(data.train_images)
        self.outliers = self._normalised(data.outliers)
        self.val = self._normalised(np.concatenate([data.val_images, data.val_fine, data.val_coarse]))
        self.train_labels = torch.from_numpy(data.train_labels).to(device)
        self.val_labels = torch.from_numpy(data.val_labels).to(device)
        self.num_val, self.num_val_fine = len(data.val_images), len(data.val_fine)

    def _normalised(self, images: np.ndarray[Any, Any]) -> Tensor:
        pixels = torch.from_numpy(images).to(self.device).float()
        return ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)


class PairedBatches:
    """Endless epochs of paired batches with an exact position.

    The outlier stream has a position of its own: it is reshuffled when exhausted, never cut short, so over
    the epochs every outlier is seen equally often. `outlier_ratio` holds exactly on average over an epoch
    (the rounding error of a step is carried to the next); at least two outliers are drawn per step.
    """

    def __init__(self, images: Images, *, batch_size: int, outlier_ratio: float, rng: np.random.Generator) -> None:
        assert outlier_ratio == 0 or len(images.outliers) > 0, "outliers asked for, but there are none"
        self._images = images
        self._batch_size = batch_size
        self._outlier_ratio = outlier_ratio
        self._rng = rng
        self._outlier_order = np.zeros(0, dtype=np.int64)
        self._outlier_position = 0

    @property
    def steps_per_epoch(self) -> int:
        num_images = len(self._images.train)
        full, rest = divmod(num_images, self._batch_size)
        return full + (rest >= MIN_OUTLIERS)  # BatchNorm cannot train on a single image either

    def epoch(self) -> Iterator[Batch]:
        """One pass over the in-distribution images in a fresh order."""
        images = self._images
        order = self._rng.permutation(len(images.train))
        seen = drawn = 0
        for step in range(self.steps_per_epoch):
            chosen = order[step * self._batch_size : (step + 1) * self._batch_size]
            seen += len(chosen)
            num_outliers = 0
            if self._outlier_ratio > 0:
                num_outliers = max(MIN_OUTLIERS, round(self._outlier_ratio * seen) - drawn)
                drawn += num_outliers
            index = torch.from_numpy(chosen).to(images.device)
            outliers = torch.from_numpy(self._next_outliers(num_outliers)).to(images.device)
            yield Batch(
                images=images.train[index],
                labels=images.train_labels[index],
                outliers=images.outliers[outliers],
                pairs=torch.arange(num_outliers, device=images.device) % len(chosen),
            )

    def state_dict(self) -> dict[str, Any]:
        """The position between two epochs; the generator's state is the caller's."""
        return {"outlier_order": torch.from_numpy(self._outlier_order), "outlier_position": self._outlier_position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._outlier_order = state["outlier_order"].numpy()
        self._outlier_position = state["outlier_position"]

    def _next_outliers(self, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        parts: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        while count > 0:
            if self._outlier_position == len(self._outlier_order):
                self._outlier_order = self._rng.permutation(len(self._images.outliers))
                self._outlier_position = 0
            part = self._outlier_order[self._outlier_position : self._outlier_position + count]
            self._outlier_position += len(part)
            count -= len(part)
            parts.append(part)
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
