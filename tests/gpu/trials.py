"""Whole trials on a device, for the tests of the CUDA path; imported by the processes that run them."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lmoe_tune.spec import load_spec
from lmoe_tune.training.platform import resolve_platform
from lmoe_tune.training.trial import run_trial
from tests.gpu.pretended import PretendedGpu
from trainables import configured, declarations

MEASURED = ("epoch_s", "images_per_s", "gpu_mem_peak_mb")
EPOCHS = 2
EMBEDDED = """
name: tiny
trainable: {method}
data: {{id: {{dataset: digits}}}}
space: {{lr: {{low: 0.001, high: 0.01}}}}
"""
FILES = """
name: tiny
trainable: {method}
data:
  id: {{dataset: folder, root: {root}/known}}
  outliers: {{dataset: folder, root: {root}/other}}
  resize: 40
  crop: 32
  num_val_novel: 1
model: {{arch: {arch}, weights: none, baseline: {{epochs: 1}}}}
train: {{epochs: 2, batch_size: 16, lr: 0.01}}
space: {{lr: {{low: 0.001, high: 0.01}}}}
"""


def write_images(root: Path) -> None:
    """Five known classes of twelve images, and sixty outliers."""
    rng = np.random.default_rng(0)
    folders = [(root / "known" / f"class{number}", 12) for number in range(5)]
    folders.append((root / "other", 60))
    for number, (folder, count) in enumerate(folders):
        folder.mkdir(parents=True)
        for image in range(count):
            pixels = rng.integers(0, 256, (48, 56, 3), dtype=np.uint8)
            pixels[:, : 8 + 6 * number] //= 3
            Image.fromarray(pixels).save(folder / f"{image:03}.png")


class Trials:
    """Trials of one spec in a temporary home, on the CPU or on the pretended GPU."""

    def __init__(self, home: Path, text: str, overrides: Sequence[str]) -> None:
        self.home = home
        self.path = home / "tiny.yaml"
        self.path.write_text(text, encoding="utf-8")
        self.overrides = list(overrides)
        self._count = 0

    def epochs(
        self,
        device: str,
        params: dict[str, Any],
        folder: str | None = None,
        left_out: Sequence[str] = MEASURED,
    ) -> Iterator[dict[str, float]]:
        """The metrics of each epoch, those of its speed and memory left out; a `folder` is continued."""
        gpu = ["resources.gpu=1"] if device == "cuda" else []
        frozen = [f"train.device={device}", "train.threads=1", "train.precision=fp32"]
        sets = [*self.overrides, *frozen, *gpu]
        loaded = load_spec(self.path, overrides=sets, declarations=declarations())
        spec = resolve_platform(loaded.spec)
        method, values = configured(spec, params, self.home)
        self._count += 1
        where = self.home / (folder or f"trial-{self._count}")
        home = self.home / device
        home.mkdir(exist_ok=True)
        objective = method.objective(values)
        for epoch in run_trial(spec, objective, values, home=home, folder=where):
            yield {name: value for name, value in epoch.metrics.items() if name not in left_out}


@contextmanager
def trials(source: str, method: str, arch: str, overrides: Sequence[str]) -> Iterator[Trials]:
    """Trials over `embedded` images or image `files`."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if source == "files":
            write_images(home / "images")
            text = FILES.format(method=method, root=home / "images", arch=arch)
        else:
            text = EMBEDDED.format(method=method)
            overrides = [f"train.epochs={EPOCHS}", "model.baseline.epochs=1", *overrides]
        yield Trials(home, text, overrides)


def compared(
    source: str, method: str, params: dict[str, Any], arch: str, overrides: Sequence[str]
) -> dict[str, Any]:
    """One trial on both devices: whether they agree, and what the GPU's would have suffered from."""
    torch.backends.mha.set_fastpath_enabled(False)  # evaluation's, which no tensor subclass takes
    with trials(source, method, arch, overrides) as both:
        on_cpu = list(both.epochs("cpu", params))
        there, waits = [], []
        with PretendedGpu() as gpu:
            for metrics in both.epochs("cuda", params):
                there.append(metrics)
                waits.append(Counter(str(wait) for wait in gpu.waits))
                gpu.waits.clear()
    return {
        "same": on_cpu == there,
        "on_cpu": on_cpu[-1],
        "there": there[-1],
        "waits": dict(waits[-1]),
        "faults": gpu.faults[:5],
        "pageable": gpu.pageable[:5],
    }
