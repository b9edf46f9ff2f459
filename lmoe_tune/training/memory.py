"""The memory that a trial needs on its device, counted before it starts, and the message if there
is too little.

Counted on fake tensors, which have a shape and no content: exact for what the backward pass keeps,
without a GPU and without computing anything. The libraries' workspaces and the allocator's
fragmentation come on top.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmoe_tune.data.batches import Batch
from lmoe_tune.data.streams import EpochDraws
from lmoe_tune.errors import DeviceMemoryError, TrainingError
from lmoe_tune.methods.objective import Objective
from lmoe_tune.model import build_model
from lmoe_tune.spec.outliers import outliers_per_step
from lmoe_tune.wording import readable_size, shortened

COMPILERS = ("torch._dynamo", "torch._inductor")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class ModelMemory:
    """Bytes of a model on its device."""

    weights: int
    """Weights and buffers; gradients and momentum take as much each."""
    saved_per_row: int
    """What a row's forward keeps for the backward."""
    evaluated_per_row: int
    """The most that a row takes in a forward without gradients."""

    @property
    def fixed(self) -> int:
        """What training takes, whatever its batch size."""
        return 3 * self.weights

    def of_training(self, rows: int) -> int:
        """The least that training takes with this many rows in a step."""
        return self.fixed + rows * self.saved_per_row

    def of_evaluation(self, rows: int) -> int:
        """The least that the evaluation between two epochs takes with this many rows at a time."""
        return self.fixed + rows * self.evaluated_per_row


@lru_cache(maxsize=16)
def model_memory(
    arch: str, num_classes: int, in_channels: int, image_size: int, *, bf16: bool
) -> ModelMemory:
    """The memory of a model; the same whatever its weights are.

    Raises:
        UsageError: there is no such model.
    """

    def images(rows: int) -> Tensor:
        return torch.empty(rows, in_channels, image_size, image_size)

    with torch.random.fork_rng(devices=[]):  # initialising some models looks at real numbers
        model = build_model(arch, num_classes, in_channels, image_size)
    with FakeTensorMode(allow_non_fake_inputs=True):
        saved = [_saved_bytes(model.train(), images(rows), bf16=bf16) for rows in (2, 4)]
        # Enough rows that the images' share is the largest: weights matter, too, under autocast.
        evaluated = [_peak_bytes(model.eval(), images(rows), bf16=bf16) for rows in (400, 500)]
    weights = sum(value.nbytes for value in model.state_dict().values())
    return ModelMemory(weights, (saved[1] - saved[0]) // 2, (evaluated[1] - evaluated[0]) // 100)


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


def count_peak_from_here(device: torch.device) -> None:
    """Restart the count of torch's peak memory on a GPU; does nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_metrics(device: torch.device) -> dict[str, float]:
    """The most that torch has held on a GPU since the last call of `count_peak_from_here`, as a
    metric.
    """
    if device.type != "cuda":
        return {}

    return {"gpu_mem_peak_mb": torch.cuda.max_memory_allocated(device) / 1e6}


SET_FOR_A_TRIAL = (
    "set a smaller train.batch_size or data.crop, or a lower upper end of outlier_ratio"
)
SET_FOR_THE_BASELINE = "set a smaller model.baseline.batch_size or data.crop"


@contextmanager
def explained(device: torch.device, what_to_set: str) -> Iterator[None]:
    """If the block runs out of the device's memory, the error gives the numbers; if torch's compiler
    fails in it, what to set.

    Raises:
        DeviceMemoryError: instead of torch's own error.
        TrainingError: instead of the compiler's.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(f"{_numbers(device)}; {what_to_set}") from error
    except Exception as error:
        if not type(error).__module__.startswith(COMPILERS):
            raise

        first = str(error).strip().partition("\n")[0]
        raise TrainingError(
            f"torch.compile failed: {type(error).__name__}: {shortened(first)}; set train.compile: false"
        ) from error


def _numbers(device: torch.device) -> str:
    if device.type != "cuda":
        return "the memory does not suffice"

    free, total = torch.cuda.mem_get_info(device)
    peak = torch.cuda.max_memory_allocated(device)
    others = max(0, total - free - torch.cuda.memory_reserved(device))
    return (
        f"the GPU's {readable_size(total)} do not suffice: this process held up to "
        f"{readable_size(peak)}, other processes and CUDA itself hold {readable_size(others)}"
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


def _peak_bytes(model: nn.Module, images: Tensor, *, bf16: bool) -> int:
    """Peak bytes of the storages that a forward without gradients makes."""
    live = _LiveBytes()
    with (
        torch.no_grad(),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        live,
    ):
        model(images)
    return live.peak


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts the bytes of the operators' outputs, for as long as a tensor has them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.now = 0
        self.peak: int = 0
        self._tensors: set[int] = set()
        self._holders: Counter[int] = Counter()  # tensors that have a storage, by its address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor) and id(value) not in self._tensors:
                self._count(value)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, num_bytes = storage._cdata, storage.nbytes()
        if not self._holders[address]:
            self.now += num_bytes
            self.peak = max(self.peak, self.now)
        self._holders[address] += 1
        self._tensors.add(id(tensor))
        weakref.finalize(tensor, self._forget, id(tensor), address, num_bytes)

    def _forget(self, tensor: int, address: int, num_bytes: int) -> None:
        self._tensors.discard(tensor)
        self._holders[address] -= 1
        if not self._holders[address]:
            self.now -= num_bytes


class _RowCounter(nn.Module):
    """A network that counts its rows."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_classes))
        self.rows = 0

    def forward(self, images: Tensor) -> Tensor:
        self.rows += len(images)
        return self.weight.expand(len(images), -1)
