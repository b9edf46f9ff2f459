"""The suite that every method must pass, over the shipped ones, and what holds of these alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from lmoe_tune.methods.objective import Objective
from lmoe_tune.spec import METRICS
from lmoe_tune.testing.methods import (
    MethodCase,
    cross_entropy_of_images,
    draws_for,
    examples,
    network,
    objective_of,
    random_batch,
)
from trainables import METHODS, load_method

for _name in METHODS:
    _case = type(f"Test_{_name}", (MethodCase,), {"method": type(load_method(_name))})
    globals()[_case.__name__] = _case


@pytest.mark.parametrize("name", METHODS)
def test_every_declared_parameter_reaches_the_objective_and_no_other(name: str) -> None:
    declared = load_method(name).declaration.parameters
    for parameter in declared:
        for value in examples(parameter):
            assert getattr(objective_of(name, **{parameter.name: value}), parameter.name) == value
    if declared:
        fields = {field.name for field in dataclasses.fields(objective_of(name))}  # type: ignore[arg-type]
        assert fields == {parameter.name for parameter in declared}


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
        network(), random_batch(), draws_for(random_batch())
    )
    assert set(found.logged) == {"id_loss", *TERMS[name].values()} | (
        {"margin"} if name == "logit_mixoe" else set()
    )
    assert {f"train_{term}" for term in found.logged} <= set(METRICS)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_the_weighted_sum_of_its_terms(name: str) -> None:
    weights = {weight: 0.3 + 0.4 * place for place, weight in enumerate(TERMS[name])}
    found = objective_of(name, **weights).loss(network(), random_batch(), draws_for(random_batch()))
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
    found = objective.loss(model, random_batch(), draws_for(random_batch()))
    assert model.rows == [6]
    assert set(found.logged) == {"id_loss"}
    if mode != "frozen":
        assert torch.equal(found.total, cross_entropy_of_images(random_batch()))


# --- BatchNorm ---


@pytest.mark.parametrize("name", METHODS)
def test_the_modes_of_batch_norm_are_honoured(name: str) -> None:
    """joint: one forward, and all rows move the statistics; separate: the images' alone; frozen: none."""
    plain = network()
    plain(random_batch().images)
    of_images = {key: value for key, value in plain.state_dict().items() if "running" in key}
    untouched = network().state_dict()
    for mode in ("joint", "separate", "frozen"):
        model = Counted()
        batched(name, mode).loss(model, random_batch(), draws_for(random_batch()))
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
