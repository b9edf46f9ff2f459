"""Common random numbers: every random number of an epoch is a pure function of (seed, stream,
epoch, place).

So two trials of one seed differ in what their parameters change and in nothing else, and a trial
that continues after a kill needs no saved generator state. A stream is a purpose: the order of the
images, their augmentation, the order of the outliers, their augmentation, lambda, the boxes of
CutMix, torch's own generators (dropout), and any name that a user's method asks for.

S steps of an epoch; M slots: the places for outliers in a step. Numbers that belong to slots are
drawn slot by slot, so that a trial with more slots has the numbers of a trial with fewer, and more.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmoe_tune.data.incomplete_beta import Floats, beta_quantiles

Per = Literal["batch", "sample"]
"""One number for all slots of a step, the first slot's; or one for each slot."""

IMAGE_ORDER = "image order"
IMAGE_AUGMENTATION = "image augmentation"
OUTLIER_ORDER = "outlier order"
OUTLIER_AUGMENTATION = "outlier augmentation"
TORCH = "torch"
OF_A_METHOD = (
    "method: "  # before a name that a method gives, so that it cannot clash with one of the above
)


def generator_of(seed: int, stream: str, *place: int) -> np.random.Generator:
    """The generator of a stream at a place, such as (epoch,) or (epoch, step)."""
    key = (zlib.crc32(stream.encode()), *place)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def slot_numbers(
    seed: int, stream: str, epoch: int, *, num_steps: int, num_slots: int, width: int
) -> npt.NDArray[np.float64]:
    """Uniform numbers (S, M, width) in [0, 1); a slot's are the same however many slots come after
    it.
    """
    rng = generator_of(seed, stream, epoch)
    return rng.random((num_slots, num_steps, width)).transpose(1, 0, 2)


class EpochDraws:
    """The random numbers of an epoch for methods and for torch: drawn for all steps and sent to the
    device at once.
    """

    def __init__(
        self, seed: int, epoch: int, *, num_steps: int, num_slots: int, device: torch.device
    ) -> None:
        self.seed, self.epoch = seed, epoch
        self._num_steps, self._num_slots = num_steps, num_slots
        self._device = device
        self._torch_seeds = generator_of(seed, TORCH, epoch).integers(2**63, size=num_steps)
        self._made: dict[tuple[object, ...], Tensor] = {}

    def at(self, step: int) -> StepDraws:
        """The numbers of a step (from 0)."""
        return StepDraws(self, step)

    def seed_torch(self, step: int) -> None:
        """Seed torch's global generators, so that dropout and the like do not depend on what was
        drawn before.
        """
        seed = int(self._torch_seeds[step])
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def of_step(
        self,
        step: int,
        name: str,
        width: int,
        per: Per,
        made_of: Callable[[Floats], Floats],
        *key: float,
    ) -> Tensor:
        """float32 (M, ...) on the device, what `made_of` makes of the uniform numbers (S, M, width)
        of a name; `key` tells apart what is made of the same numbers."""
        wanted = (name, width, per, *key)
        if wanted not in self._made:
            numbers = slot_numbers(
                self.seed,
                OF_A_METHOD + name,
                self.epoch,
                num_steps=self._num_steps,
                num_slots={"batch": min(1, self._num_slots), "sample": self._num_slots}[per],
                width=width,
            )
            values = made_of(numbers).astype(np.float32)
            self._made[wanted] = uploaded(torch.from_numpy(values), self._device)
        row = self._made[wanted][step]
        return row.expand(self._num_slots, *row.shape[1:])


class StepDraws:
    """The random numbers of one step, the same in every trial of a seed that asks for them.

    Its tensors lie on the device of the batch, and getting them does not wait for it.
    """

    def __init__(self, epoch: EpochDraws, step: int) -> None:
        self._epoch, self._step = epoch, step

    def beta(
        self, a: float, b: float | None = None, *, per: Per = "sample", name: str = "lam"
    ) -> Tensor:
        """float32 (M,), one for each outlier, from Beta(a, b), or Beta(a, a) without a `b`.

        The numbers are the quantiles of common uniform numbers: those of two trials with nearly the
        same `a` are nearly the same.

        Args:
            per: "batch" gives all outliers of the step one number, that of the first.
            name: another name gives other numbers.
        """
        other = a if b is None else b

        def quantiles(numbers: Floats) -> Floats:
            return beta_quantiles(numbers[:, :, 0], a, other)

        return self._epoch.of_step(self._step, name, 1, per, quantiles, a, other)

    def uniforms(self, name: str, width: int = 1, *, per: Per = "sample") -> Tensor:
        """float32 (M, width), `width` numbers in [0, 1) for each outlier; another name gives other
        numbers.
        """
        return self._epoch.of_step(self._step, name, width, per, _below_one)

    def generator(self, name: str) -> np.random.Generator:
        """A NumPy generator for this step and name, for other kinds or amounts of numbers."""
        epoch = self._epoch
        return generator_of(epoch.seed, OF_A_METHOD + name, epoch.epoch, self._step)


def _below_one(numbers: Floats) -> Floats:
    """Numbers that are below 1 in float32, too."""
    return np.minimum(numbers, np.nextafter(np.float32(1), np.float32(0)))


def uploaded(values: Tensor, device: torch.device) -> Tensor:
    """The values on the device; on CUDA through pinned memory, so that the host does not wait."""
    if device.type != "cuda":
        return values.to(device)
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    pinned.copy_(values)
    return pinned.to(device, non_blocking=True)
