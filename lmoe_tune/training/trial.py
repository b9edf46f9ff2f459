"""One trial, from its parameters to its last epoch: what runs in a worker, and in
`lmoe-tune train`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmoe_tune import checkpoint
from lmoe_tune.data import SearchData, load_search_data
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.description import KEY, ModelDescription
from lmoe_tune.errors import TrainingError, UsageError
from lmoe_tune.evaluation import Outputs
from lmoe_tune.methods.objective import Objective
from lmoe_tune.model import build_model
from lmoe_tune.placements import placements_of
from lmoe_tune.spec import DataSpec, Spec
from lmoe_tune.training.allocator import keep_freed_memory
from lmoe_tune.training.baseline import Baseline, acquire_baseline
from lmoe_tune.training.baseline_record import baseline_key
from lmoe_tune.training.epoch_timeout import each_within
from lmoe_tune.training.loop import Settings, train
from lmoe_tune.training.memory import SET_FOR_A_TRIAL, explained
from lmoe_tune.training.platform import lacking_compiler

Load = Callable[[DataSpec, Path], SearchData]
"""Loads the images to train on and to validate with."""


@dataclass(frozen=True)
class Trained:
    """A model after its last epoch, on the device of the images."""

    model: torch.nn.Module
    images: ImageSource
    describes: ModelDescription


@dataclass(frozen=True)
class TrialEpoch:
    """One epoch's result as it goes into the records."""

    epoch: int
    metrics: dict[str, float]
    baseline: dict[str, float]
    """The metrics of the baseline that the trial started from."""
    baseline_key: str


def run_trial(
    spec: Spec,
    objective: Objective,
    params: Mapping[str, Any],
    *,
    home: Path,
    folder: Path,
    num_recorded: int | None = None,
    load: Load | None = None,
    at_end: Callable[[Trained], Mapping[str, float]] | None = None,
) -> Iterator[TrialEpoch]:
    """Train one trial, with a checkpoint per epoch in `folder`, written before the epoch is
    yielded.

    A trial that has checkpoints continues from the newest undamaged one. Its epoch is yielded again
    first: the driver may have been killed before it recorded that epoch, and recording is
    idempotent.

    `resources.epoch_timeout` ends the process: it is for workers.

    Args:
        spec: with its platform resolved.
        objective: built from `params`, of which only `lr` and `weight_decay` are read here.
        home: where the baselines and the decoded images are kept.
        num_recorded: epochs in the records; a checkpoint beyond the next one is left alone, as
            those between would be missing. None: there are no records to agree with.
        load: gives the images; None: `load_search_data`, those that a search may see.
        at_end: measures the trained model, and again if a trial killed at its end is continued; its
            result joins the metrics of the last epoch.

    Raises:
        TrainingError: a non-finite loss, here or in the baseline; or a metric that the objective
            needs is missing.
        DeviceMemoryError: the GPU's memory does not suffice.
        StorageError: a checkpoint cannot be written.
    """
    device = device_of(spec)
    _prepare_process(spec, home)
    load = load or load_search_data
    data = load(spec.data, home)
    channels, size, _ = data.image_shape
    threads = spec.train.threads or 1
    images = _images_on(load, spec.data, device, home, threads)
    baseline = _baseline_of(spec, data, images, home)

    model = build_model(spec.model.arch, data.num_classes, channels, size)
    model.load_state_dict(baseline.model)
    settings = settings_of(spec, params)
    describes = describe_model(spec, data, images)

    def recorded(epoch: int, metrics: dict[str, float]) -> TrialEpoch:
        if at_end is not None and epoch == settings.epochs:
            model.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in loop.train
            metrics = metrics | dict(at_end(Trained(model, images, describes)))
        return TrialEpoch(epoch, metrics, baseline.metrics, baseline.key)

    state = checkpoint.load_newest(folder, up_to=None if num_recorded is None else num_recorded + 1)
    with explained(device, SET_FOR_A_TRIAL):
        if state is not None:
            model.load_state_dict(state["model"])
            yield recorded(state["epoch"], state["metrics"])

        with checkpoint.Writer(folder) as writer:

            def keep(epoch: int, weights: dict[str, Any]) -> None:
                # With what the weights need, so that torch alone can use them.
                writer.begin(epoch, weights | {KEY: describes.document()})

            epochs = train(model, objective, images, settings, state, on_trained=keep)
            for result in each_within(spec.resources.epoch_timeout, epochs):
                _refuse_lacking(result.metrics, spec)
                if load is load_search_data and result.epoch == settings.epochs:
                    _keep_placements(result.validation, images, folder.parent)
                writer.finish({"metrics": result.metrics})
                yield recorded(result.epoch, result.metrics)


