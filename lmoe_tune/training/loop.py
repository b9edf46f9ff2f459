"""The training loop: one epoch per `next()`.

N images, K classes, T logged terms, S steps of an epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from lmoe_tune.data.batches import PairedBatches
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.errors import DivergedError, TrainingError
from lmoe_tune.evaluation import Outputs, ScoreName, outputs, validation_metrics
from lmoe_tune.methods.objective import NO_GRADIENT, Objective, StepLoss, checked
from lmoe_tune.training.host_copy import on_host
from lmoe_tune.training.memory import count_peak_from_here, peak_metrics
from lmoe_tune.training.optimizer import NesterovSGD

EVALUATION_BATCH = 512  # images per forward without gradients


@dataclass(frozen=True)
class Settings:
    """How to train: SGD with Nesterov momentum and a cosine per step from `lr` to `min_lr`."""

    epochs: int
    batch_size: int
    lr: float
    min_lr: float
    momentum: float
    weight_decay: float
    bf16: bool
    """Autocast of the forward to bfloat16; weights, head, losses and optimizer stay in fp32."""
    seed: int
    score: ScoreName = "msp"
    compile: bool = False
    """torch.compile of the network's forward and backward in full batches; validation stays as it
    is.
    """


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch; `state()` is everything needed to continue from here, bit for bit.

    On a CPU it holds the live tensors: save it before the next epoch is asked for. After the last
    epoch it has no optimizer state.
    """

    epoch: int
    """From 1."""
    metrics: dict[str, float]
    state: Callable[[], dict[str, Any]]
    validation: Outputs
    """What was kept of the logits of all validation images, on the device."""


def train(
    model: nn.Module,
    objective: Objective,
    images: ImageSource,
    settings: Settings,
    state: Mapping[str, Any] | None = None,
    on_trained: Callable[[int, dict[str, Any]], None] | None = None,
) -> Iterator[EpochResult]:
    """Train `model` in place, one epoch per `next()`; with a `state`, from the epoch after it.

    Args:
        on_trained: gets each epoch and the state after its steps, without metrics, before the epoch
            is evaluated; on a CPU these are the live tensors, which the next epoch changes.

    Raises:
        DivergedError: a loss term or the validation logits are not finite; names the epoch and the
            term.
        TrainingError: the objective gives no loss that can be trained on, or other terms than in
            the first step.
    """
    batches = PairedBatches(
        images,
        batch_size=settings.batch_size,
        outlier_ratio=objective.outlier_ratio,
        seed=settings.seed,
    )
    model.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = NesterovSGD(
        model.parameters(), momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    first_epoch = 1
    if state is not None:
        first_epoch = state["epoch"] + 1
        model.load_state_dict(state["model"])
        if "optimizer" in state:  # not after the last epoch
            optimizer.load_state_dict(state["optimizer"])

    compiled = model
    if settings.compile:
        compiled = cast(nn.Module, torch.compile(model, dynamic=False))
    names: list[str] = []
    num_steps = batches.steps_per_epoch * settings.epochs
    for epoch in range(first_epoch, settings.epochs + 1):
        started, num_images = time.perf_counter(), 0
        model.train()
        count_peak_from_here(images.device)
        rows_T: list[Tensor] = []
        draws, steps_before = batches.draws(epoch), (epoch - 1) * batches.steps_per_epoch
        for step, batch in enumerate(batches.epoch(epoch)):
            lr = cosine(steps_before + step, num_steps, settings.lr, settings.min_lr)
            draws.seed_torch(step)  # dropout and the like
            # Compiling a short last batch, too, would take as long as thousands of steps.
            network = compiled if len(batch.images) == settings.batch_size else model
            with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.bf16):
                loss = checked(objective.loss(network, batch, draws.at(step)))
            names = names or list(loss.logged)
            _refuse_other_terms(loss, names)
            optimizer.zero_grad()
            loss.total.backward()  # type: ignore[no-untyped-call]
            is_first = not (steps_before or step)
            if is_first and all(parameter.grad is None for parameter in model.parameters()):
                raise TrainingError(NO_GRADIENT)
            optimizer.step(lr)
            rows_T.append(
                torch.stack([loss.total.detach(), *(loss.logged[name] for name in names)])
            )
            num_images += len(batch.images) + len(batch.outliers)
        terms_ST = torch.stack(rows_T).cpu()  # GPU sync: once per epoch only
        columns = ["loss", *names]
        _refuse_non_finite(terms_ST, columns, epoch, has_outliers=batches.num_slots > 0)
        train_s = time.perf_counter() - started
        metrics = {
            f"train_{name}": mean
            for name, mean in zip(columns, terms_ST.mean(0).tolist(), strict=True)
        }

        def trained(epoch: int = epoch) -> dict[str, Any]:
            found: dict[str, Any] = {"epoch": epoch, "model": on_host(model.state_dict())}
            if epoch < settings.epochs:
                found["optimizer"] = optimizer.state_dict()
            return found

        if on_trained is not None:
            on_trained(epoch, trained())
        validation = validate(model, images, settings, epoch)
        metrics |= validation_metrics(validation, images.val_labels, images.num_val_fine)
        metrics["lr"] = lr
        if batches.num_slots:
            metrics["outlier_ratio_used"] = batches.outlier_ratio
        metrics |= peak_metrics(images.device)
        metrics["images_per_s"] = num_images / train_s
        metrics["epoch_s"] = time.perf_counter() - started

        def snapshot(epoch: int = epoch, metrics: dict[str, float] = metrics) -> dict[str, Any]:
            return trained(epoch) | {"metrics": metrics}

        yield EpochResult(epoch, metrics, snapshot, validation)


