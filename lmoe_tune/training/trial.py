"""One trial, from its parameters to its last epoch: what runs in a worker, and in `lmoe-tune train`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lmoe_tune import checkpoint
from lmoe_tune.data import SearchData, load_search_data
from lmoe_tune.data.batches import Images
from lmoe_tune.errors import UsageError
from lmoe_tune.methods.objective import Objective
from lmoe_tune.model import build_model
from lmoe_tune.spec import DataSpec, Spec
from lmoe_tune.training.baseline import acquire_baseline
from lmoe_tune.training.loop import Settings, train
from lmoe_tune.training.watchdog import each_within


@dataclass(frozen=True)
class TrialEpoch:
    """One epoch's result as it goes into the records."""

    epoch: int
    metrics: dict[str, float]
    baseline: dict[str, float]
    """The metrics of the baseline that the trial started from."""
    baseline_key: str


def run_trial(
    spec: Spec, objective: Objective, params: Mapping[str, Any], *, home: Path, folder: Path
) -> Iterator[TrialEpoch]:
    """Train one trial, a checkpoint per epoch in `folder`; the checkpoint is there before the epoch is yielded.

    A trial that has checkpoints continues from the newest undamaged one. Its epoch is yielded again first:
    whoever keeps the records may have been killed before it heard of it, and recording is idempotent.

    Args:
        spec: with its platform resolved.
        objective: built from `params`, of which only `lr` and `weight_decay` are read here.
        home: where the baselines are kept.

    Raises:
        TrainingError: a non-finite loss, here or in the baseline.
    """
    device = _device(spec)
    torch.set_num_threads(spec.train.threads or 1)
    data = load_search_data(spec.data)
    images = _images_on(spec.data, device)
    baseline = acquire_baseline(spec, data, images, home)

    model = build_model(spec.model.arch, data.num_classes, data.in_channels)
    model.load_state_dict(baseline.model)
    settings = settings_of(spec, params)
    state = checkpoint.load_newest(folder)
    if state is not None:
        yield TrialEpoch(state["epoch"], state["metrics"], baseline.metrics, baseline.key)
    describes = describe_model(spec, data)
    epochs = train(model, objective, images, settings, state)
    for result in each_within(spec.resources.epoch_timeout, epochs):
        checkpoint.save(folder, result.epoch, result.state() | {"describes": describes})
        yield TrialEpoch(result.epoch, result.metrics, baseline.metrics, baseline.key)


def settings_of(spec: Spec, params: Mapping[str, Any]) -> Settings:
    """The training settings of a trial: the spec's, with what the trial's parameters say in their place."""
    assert spec.train.seed is not None, "the platform is not resolved"
    lr, weight_decay = params.get("lr"), params.get("weight_decay")
    return Settings(
        epochs=spec.train.epochs,
        batch_size=spec.train.batch_size,
        lr=spec.train.lr if lr is None else float(lr),
        min_lr=spec.train.min_lr,
        momentum=spec.train.momentum,
        weight_decay=spec.train.weight_decay if weight_decay is None else float(weight_decay),
        bf16=spec.train.precision == "bf16",
        seed=spec.train.seed,
        score=spec.objective.score,
    )


def describe_model(spec: Spec, data: SearchData) -> dict[str, Any]:
    """What is needed to use the weights alone: architecture, classes, and normalisation in 0-255."""
    return {
        "arch": spec.model.arch,
        "num_classes": data.num_classes,
        "in_channels": data.in_channels,
        "image_size": list(data.image_size),
        "classes": list(data.classes),
        "mean": list(data.mean),
        "std": list(data.std),
        "score": spec.objective.score,
    }


def _device(spec: Spec) -> torch.device:
    if spec.train.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "train.device is 'cuda', but this process sees no GPU; set train.device: cpu or check resources.gpu"
        )
    return torch.device(spec.train.device)


@lru_cache(maxsize=2)  # a reused worker process runs many trials on the same images
def _images_on(data: DataSpec, device: torch.device) -> Images:
    return Images(load_search_data(data), device)
