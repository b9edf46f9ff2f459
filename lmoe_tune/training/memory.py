"""What memory a trial needs on its device, counted before it is started, and what is said when it does not suffice.

Counted on fake tensors, which have a shape and no content: exact for what the backward pass keeps,
without a GPU and without computing anything. The libraries' work space and the fragments of the
allocator come on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lmoe_tune.data.batches import Batch
from lmoe_tune.data.streams import EpochDraws
from lmoe_tune.errors import DeviceMemoryError
from lmoe_tune.methods.objective import Objective
from lmoe_tune.model import build_model
from lmoe_tune.spec.outliers import outliers_per_step
from lmoe_tune.wording import readable_size

Item = TypeVar("Item")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class ModelMemory:
    """Bytes of a model in training."""

    weights: int
    """Weights and buffers; gradients and momentum take as much each."""
    saved_per_row: int
    """What a row's forward keeps for the backward."""


@dataclass(frozen=True)
class TrialMemory:
    """Bytes that a trial needs at least: `fixed` always, `saved_per_row` for each of `rows` in a step."""

    fixed: int
    saved_per_row: int
    rows: int

    @property
    def total(self) -> int:
        """Of a step, in bytes."""
        return self.fixed + self.rows * self.saved_per_row

    def largest_batch(self, batch_size: int, available: int) -> int:
        """The batch size, at the same ratio of outliers, that fits into so many bytes; 0 where none does."""
        rows = (available - self.fixed) / self.saved_per_row
        return max(0, int(batch_size * rows / self.rows))

    def __str__(self) -> str:
        return (
            f"a trial needs at least {readable_size(self.total)}: {readable_size(self.fixed)} for the "
            f"model, its gradients and momentum, and {readable_size(self.saved_per_row)} for each of the "
            f"{self.rows} rows of a step"
        )


@lru_cache(maxsize=16)
def model_memory(
    arch: str, num_classes: int, in_channels: int, image_size: int, *, bf16: bool
) -> ModelMemory:
    """The memory of a model; the same whatever its weights are.

    Raises:
        UsageError: there is no such model.
    """
    with FakeTensorMode():
        model = build_model(arch, num_classes, in_channels, image_size).train()
        saved = [
            _saved_bytes(model, torch.empty(rows, in_channels, image_size, image_size), bf16=bf16)
            for rows in (2, 4)
        ]
    weights = sum(value.nbytes for value in model.state_dict().values())
    return ModelMemory(weights, (saved[1] - saved[0]) // 2)


def rows_of_step(objective: Objective, batch_size: int, num_classes: int = 2) -> int:
    """How many images go through the network in a step: counted, as a method may mix as it likes."""
    counter = _RowCounter(num_classes)
    num_outliers = outliers_per_step(objective.outlier_ratio, batch_size)
    batch = Batch(
        images=torch.zeros(batch_size, 1, 8, 8),
        labels=torch.arange(batch_size) % num_classes,
        outliers=torch.zeros(num_outliers, 1, 8, 8),
        pairs=torch.arange(num_outliers) % batch_size,
    )
    draws = EpochDraws(0, 1, num_steps=1, num_slots=num_outliers, device=CPU)
    objective.loss(counter, batch, draws.at(0))
    return counter.rows


def trial_memory(model: ModelMemory, rows: int) -> TrialMemory:
    """What a trial needs whose steps have so many rows: weights, gradients, momentum, and what is kept of a step."""
    return TrialMemory(fixed=3 * model.weights, saved_per_row=model.saved_per_row, rows=rows)


def count_peak_from_here(device: torch.device) -> None:
    """Begin a new peak of what torch holds on a GPU; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_metrics(device: torch.device) -> dict[str, float]:
    """The most that torch has held on a GPU since the last call of `count_peak_from_here`, as a metric."""
    if device.type != "cuda":
        return {}

    return {"gpu_mem_peak_mb": torch.cuda.max_memory_allocated(device) / 1e6}


def explaining_memory(items: Iterator[Item], device: torch.device) -> Iterator[Item]:
    """The items; where the device's memory does not suffice for one, an error that says how much there is.

    Raises:
        DeviceMemoryError: instead of torch's own error.
    """
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(_out_of_memory(device)) from error
        yield item


def _out_of_memory(device: torch.device) -> str:
    used = "the memory does not suffice"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        peak = torch.cuda.max_memory_allocated(device)
        used = (
            f"the GPU's {readable_size(total)} do not suffice: this process held up to {readable_size(peak)}, "
            f"and {readable_size(free)} are free"
        )
    return (
        f"{used}; set a smaller train.batch_size or data.crop, a lower upper end of outlier_ratio, or give "
        "each trial a larger share with resources.gpu"
    )


def _saved_bytes(model: nn.Module, images: Tensor, *, bf16: bool) -> int:
    """Bytes of the storages that a forward keeps for its backward, each counted once."""
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[id(storage)] = storage  # held, so that no other one gets its id
        return tensor

    def unchanged(tensor: Tensor) -> Tensor:
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, unchanged),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        model(images)
    return sum(storage.nbytes() for storage in kept.values())


class _RowCounter(nn.Module):
    """A network that counts its rows."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_classes))
        self.rows = 0

    def forward(self, images: Tensor) -> Tensor:
        self.rows += len(images)
        return self.weight.expand(len(images), -1)
