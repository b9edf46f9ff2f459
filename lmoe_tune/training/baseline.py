"""The shared baseline: trained once per content hash, resumable, and the start of every trial."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmoe_tune import checkpoint
from lmoe_tune.data import SearchData
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.durable import write_durably, writing
from lmoe_tune.errors import BaselineError, TrainingError
from lmoe_tune.methods.baseline import CrossEntropy
from lmoe_tune.model import build_model
from lmoe_tune.spec import Spec
from lmoe_tune.training.baseline_record import RECORD, baseline_folder, baseline_key
from lmoe_tune.training.epoch_timeout import each_within
from lmoe_tune.training.loop import Settings, evaluate, train
from lmoe_tune.training.memory import SET_FOR_THE_BASELINE, explained
from lmoe_tune.weights import load_weights


@dataclass(frozen=True)
class Baseline:
    """The trained classifier that all trials start from."""

    key: str
    model: dict[str, torch.Tensor]
    metrics: dict[str, float]


def acquire_baseline(spec: Spec, data: SearchData, images: ImageSource, home: Path) -> Baseline:
    """Load the baseline; its missing epochs are trained first.

    Several processes may call this at once: one trains, the others wait for it. Training that was
    killed half-way continues from its last epoch.

    Raises:
        BaselineError: it cannot be trained.
        UsageError: the weights that it starts from cannot be used.
    """
    key = baseline_key(spec, data.fingerprint)
    folder = baseline_folder(home, key)
    epochs = spec.model.baseline.epochs
    state = checkpoint.load_newest(folder)
    if state is None or state["epoch"] < epochs or not _record_agrees(folder, state):
        with _locked(folder):
            state = checkpoint.load_newest(folder)  # another process may have finished it meanwhile
            if state is None or state["epoch"] < epochs:
                state = _train_baseline(spec, data, images, key, folder, state)
            if not _record_agrees(folder, state):  # a kill between the checkpoint and its record
                write_durably(folder / RECORD, state["record"].encode())
    return Baseline(key, state["model"], state["metrics"])


def _train_baseline(
    spec: Spec,
    data: SearchData,
    images: ImageSource,
    key: str,
    folder: Path,
    state: dict[str, Any] | None,
) -> dict[str, Any]:
    training = spec.model.baseline
    assert spec.train.seed is not None, "the platform is not resolved"
    torch.manual_seed(spec.train.seed)
    channels, size, _ = data.image_shape
    model = build_model(spec.model.arch, data.num_classes, channels, size)
    if state is None:
        is_baseline = training.epochs == 0
        load_weights(
            model, spec.model.arch, spec.model.weights, image_size=size, with_head=is_baseline
        )
    settings = Settings(
        epochs=training.epochs,
        batch_size=training.batch_size,
        lr=training.lr,
        min_lr=spec.train.min_lr,
        momentum=spec.train.momentum,
        weight_decay=training.weight_decay,
        bf16=spec.train.precision == "bf16",
        compile=bool(spec.train.compile),
        seed=spec.train.seed,
        score=spec.objective.score,
    )
    record: dict[str, Any] = {
        "key": key,
        "state": "running",
        "params": {"arch": spec.model.arch, **training.model_dump(mode="json")},
        "started_ms": time.time_ns() // 1_000_000,
        "epochs": [],
    }
    if state is not None:
        record = json.loads(state["record"])
    try:
        with explained(images.device, SET_FOR_THE_BASELINE):
            if training.epochs == 0:  # the user's classifier, kept like one that was trained here
                model.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in loop.train
                metrics = evaluate(model, images, settings, epoch=0)
                state = {"epoch": 0, "model": model.state_dict()}
                state |= _with_epoch(record, 0, metrics, last=0)
                checkpoint.save(folder, 0, state)
                return state

            with checkpoint.Writer(folder) as writer:
                epochs = train(
                    model, CrossEntropy(), images, settings, state, on_trained=writer.begin
                )
                for result in each_within(spec.resources.epoch_timeout, epochs):
                    late = _with_epoch(record, result.epoch, result.metrics, last=training.epochs)
                    writer.finish(late)
                    write_durably(folder / RECORD, late["record"].encode())
                    state = result.state() | late
    except TrainingError as error:
        raise BaselineError(
            f"the baseline cannot be trained: {error} (model.baseline in the spec)"
        ) from error
    assert state is not None, "a baseline of no epochs"
    return state


def _with_epoch(
    record: dict[str, Any], epoch: int, metrics: Mapping[str, float], *, last: int
) -> dict[str, Any]:
    """What a checkpoint has beside the weights: the epoch's metrics, and the record with that epoch."""
    now_ms = time.time_ns() // 1_000_000
    record["epochs"].append({"epoch": epoch, "metrics": metrics, "time_ms": now_ms})
    record["state"] = "complete" if epoch == last else "running"
    return {"metrics": metrics, "record": json.dumps(record, indent=1)}


def _record_agrees(folder: Path, state: dict[str, Any]) -> bool:
    try:
        return bool((folder / RECORD).read_bytes() == state["record"].encode())
    except OSError:
        return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = folder / "lock"
    with writing(lock):
        folder.mkdir(parents=True, exist_ok=True)
        file = lock.open("w", encoding="utf-8")
    with file:
        with writing(lock):
            fcntl.flock(file, fcntl.LOCK_EX)  # the kernel releases it if we are killed
        yield
