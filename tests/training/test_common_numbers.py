"""Trials of one seed differ in what their parameters change, and in nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from lmoe_tune.data.batches import Batch
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.data.streams import StepDraws
from lmoe_tune.methods.objective import Objective, StepLoss
from lmoe_tune.model import build_model
from lmoe_tune.testing.methods import objective_of
from lmoe_tune.training.loop import Settings, train

SETTINGS = Settings(
    epochs=3,
    batch_size=20,  # of 72 images: the last batch has twelve
    lr=0.02,
    min_lr=1e-6,
    momentum=0.9,
    weight_decay=1e-3,
    bf16=False,
    seed=3,
)
TRIALS: list[tuple[str, dict[str, Any]]] = [
    ("baseline", {}),
    ("outlier_exposure", {"outlier_ratio": 0.3}),
    ("energy_oe", {"outlier_ratio": 1.2}),
    *[
        ("logit_mixoe", {"mixing_alpha": alpha, "outlier_ratio": ratio, "per": per})
        for alpha in (0.2, 5.0)
        for ratio in (0.05, 0.5, 1.0, 2.3)
        for per in ("batch", "sample")
    ],
    *[("mixoe", {"mixing": mixing, "outlier_ratio": 0.7}) for mixing in ("mixup", "cutmix")],
]


class Watched(Objective):
    """An objective that remembers what it was given in every step."""

    def __init__(self, objective: Objective) -> None:
        self._objective, self.outlier_ratio = objective, objective.outlier_ratio
        self.batches: list[Batch] = []
        self.uniforms: list[torch.Tensor] = []
        self.of_torch: list[float] = []

    def loss(self, model: nn.Module, batch: Batch, draws: StepDraws) -> StepLoss:
        self.of_torch.append(torch.rand(1).item())
        self.batches.append(batch)
        self.uniforms.append(draws.beta(1.0))  # the quantile of Beta(1, 1) is the number itself
        return self._objective.loss(model, batch, draws)


def watched(images: ImageSource, name: str, params: dict[str, Any], **changes: Any) -> Watched:
    torch.manual_seed(0)
    objective = Watched(objective_of(name, **params))
    model = build_model("small_cnn", 5, 1)
    list(train(model, objective, images, dataclasses.replace(SETTINGS, **changes)))
    return objective


@pytest.fixture(scope="module")
def most(tiny_images: ImageSource) -> Watched:
    """A trial with more slots than any other."""
    return watched(tiny_images, "logit_mixoe", {"outlier_ratio": 3.0})


@pytest.mark.parametrize(("name", "params"), TRIALS)
def test_every_slot_of_every_step_is_the_same_whatever_the_method_and_its_parameters(
    tiny_images: ImageSource, most: Watched, name: str, params: dict[str, Any]
) -> None:
    found = watched(tiny_images, name, params)
    assert len(found.batches) == len(most.batches) == 3 * 4
    assert {len(batch.images) for batch in found.batches} == {20, 12}
    assert len({len(batch.outliers) for batch in found.batches}) == 1
    assert found.of_torch == most.of_torch
    for a, b in zip(found.batches, most.batches, strict=True):
        slots = slice(len(a.outliers))
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.outliers, b.outliers[slots])
        assert torch.equal(a.pairs, b.pairs[slots])
    for mine, theirs in zip(found.uniforms, most.uniforms, strict=True):
        assert torch.equal(mine, theirs[: len(mine)])


def test_another_seed_shares_nothing(tiny_images: ImageSource, most: Watched) -> None:
    other = watched(tiny_images, "logit_mixoe", {"outlier_ratio": 3.0}, seed=4)
    assert set(other.of_torch).isdisjoint(most.of_torch)
    assert not any(torch.equal(a, b) for a, b in zip(other.uniforms, most.uniforms, strict=True))


def test_the_ratio_that_was_used_is_a_metric(tiny_images: ImageSource) -> None:
    for ratio, used in ((0.05, 0.1), (0.52, 0.5), (1.0, 1.0)):
        objective = objective_of("logit_mixoe", outlier_ratio=ratio)
        torch.manual_seed(0)
        results = train(build_model("small_cnn", 5, 1), objective, tiny_images, SETTINGS)
        assert next(results).metrics["outlier_ratio_used"] == used