def _keep_placements(found: Outputs, images: ImageSource, folder: Path) -> None:
    """Keep the data to compare this trial's AUROCs with another's, before its last checkpoint is
    written.
    """
    scores, num_known = found.scores.cpu().numpy(), len(images.val_labels)
    num_seen = num_known + images.num_val_fine
    novel = {"fine": scores[num_known:num_seen], "coarse": scores[num_seen:]}
    placements_of(scores[:num_known], novel).save(folder)


def _refuse_lacking(metrics: Mapping[str, float], spec: Spec) -> None:
    for name in (*spec.objective.metrics, *spec.objective.constraints):
        if name not in metrics:
            raise TrainingError(
                f"the trial gave no '{name}', which the objective needs; it gave {', '.join(metrics)}"
            )


def settings_of(spec: Spec, params: Mapping[str, Any]) -> Settings:
    """The training settings of a trial: the spec's, overridden by the trial's parameters."""
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
        compile=bool(spec.train.compile),
    )


def describe_model(spec: Spec, data: SearchData, images: ImageSource) -> ModelDescription:
    """What is needed to use the weights alone."""
    assert spec.train.precision != "auto", "the platform is not resolved"
    return ModelDescription(
        arch=spec.model.arch,
        classes=data.classes,
        score=spec.objective.score,
        precision=spec.train.precision,
        preprocessing=images.preprocessing,
    )


def device_of(spec: Spec) -> torch.device:
    """The device to train on. Raises UsageError if it cannot be used as the spec says."""
    if spec.train.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "train.device is 'cuda', but this process sees no GPU; set train.device: cpu or check resources.gpu"
        )
    device = torch.device(spec.train.device)
    if device.type == "cuda" and spec.train.precision == "bf16":
        capability = torch.cuda.get_device_capability(device)
        if capability < (8, 0):
            name = torch.cuda.get_device_name(device)
            raise UsageError(
                f"train.precision is 'bf16', but {name} has no bf16 (its compute capability is "
                f"{capability[0]}.{capability[1]}, bf16 needs 8.0); set train.precision: fp32"
            )
    lacking = lacking_compiler(device.type) if spec.train.compile else None
    if lacking is not None:
        raise UsageError(
            f"train.compile is on, but {lacking}, which torch.compile needs; install one or set "
            "train.compile: false"
        )
    return device


def _prepare_process(spec: Spec, home: Path) -> None:
    """Threads, memory, rounding, and where compiled code is kept: the same for all trials of a
    sweep.
    """
    torch.set_num_threads(spec.train.threads or 1)
    keep_freed_memory()
    # Not `fp32_precision`: torch.export reads `allow_tf32`, which raises once that was set.
    torch.backends.cuda.matmul.allow_tf32 = spec.train.tf32
    torch.backends.cudnn.allow_tf32 = spec.train.tf32
    torch.backends.cudnn.deterministic = True  # costs nothing measurable: decision 0018
    if spec.train.compile:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home.resolve() / "compiled"))


def settings_of_torch() -> Callable[[], None]:
    """What `_prepare_process` sets of torch, as it is now; to be called to have it so again."""
    backends = torch.backends
    threads, deterministic = torch.get_num_threads(), backends.cudnn.deterministic
    tf32 = [(library, *_tf32_of(library)) for library in (backends.cuda.matmul, backends.cudnn)]

    def put_back() -> None:
        torch.set_num_threads(threads)
        backends.cudnn.deterministic = deterministic
        for library, name, value in tf32:
            setattr(library, name, value)

    return put_back


def _tf32_of(library: Any) -> tuple[str, Any]:
    """The setting and its value; the older one cannot be read where the newer one was set."""
    try:
        return "allow_tf32", library.allow_tf32
    except RuntimeError:
        return "fp32_precision", library.fp32_precision


_held: dict[tuple[Any, ...], ImageSource] = {}
"""The images that this process has open: a reused worker runs many trials on the same ones."""


def _images_on(
    load: Load, spec: DataSpec, device: torch.device, home: Path, threads: int
) -> ImageSource:
    key = (load, spec, device, home, threads)
    if key not in _held:
        _held.clear()  # first, so that a GPU need not have room for both
        _held[key] = ImageSource(load(spec, home), device, home, threads=threads)
    return _held[key]


_held_baseline: dict[tuple[Path, str], Baseline] = {}
"""The baseline that this process has read: its file is read and hashed once, not for each trial."""


def _baseline_of(spec: Spec, data: SearchData, images: ImageSource, home: Path) -> Baseline:
    key = home, baseline_key(spec, data.fingerprint)
    if key not in _held_baseline:
        _held_baseline.clear()
        _held_baseline[key] = acquire_baseline(spec, data, images, home)
    return _held_baseline[key]
