"""What a sweep will roughly cost, before anything is trained: `lmoe-tune check` prints it.

A model, not a measurement: the network's arithmetic for the images that the spec trains on, at the
speed of a matrix product that is timed here. It is there to tell hours from weeks. What trials
really take is known once the baseline is trained; `search --dry-run` goes by that.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmoe_tune.errors import UsageError
from lmoe_tune.readers import READERS
from lmoe_tune.readers.recognition import find_layout
from lmoe_tune.spec import Spec
from lmoe_tune.spec.outliers import mean_outlier_ratio
from lmoe_tune.sweep.nodes import Capacity, slots_of
from lmoe_tune.sweep.readiness import num_gpus
from lmoe_tune.wording import counted

FORWARD_GFLOP = {
    "resnet18": 3.6, "resnet34": 7.3, "resnet50": 8.2, "convnext_tiny": 8.9, "vit_b_16": 35.0,
}  # fmt: skip
"""Forward pass of one image of 224 x 224 pixels (torchvision's documentation gives multiply-adds,
half of these).
"""
SMALL_CNN_GFLOP = 3.6e-3 / 64  # per pixel
BACKWARD = 2.0  # times the forward pass
STEP_S = 0.02  # of a step besides arithmetic: data, optimiser, Python
CPU_SHARE = 0.4  # of the speed of a matrix product that training reaches
GPU_FLOPS = 20e12  # what training reaches on a mid-range GPU, such as an RTX 3090
NUM_DIGITS, DIGITS_SIDE = 1797, 8


@dataclass(frozen=True)
class Cost:
    """An estimate: good for telling hours from weeks."""

    hours: float
    """Baseline and all trials, without pruning."""
    images: int
    """Images that are trained on, about."""
    trials: int | None
    """None: as many as the budget allows; then `hours` are those of one trial and the baseline."""
    gpu_hours: float
    """GPU-hours that are reserved for that: the slots that wait for the baseline hold theirs. 0 on
    CPUs.
    """
    device: str
    """What it was estimated for, in words."""


def estimate(spec: Spec, points: int | None = None) -> Cost | None:
    """What a sweep of this spec costs on this machine; None if its images cannot be counted.

    Args:
        points: of a finite space, none of which is trained twice.
    """
    images = _num_images(spec)
    if images is None:
        return None

    data, baseline = spec.data, spec.model.baseline
    reader = READERS[data.id.dataset]
    classes = reader.num_classes
    if classes is None or reader.num_id_classes is None:
        id_share = 0.75
    else:
        id_share = reader.num_id_classes / classes
    train = max(
        1, round(images * id_share * 0.9 * 0.6)
    )  # without the held-out classes; train / val / test
    side = DIGITS_SIDE if reader.is_embedded else data.image_crop
    forward = _forward_flop(spec.model.arch, side)
    step = forward * (1 + BACKWARD)

    # A spec that asks for GPUs will run where there is one at least.
    share, cores, gpus = spec.resources.gpu, os.cpu_count() or 1, max(1, num_gpus())
    slots = max(1, slots_of([Capacity(cores, gpus)], spec.resources, spec.search.max_concurrent))
    if share > 0:
        baseline_speed, speed = GPU_FLOPS, GPU_FLOPS * min(gpus, math.ceil(slots * share))
        device = f"{counted(gpus, 'mid-range GPU')} (20 TFLOP/s in training)"
    else:
        speed = CPU_SHARE * _matmul_flops()
        baseline_speed = speed * min(1.0, spec.resources.cpu / cores)
        device = f"this machine's {cores} CPU cores"
    per_image = 1.0
    if data.outliers is not None:  # one goes through the network alone and mixed in
        per_image += 2 * mean_outlier_ratio(spec)
    trial_flop = spec.train.epochs * train * (step * per_image + forward)
    trial_s = trial_flop / speed + _overhead_s(
        spec.train.epochs, train, spec.train.batch_size, slots
    )
    # One slot trains it, and all others wait.
    baseline_s = baseline.epochs * train * (step + forward) / baseline_speed
    baseline_s += _overhead_s(baseline.epochs, train, baseline.batch_size, 1)

    planned = spec.budget.trials
    if points is not None:
        planned = min(points, planned or points)
    trials = planned or 1
    hours = (baseline_s + trial_s * trials) / 3600
    reserved_s = baseline_s * min(slots, trials) + trial_s * slots * trials
    return Cost(hours, train, planned, share * reserved_s / 3600, device)


def in_words(cost: Cost, spec: Spec) -> str:
    """The estimate on one line."""
    if cost.trials:
        trials = counted(cost.trials, "trial")
    else:
        trials = "one trial"
    reserved = ""
    if cost.gpu_hours:
        reserved = f", {cost.gpu_hours:,.2g} GPU-hours reserved (waiting for the baseline included)"
    return (
        f"about {_hours(cost.hours)} on {cost.device}{reserved}, without pruning: a baseline of "
        f"{spec.model.baseline.epochs} epochs and {trials} of {spec.train.epochs}, on some "
        f"{cost.images:,} images. A rough model (within a factor of 3), not a measurement"
    )


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    if hours < 72:
        return f"{hours:.2g} h"
    return f"{hours / 24:,.0f} days ({hours:,.0f} h)"


def _num_images(spec: Spec) -> int | None:
    """Images of the in-distribution set, by its lists or file names; None if it cannot be read."""
    dataset = spec.data.id
    if READERS[dataset.dataset].is_embedded:
        return NUM_DIGITS

    try:
        folder = Path(dataset.root or "")
        reading = find_layout(dataset.dataset, folder).read(folder)
    except (UsageError, OSError):
        return None

    return min(len(reading.entries), dataset.limit or len(reading.entries))


def _forward_flop(arch: str, side: int) -> float:
    if arch == "small_cnn":
        return 1e9 * SMALL_CNN_GFLOP * side**2
    return 1e9 * FORWARD_GFLOP.get(arch, FORWARD_GFLOP["resnet50"]) * (side / 224) ** 2


def _overhead_s(epochs: int, images: int, batch: int, slots: int) -> float:
    return epochs * -(-images // batch) * STEP_S / slots


def _matmul_flops(side: int = 768) -> float:
    """Floating-point operations a second of a matrix product on all cores, the best of three.

    By the processor's time and not the clock's, so that what else runs here changes little.
    """
    left = np.ones((side, side), np.float32)
    best = float("inf")

    for _ in range(3):
        started = time.process_time()
        left @ left
        best = min(best, time.process_time() - started)

    return 2 * side**3 / max(best, 1e-4) * (os.cpu_count() or 1)
