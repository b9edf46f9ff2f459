"""What `gpu.py` works on: folders of generated photographs, a spec over them, and a count of memory traffic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.photographs import QUALITY, photograph
from lmoe_tune.spec import Spec, load_spec
from lmoe_tune.training.platform import resolve_platform
from trainables import declarations

WIDTH, HEIGHT = 500, 375  # of a photograph
CLASSES = 8
SPEC = """
name: gpu
trainable: logit_mixoe
data:
  id: {{dataset: folder, root: {root}/known}}
  outliers: {{dataset: folder, root: {root}/other}}
  resize: {resize}
  crop: {crop}
  cache: disk
  num_id_classes: 6
  num_val_novel: 1
model: {{arch: {arch}, weights: none, baseline: {{epochs: 1, batch_size: {batch}}}}}
train:
  epochs: {epochs}
  batch_size: {batch}
  lr: 0.001
  device: {device}
  precision: {precision}
  compile: false
space: {{lr: {{low: 0.001, high: 0.01}}}}
resources: {{gpu: {gpu}, cpu: {threads}}}
"""


def write_classes(root: Path, num_train: int, *, seed: int = 0) -> list[Path]:
    """Class folders of photographs, cut from a few large ones; returns the paths of the known classes' ones.

    A search trains on five classes of the eight, and on 60% of their images.
    """
    rng = np.random.default_rng(seed)
    large = [photograph(rng, 3 * WIDTH, 3 * HEIGHT) for _ in range(4)]
    per_class = -(-num_train // 3)
    folders = [(root / "known" / f"class{number}", per_class) for number in range(CLASSES)]
    folders.append((root / "other", num_train))

    paths = []
    for folder, count in folders:
        folder.mkdir(parents=True)
        for number in range(count):
            path = folder / f"{number:05d}.jpg"
            _cut(rng, large[number % len(large)]).save(path, quality=QUALITY)
            paths.append(path)
    return [path for path in paths if path.parent.parent.name == "known"]


def _cut(rng: np.random.Generator, large: npt.NDArray[np.uint8]) -> Image.Image:
    top, left = rng.integers(2 * HEIGHT), rng.integers(2 * WIDTH)
    return Image.fromarray(large[top : top + HEIGHT, left : left + WIDTH])


def spec_of(root: Path, *, device: str, precision: str, **sizes: Any) -> Spec:
    """The spec of a trial over those folders."""
    text = SPEC.format(
        root=root, device=device, precision=precision, gpu=1 if device == "cuda" else 0, **sizes
    )
    path = root / f"gpu-{device}-{precision}.yaml"
    path.write_text(text, encoding="utf-8")
    return resolve_platform(load_spec(path, declarations=declarations()).spec)


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write, each operator by itself: nothing is fused."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            read = {id(value): value for value in tree_leaves((args, kwargs or {}))}
            tensors = [*read.values(), *tree_leaves(made)]
            self.bytes += sum(value.nbytes for value in tensors if isinstance(value, Tensor))
        return made


def matrix_flops(device: torch.device, dtype: torch.dtype, side: int, seconds: float) -> float:
    """FLOP/s of the best of many products of side x side."""
    first, second = torch.randn(2, side, side, device=device, dtype=dtype)

    def product() -> None:
        first @ second

    return 2 * side**3 / _best(product, device, seconds)


def copy_bandwidth(device: torch.device, num_bytes: int, seconds: float) -> float:
    """Bytes a second of the best of many copies on the device, read and written."""
    source = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    return 2 * num_bytes / _best(copy, device, seconds)


def _best(what: Callable[[], None], device: torch.device, seconds: float) -> float:
    import time

    best, give_up = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < give_up:
        synchronize(device)
        started = time.perf_counter()
        for _ in range(5):
            what()
        synchronize(device)
        best = min(best, (time.perf_counter() - started) / 5)
    return best


def synchronize(device: torch.device) -> None:
    """Wait for all that the device has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
