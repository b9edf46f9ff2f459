"""What every method's objective must do, run over all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lmoe_tune.data.batches import Batch
from lmoe_tune.methods.objective import Objective
from lmoe_tune.model import SmallCNN
from lmoe_tune.spec import SHARED_PARAMETERS, Parameter
from trainables import METHODS, load_method

SHARED = {parameter.name for parameter in SHARED_PARAMETERS}


def examples(parameter: Parameter) -> list[Any]:
    """A few values that a parameter may take: all choices, the ends of a range, and something within."""
    if parameter.kind == "choice":
        return list(parameter.choices)
    if parameter.kind == "bool":
        return [False, True]
    low = 0.0 if parameter.low is None else parameter.low
    high = low + 3.0 if parameter.high is None else parameter.high
    first = low + 0.05 * (high - low) if parameter.low_exclusive else low
    values = [first, (low + high) / 2, high]
    return [round(value) for value in values] if parameter.kind == "int" else values


VALUES = [
    (name, parameter.name, value)
    for name in METHODS
    for parameter in load_method(name).declaration.parameters
    for value in examples(parameter)
]


def objective_of(name: str, **params: Any) -> Objective:
    method = load_method(name)
    return method.objective(method.declaration.resolve(params))


def batch(size: int = 6, num_outliers: int = 4, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randn(size, 1, 8, 8, generator=generator).to(dtype),
        labels=torch.arange(size) % 5,
        outliers=torch.randn(num_outliers, 1, 8, 8, generator=generator).to(dtype),
        pairs=torch.arange(num_outliers) % size,
    )


def network() -> nn.Module:
    torch.manual_seed(0)
    return SmallCNN(num_classes=5, in_channels=1).train()


def batch_for(objective: Objective, **settings: Any) -> Batch:
    return batch(**settings) if objective.outlier_ratio > 0 else batch(num_outliers=0, **settings)


def assert_sound(objective: Objective, data: Batch) -> None:
    model = network()
    found = objective.loss(model, data, np.random.default_rng(0))
    assert found.total.shape == ()
    assert found.total.isfinite()
    assert found.total.dtype == torch.float32
    assert "id_loss" in found.logged
    for term, value in found.logged.items():
        assert value.shape == (), term
        assert value.isfinite(), term
        assert not value.requires_grad, term
        assert value.dtype == torch.float32, term
    found.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_a_finite_scalar_that_reaches_every_weight(name: str) -> None:
    objective = objective_of(name)
    assert_sound(objective, batch_for(objective))


@pytest.mark.parametrize(("name", "parameter", "value"), VALUES)
def test_it_is_sound_at_every_value_of_every_parameter(name: str, parameter: str, value: Any) -> None:
    objective = objective_of(name, **{parameter: value})
    assert_sound(objective, batch_for(objective))


@pytest.mark.parametrize(("name", "parameter", "value"), VALUES)
def test_a_declared_parameter_reaches_the_objective(name: str, parameter: str, value: Any) -> None:
    assert getattr(objective_of(name, **{parameter: value}), parameter) == value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "parameter", "value"), [(name, None, None) for name in METHODS] + VALUES)
def test_under_bf16_autocast_the_losses_stay_in_fp32(
    name: str, parameter: str | None, value: Any, dtype: torch.dtype
) -> None:
    objective = objective_of(name, **({parameter: value} if parameter else {}))
    with torch.autocast("cpu", torch.bfloat16):
        assert_sound(objective, batch_for(objective, dtype=dtype))


@pytest.mark.parametrize("name", METHODS)
def test_bf16_gives_nearly_the_loss_of_fp32(name: str) -> None:
    objective, exact = objective_of(name), objective_of(name)
    data = batch_for(objective)
    expected = exact.loss(network(), data, np.random.default_rng(0)).total.item()
    with torch.autocast("cpu", torch.bfloat16):
        found = objective.loss(network(), data, np.random.default_rng(0)).total.item()
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_declared_is_what_the_objective_has(name: str) -> None:
    declared = {parameter.name for parameter in load_method(name).declaration.parameters} - SHARED
    objective = objective_of(name)
    fields = {field.name for field in dataclasses.fields(objective)} if declared else set()
    assert fields == declared


@pytest.mark.parametrize("name", METHODS)
def test_the_declared_defaults_are_those_of_the_objective(name: str) -> None:
    assert vars(objective_of(name)) == vars(type(objective_of(name))())


@pytest.mark.parametrize("name", METHODS)
def test_outliers_are_drawn_where_they_are_needed_and_only_there(name: str) -> None:
    needs_outliers = load_method(name).declaration.needs_outliers
    assert (objective_of(name).outlier_ratio > 0) == needs_outliers


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_repeatable_and_leaves_the_batch_alone(name: str) -> None:
    objective = objective_of(name)
    data, untouched = batch_for(objective), batch_for(objective)
    first, second = (objective.loss(network(), data, np.random.default_rng(1)).total for _ in range(2))
    assert torch.equal(first, second)
    for field, value in vars(data).items():
        assert torch.equal(value, getattr(untouched, field)), field


@pytest.mark.parametrize("name", METHODS)
def test_large_inputs_do_not_overflow(name: str) -> None:
    objective = objective_of(name)
    data = batch_for(objective)
    data = dataclasses.replace(data, images=data.images * 1e4, outliers=data.outliers * 1e4)
    assert_sound(objective, data)


@pytest.mark.parametrize("name", METHODS)
def test_a_few_steps_lower_the_loss(name: str) -> None:
    objective, model = objective_of(name), network()
    data = batch_for(objective)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        found = objective.loss(model, data, np.random.default_rng(1))
        optimizer.zero_grad()
        found.total.backward()
        optimizer.step()
        losses.append(found.total.item())
    assert losses[-1] < 0.8 * losses[0]
