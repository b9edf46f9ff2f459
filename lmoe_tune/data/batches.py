"""Paired batches: every in-distribution image once per epoch, and the outliers that go with it.

B in-distribution images, M outliers, S steps of an epoch, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lmoe_tune.data.splits import IntArray
from lmoe_tune.data.streams import (
    IMAGE_ORDER,
    OUTLIER_ORDER,
    EpochDraws,
    generator_of,
)
from lmoe_tune.spec.outliers import outliers_per_step

if TYPE_CHECKING:
    from lmoe_tune.data.image_source import ImageSource


@dataclass(frozen=True)
class Batch:
    """`images` (B, C, H, W) float, `labels` (B,) int64, `outliers` (M, C, H, W) float, `pairs` (M,)
    int64.

    `pairs[j]` is the in-distribution image that outlier j is mixed with.
    """

    images: Tensor
    labels: Tensor
    outliers: Tensor
    pairs: Tensor


@dataclass(frozen=True)
class Epoch:
    """The images and outliers in the batches of an epoch, and where their other random numbers come
    from.
    """

    seed: int
    number: int
    """From 1."""
    images: IntArray
    """(N,), in their order; the last batch may have fewer."""
    outliers: IntArray
    """(S, M)."""
    batch_size: int

    def __len__(self) -> int:
        return len(self.outliers)

    def images_of(self, step: int) -> slice:
        """The places of a step's images in `images`."""
        start = step * self.batch_size
        return slice(start, min(start + self.batch_size, len(self.images)))


class PairedBatches:
    """The batches of every epoch, each a pure function of (seed, epoch).

    Each step has the same number of outliers, M = round(outlier_ratio B), but at least two, and
    none if the ratio is 0. The outlier in slot j of a step does not depend on M: a trial with a
    larger ratio sees the outliers of one with a smaller ratio, and more. `_outliers` says in which
    order.
    """

    def __init__(
        self, images: ImageSource, *, batch_size: int, outlier_ratio: float, seed: int
    ) -> None:
        assert outlier_ratio == 0 or images.num_outliers > 0, (
            "outliers asked for, but there are none"
        )
        self._images = images
        self._batch_size = min(batch_size, images.num_train)
        self._seed = seed
        self.num_slots = outliers_per_step(outlier_ratio, self._batch_size)

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(self._images.num_train, self._batch_size)
        return full + (rest > 1)  # BatchNorm cannot train on a single image

    @property
    def outlier_ratio(self) -> float:
        """The actual number of outliers per image in a full batch."""
        return self.num_slots / self._batch_size

    def plan(self, number: int) -> Epoch:
        """The images and outliers of an epoch (from 1)."""
        rng = generator_of(self._seed, IMAGE_ORDER, number)
        order = rng.permutation(self._images.num_train)
        return Epoch(
            seed=self._seed,
            number=number,
            images=order[: self.steps_per_epoch * self._batch_size],
            outliers=self._outliers(number),
            batch_size=self._batch_size,
        )

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass over the in-distribution images, in the epoch's own order."""
        return self._images.batches(self.plan(number))

    def draws(self, number: int) -> EpochDraws:
        """The random numbers that belong to the steps of an epoch."""
        return EpochDraws(
            self._seed,
            number,
            num_steps=self.steps_per_epoch,
            num_slots=self.num_slots,
            device=self._images.device,
        )

    def _outliers(self, number: int) -> IntArray:
        """The outliers of an epoch, (S, M).

        Slot j of step t is place j S + t of a sequence of permutations of all outliers. Consecutive
        epochs begin S B places apart in the first of them, as many as a ratio of 1 takes, and a new
        sequence begins where the next epoch would not fit. So no outlier is repeated within an
        epoch unless there are fewer than S M; up to a ratio of 1 none is repeated in later epochs
        before a new sequence begins; beyond a ratio of 1 the end of one epoch overlaps with the
        beginning of the next.
        """
        num_steps, count = self.steps_per_epoch, self._images.num_outliers
        if self.num_slots == 0:
            return np.zeros((num_steps, 0), dtype=np.int64)

        stride = num_steps * self._batch_size
        epochs_in_sequence = max(1, count // stride)
        sequence, place = divmod(number - 1, epochs_in_sequence)

        needed = self.num_slots * num_steps
        rounds = [
            np.roll(
                generator_of(self._seed, OUTLIER_ORDER, sequence, again).permutation(count),
                -place * stride,
            )
            for again in range(-(-needed // count))
        ]
        return np.concatenate(rounds)[:needed].reshape(self.num_slots, num_steps).T


def partners(num_outliers: int, num_images: int, device: torch.device) -> Tensor:
    """The image (M,) that each outlier of a step is mixed with: in turn, cycling where there are
    more outliers.
    """
    return torch.arange(num_outliers, device=device) % num_images
