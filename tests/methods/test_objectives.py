"""What every method's objective must do, run over all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lmoe_tune.data.batches import Batch, Images, PairedBatches
from lmoe_tune.methods.objective import Objective
from lmoe_tune.model import SmallCNN
from lmoe_tune.spec import METRICS, SHARED_PARAMETERS, Parameter
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
def test_it_is_sound_at_every_value_of_every_parameter(
    name: str, parameter: str, value: Any
) -> None:
    objective = objective_of(name, **{parameter: value})
    assert_sound(objective, batch_for(objective))


@pytest.mark.parametrize(("name", "parameter", "value"), VALUES)
def test_a_declared_parameter_reaches_the_objective(name: str, parameter: str, value: Any) -> None:
    assert getattr(objective_of(name, **{parameter: value}), parameter) == value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "parameter", "value"), [(name, None, None) for name in METHODS] + VALUES
)
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
    first, second = (
        objective.loss(network(), data, np.random.default_rng(1)).total for _ in range(2)
    )
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


# --- the logged terms, and what they cost ---

TERMS = {
    "logit_mixoe": {
        "mix_weight": "mix_loss",
        "consistency_weight": "consistency_loss",
        "outlier_weight": "outlier_loss",
    },
    "mixoe": {"mix_weight": "mix_loss"},
    "outlier_exposure": {"outlier_weight": "outlier_loss"},
    "energy_oe": {"energy_weight": "energy_loss"},
    "baseline": {},
}
"""Of every method: which weight belongs to which term."""


class Counted(nn.Module):
    """The network, and how many rows each of its forwards had."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.rows = network(), list[int]()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(images))
        logits: torch.Tensor = self.network(images)
        return logits


def batched(name: str, mode: str, **params: Any) -> Objective:
    """The objective with a BatchNorm mode, where the method has any."""
    has_mode = "batch_norm" in {
        parameter.name for parameter in load_method(name).declaration.parameters
    }
    return objective_of(name, **params, **({"batch_norm": mode} if has_mode else {}))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_which_terms_its_weights_belong_to(name: str) -> None:
    parameters = load_method(name).declaration.parameters
    assert set(TERMS[name]) == {
        parameter.name for parameter in parameters if parameter.name.endswith("_weight")
    }


@pytest.mark.parametrize("name", METHODS)
def test_what_is_logged_is_a_metric_of_the_records(name: str) -> None:
    found = objective_of(name, **dict.fromkeys(TERMS[name], 1.0)).loss(
        network(), batch(), np.random.default_rng(0)
    )
    assert set(found.logged) == {"id_loss", *TERMS[name].values()} | (
        {"margin"} if name == "logit_mixoe" else set()
    )
    assert {f"train_{term}" for term in found.logged} <= set(METRICS)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_the_weighted_sum_of_its_terms(name: str) -> None:
    weights = {weight: 0.3 + 0.4 * place for place, weight in enumerate(TERMS[name])}
    found = objective_of(name, **weights).loss(network(), batch(), np.random.default_rng(0))
    expected = found.logged["id_loss"] + sum(
        value * found.logged[TERMS[name][key]] for key, value in weights.items()
    )
    torch.testing.assert_close(found.total.detach(), expected)


@pytest.mark.parametrize("mode", ["joint", "separate", "frozen"])
@pytest.mark.parametrize("name", METHODS)
def test_without_its_weights_a_method_is_the_baseline_and_costs_no_more(
    name: str, mode: str
) -> None:
    model = Counted()
    objective = batched(name, mode, **dict.fromkeys(TERMS[name], 0.0))
    found = objective.loss(model, batch(), np.random.default_rng(0))
    assert model.rows == [6]
    assert set(found.logged) == {"id_loss"}
    if mode != "frozen":
        expected = objective_of("baseline").loss(network(), batch(), np.random.default_rng(0))
        assert torch.equal(found.total, expected.total)


@pytest.mark.parametrize("name", METHODS)
def test_the_batches_do_not_depend_on_the_weights(name: str) -> None:
    """Two trials that differ in a weight alone see the same images and the same draws."""
    states = []
    for weight in (0.0, 1.0):
        rng = np.random.default_rng(0)
        objective_of(name, **dict.fromkeys(TERMS[name], weight)).loss(network(), batch(), rng)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


@pytest.mark.parametrize("name", METHODS)
def test_nothing_random_comes_from_elsewhere(name: str) -> None:
    torch.manual_seed(0)
    model, before = network(), torch.get_rng_state()
    objective_of(name).loss(model, batch(), np.random.default_rng(0))
    assert torch.equal(before, torch.get_rng_state())


# --- BatchNorm ---


@pytest.mark.parametrize("name", METHODS)
def test_the_modes_of_batch_norm_are_honoured(name: str) -> None:
    """joint: one forward, and all rows move the statistics; separate: the images' alone; frozen: none."""
    plain = network()
    plain(batch().images)
    of_images = {key: value for key, value in plain.state_dict().items() if "running" in key}
    untouched = network().state_dict()
    for mode in ("joint", "separate", "frozen"):
        model = Counted()
        batched(name, mode).loss(model, batch(), np.random.default_rng(0))
        found = model.network.state_dict()
        is_images = all(torch.allclose(found[key], value) for key, value in of_images.items())
        is_untouched = all(torch.equal(found[key], untouched[key]) for key in of_images)
        if name == "baseline":
            assert is_images
        elif mode == "joint":
            assert len(model.rows) == 1
            assert not is_images and not is_untouched
        elif mode == "separate":
            assert model.rows[0] == 6 and len(model.rows) > 1
            assert is_images
        else:
            assert len(model.rows) == 1
            assert is_untouched


# --- awkward batches ---


@pytest.mark.parametrize("mode", ["joint", "separate", "frozen"])
@pytest.mark.parametrize(("size", "num_outliers"), [(6, 2), (3, 7), (2, 2), (5, 5)])
@pytest.mark.parametrize("name", METHODS)
def test_fewer_and_more_outliers_than_images(
    name: str, size: int, num_outliers: int, mode: str
) -> None:
    objective = batched(name, mode)
    assert_sound(
        objective,
        batch_for(
            objective, size=size, **({"num_outliers": num_outliers} if name != "baseline" else {})
        ),
    )


@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "baseline"])
def test_the_outlier_ratio_decides_how_many_are_drawn(
    name: str, ratio: float, tiny_images: Images
) -> None:
    objective = objective_of(name, outlier_ratio=ratio)
    rng = np.random.default_rng(0)
    batches = list(
        PairedBatches(
            tiny_images, batch_size=24, outlier_ratio=objective.outlier_ratio, rng=rng
        ).epoch()
    )
    assert sum(len(data.outliers) for data in batches) == pytest.approx(ratio * 72, abs=1)
    assert_sound(objective, batches[0])


@pytest.mark.parametrize("name", METHODS)
def test_two_classes(name: str) -> None:
    objective, data = objective_of(name), batch()
    model = SmallCNN(num_classes=2, in_channels=1)
    found = objective.loss(
        model, dataclasses.replace(data, labels=data.labels % 2), np.random.default_rng(0)
    )
    found.total.backward()
    assert found.total.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("mode", ["joint", "separate", "frozen"])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", METHODS)
def test_constant_images(name: str, value: float, mode: str) -> None:
    """BatchNorm then divides by a variance of 0."""
    data = batch()
    data = dataclasses.replace(
        data,
        images=torch.full_like(data.images, value),
        outliers=torch.full_like(data.outliers, value),
    )
    model = network()
    found = batched(name, mode).loss(model, data, np.random.default_rng(0))
    found.total.backward()
    assert found.total.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
