"""Paired batches: every in-distribution image once per epoch, and the outliers that go with it.

B in-distribution images, K outliers, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.data.search_data import SearchData
from lmoe_tune.data.splits import IntArray

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


@dataclass(frozen=True)
class Step:
    """Which in-distribution images (B,) and which outliers (K,) make a batch."""

    images: IntArray
    outliers: IntArray


class ImageSource(Protocol):
    """The images of a search on a device, ready to be put into batches."""

    device: torch.device
    preprocessing: Preprocessing
    num_train: int
    num_outliers: int
    num_val: int
    num_val_fine: int
    val_labels: Tensor

    def batches(self, steps: Iterator[Step], rng: np.random.Generator) -> Iterator[Batch]:
        """The batches of an epoch; what is random about them comes from `rng`."""

    def val_chunks(self, size: int) -> Iterable[Tensor]:
        """val, val_fine and val_coarse one after the other, normalised, at most `size` images at a time."""


class Images:
    """A split's images on the device, normalised once: small sets fit, and nothing is left to do per step."""

    def __init__(self, data: SearchData, device: torch.device) -> None:
        height, width = data.image_size
        self.preprocessing = Preprocessing.as_stored(
            (data.in_channels, height, width), data.mean, data.std
        )
        self._mean = torch.tensor(data.mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(data.std, device=device).view(1, -1, 1, 1)
        self.device = device
        self.train = self.normalised(data.train_images)
        self.outliers = self.normalised(data.outliers)
        self.val = self.normalised(
            np.concatenate([data.val_images, data.val_fine, data.val_coarse])
        )
        self.train_labels = torch.from_numpy(data.train_labels).to(device)
        self.val_labels = torch.from_numpy(data.val_labels).to(device)
        self.num_train, self.num_outliers = len(self.train), len(self.outliers)
        self.num_val, self.num_val_fine = len(data.val_images), len(data.val_fine)

    def batches(self, steps: Iterator[Step], rng: np.random.Generator) -> Iterator[Batch]:
        """The batches of an epoch, made as they are asked for."""
        for step in steps:
            images = torch.from_numpy(step.images).to(self.device)
            outliers = torch.from_numpy(step.outliers).to(self.device)
            yield Batch(
                images=self.train[images],
                labels=self.train_labels[images],
                outliers=self.outliers[outliers],
                pairs=paired(step, self.device),
            )

    def val_chunks(self, size: int) -> Iterable[Tensor]:
        """All validation images, at most `size` at a time."""
        return torch.split(self.val, size)

    def normalised(self, images: np.ndarray[Any, Any]) -> Tensor:
        """uint8 (N, C, H, W) as a network of this split sees them, on the device."""
        pixels = torch.from_numpy(images).to(self.device).float()
        return ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)


class PairedBatches:
    """Endless epochs of paired batches with an exact position.

    The outlier stream has a position of its own: it is reshuffled when exhausted, never cut short, so over
    the epochs every outlier is seen equally often. `outlier_ratio` holds exactly on average over an epoch
    (the rounding error of a step is carried to the next); at least two outliers are drawn per step.
    """

    def __init__(
        self,
        images: ImageSource,
        *,
        batch_size: int,
        outlier_ratio: float,
        rng: np.random.Generator,
    ) -> None:
        assert outlier_ratio == 0 or images.num_outliers > 0, (
            "outliers asked for, but there are none"
        )
        self._images = images
        self._batch_size = batch_size
        self._outlier_ratio = outlier_ratio
        self._rng = rng
        self._outlier_order: IntArray = np.zeros(0, dtype=np.int64)
        self._outlier_position = 0

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(self._images.num_train, self._batch_size)
        return full + (rest >= MIN_OUTLIERS)  # BatchNorm cannot train on a single image either

    def epoch(self) -> Iterator[Batch]:
        """One pass over the in-distribution images in a fresh order."""
        return self._images.batches(self._steps(), self._rng)

    def _steps(self) -> Iterator[Step]:
        order = self._rng.permutation(self._images.num_train)
        seen = drawn = 0
        for step in range(self.steps_per_epoch):
            chosen = order[step * self._batch_size : (step + 1) * self._batch_size]
            seen += len(chosen)
            num_outliers = 0
            if self._outlier_ratio > 0:
                num_outliers = max(MIN_OUTLIERS, round(self._outlier_ratio * seen) - drawn)
                drawn += num_outliers
            yield Step(chosen, self._next_outliers(num_outliers))

    def state_dict(self) -> dict[str, Any]:
        """The position between two epochs; the generator's state is the caller's."""
        return {
            "outlier_order": torch.from_numpy(self._outlier_order),
            "outlier_position": self._outlier_position,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._outlier_order = state["outlier_order"].numpy()
        self._outlier_position = state["outlier_position"]

    def _next_outliers(self, count: int) -> IntArray:
        parts: list[IntArray] = []
        while count > 0:
            if self._outlier_position == len(self._outlier_order):
                self._outlier_order = self._rng.permutation(self._images.num_outliers)
                self._outlier_position = 0
            part = self._outlier_order[self._outlier_position : self._outlier_position + count]
            self._outlier_position += len(part)
            count -= len(part)
            parts.append(part)
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def paired(step: Step, device: torch.device) -> Tensor:
    """The in-distribution image (K,) that each outlier of a step is mixed with: in turn, cycling if there are more."""
    return torch.arange(len(step.outliers), device=device) % len(step.images)
