from __future__ import annotations

import math

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Parameter


@pytest.fixture
def method(declarations):
    return declarations["logit_mixoe"]


def test_defaults_fill_in_what_is_not_given(method):
    params = method.resolve({"mixing_alpha": 2, "lr": 1})
    assert params == {
        "mixing_alpha": 2.0,
        "mix_weight": 1.0,
        "consistency_weight": 1.0,
        "outlier_ratio": 1.0,
        "consistency": "mse",
        "center_logits": False,
        "num_groups": 1,
        "lr": 1.0,
        "weight_decay": None,
    }
    assert type(params["mixing_alpha"]) is float
    assert type(params["lr"]) is float


def test_an_unknown_parameter_is_named_with_the_available_ones(method):
    with pytest.raises(UsageError) as caught:
        method.resolve({"mixing_alfa": 1.0})
    message = str(caught.value)
    assert message.startswith(
        "Unavailable parameter(s) 'mixing_alfa' for logit_mixoe; available are mixing_alpha,"
    )
    assert message.endswith("weight_decay; did you mean 'mixing_alpha'?")


def test_every_fault_is_reported(method):
    with pytest.raises(UsageError) as caught:
        method.resolve({"nothing": 1, "mixing_alpha": 0, "consistency": "l1", "num_groups": 1.5})
    assert str(caught.value).splitlines()[1:] == [
        "mixing_alpha: value is 0, but must be a number greater than 0",
        "consistency: value is 'l1', but must be one of 'mse', 'kl', 'js'",
        "num_groups: value is 1.5, but must be a whole number between 1 and 64",
    ]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("mixing_alpha", [1e-9, 1, 2.5], [0, -1, True, "1", None, math.nan, math.inf]),
        ("outlier_ratio", [8, 0.5], [8.1]),
        ("consistency", ["mse", "js"], ["l1", True, 0]),
        ("center_logits", [True, False], [0, 1, "true"]),
        ("num_groups", [1, 64], [0, 65, 2.0, True]),
        ("lr", [1e-9], [0]),
        ("weight_decay", [0, 1e-4], [-1e-9]),
    ],
)
def test_a_parameter_accepts_its_type_within_its_bounds(method, name, good, bad):
    parameter = method.all_parameters[name]
    assert all(parameter.accepts(value) for value in good)
    assert not any(parameter.accepts(value) for value in bad)


def test_a_declared_lr_counts_instead_of_the_shared_one(declarations):
    own = Parameter("lr", "float", 0.5, "own", low=0)
    declaration = type(declarations["baseline"])("own", "own", (own,))
    assert declaration.resolve({})["lr"] == 0.5
    assert list(declaration.all_parameters) == ["lr", "weight_decay"]


def test_a_default_outside_the_bounds_is_a_broken_declaration():
    with pytest.raises(AssertionError):
        Parameter("x", "float", -1.0, "x", low=0)