def cosine(step: int, num_steps: int, lr: float, min_lr: float) -> float:
    """Learning rate of `step` (from 0) out of `num_steps`: a half cosine from `lr` to `min_lr`."""
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * step / max(1, num_steps - 1)))


def evaluate(
    model: nn.Module, images: ImageSource, settings: Settings, epoch: int
) -> dict[str, float]:
    """Validation metrics of the model as it is now."""
    found = validate(model, images, settings, epoch)
    return validation_metrics(found, images.val_labels, images.num_val_fine)


@torch.inference_mode()
def validate(model: nn.Module, images: ImageSource, settings: Settings, epoch: int) -> Outputs:
    """The outputs for all validation images: one pass through the network, on the device.

    Raises:
        DivergedError: the logits are not finite.
    """
    model.eval()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.bf16):
        found = outputs(
            (model(chunk).float() for chunk in images.val_chunks(EVALUATION_BATCH)), settings.score
        )
    if not found.finite:
        raise DivergedError(
            f"epoch {epoch}: the validation logits are not finite; try a smaller lr"
        )
    return found


def _refuse_other_terms(loss: StepLoss, names: list[str]) -> None:
    if len(loss.logged) != len(names) or not all(name in loss.logged for name in names):
        raise TrainingError(
            f"the loss has the terms {', '.join(loss.logged)}, but had {', '.join(names)} in the first "
            "step; a term that does not apply can be 0"
        )


def _refuse_non_finite(
    terms_ST: Tensor, names: list[str], epoch: int, *, has_outliers: bool
) -> None:
    bad = ~terms_ST.isfinite()
    if not bad.any():
        return
    step = int(bad.any(dim=1).nonzero()[0])
    terms = [name for name, is_bad in zip(names, bad[step].tolist(), strict=True) if is_bad]
    term = next(
        (name for name in terms if name != "loss"), "loss"
    )  # the total only follows its terms
    advice = "try a smaller lr or smaller loss weights"
    if epoch == 1 and step == 0 and not has_outliers:
        advice = "the method says needs_outliers=False, so its batches have none: does its loss read them?"
    raise DivergedError(
        f"epoch {epoch}, step {step + 1}: train_{term} is {terms_ST[step, names.index(term)].item()}; {advice}"
    )
