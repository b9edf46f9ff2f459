from __future__ import annotations

import math

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Declaration, Parameter, Range, Term


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


def test_an_unknown_parameter_is_named_with_the_one_that_was_meant_or_all(method):
    with pytest.raises(UsageError) as caught:
        method.resolve({"mixing_alfa": 1.0, "nothing": 1})
    meant, all_of_them = str(caught.value).splitlines()
    assert meant == "mixing_alfa: unknown parameter; did you mean 'mixing_alpha'?"
    assert all_of_them.startswith("nothing: unknown parameter; logit_mixoe has mixing_alpha,")
    assert all_of_them.endswith("lr, weight_decay")


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


def test_a_declared_lr_has_another_range_and_the_trainings_default():
    own = Parameter("lr", "float", None, "own", low=0, high=0.1)
    declaration = Declaration("own", "own", (own,))
    assert declaration.resolve({})["lr"] is None
    assert not declaration.all_parameters["lr"].accepts(1.0)
    assert list(declaration.all_parameters) == ["lr", "weight_decay"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"default": -1.0, "low": 0}, "default is -1.0, but must be a number of at least 0"),
        ({"kind": "flaot"}, "kind must be one of float, int, choice, bool"),
        ({"kind": float}, "kind must be one of"),
        ({"name": "a b"}, "is not a name"),
        ({"name": 3}, "is not a name"),
        ({"low": float("nan")}, "low and high must be finite numbers"),
        ({"high": "1"}, "low and high must be finite numbers"),
        ({"tune": (0, 1)}, "tune must be a Range"),
        ({"low": 2, "high": 1}, "range is empty"),
        ({"kind": "choice", "choices": ("a", "a"), "default": "a"}, "a choice is there twice"),
        ({"kind": "choice", "choices": "ab", "default": "a"}, "choices must be a tuple of values"),
        ({"kind": "choice", "choices": (["a"],)}, "choices must be a tuple of values"),
        ({"choices": None}, "choices must be a tuple of values"),
        ({"choices": (1.0,)}, "choices go with the kind 'choice'"),
        ({"low": 0, "tune": Range(-1, 1)}, "range to tune over must be within"),
        ({"only_with": "weight"}, "only_with must be a tuple of names"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_with_its_name(options, said):
    given = {"name": "x", "kind": "float", "default": 1.0, "help": "x"} | options
    with pytest.raises(UsageError, match=said):
        Parameter(**given)


@pytest.mark.parametrize(
    ("parameters", "terms", "said"),
    [
        ((Parameter("lr", "float", 0.5, "x"),), (), "'lr' is the setting train.lr"),
        (
            (Parameter("lr", "choice", "a", "x", choices=("a", "b")),),
            (),
            "'lr' is the setting train.lr",
        ),
        (
            (Parameter("outlier_ratio", "choice", "a", "x", choices=("a", "b")),),
            (),
            "'outlier_ratio' is how many outliers",
        ),
        (
            (Parameter("a", "int", 1, "x"), Parameter("a", "int", 1, "x")),
            (),
            "declares the parameter 'a' twice",
        ),
        (
            (Parameter("a", "int", 1, "x", only_with=("nosuch",)),),
            (),
            "parameter 'a' goes with 'nosuch'",
        ),
        ((), (Term("b"), Term("b")), "declares the term 'b' twice"),
        ((), (Term("b", ("nosuch",)),), "term 'b' goes with 'nosuch'"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(parameters, terms, said):
    with pytest.raises(UsageError, match=said):
        Declaration("own", "own", parameters, terms=terms)


@pytest.mark.parametrize("name", ["", None])
def test_a_trainable_has_a_name(name):
    with pytest.raises(UsageError, match="but must have a name"):
        Declaration(name, "x", ())


@pytest.mark.parametrize("name", ["x y", "", "loss", 3])
def test_a_term_that_no_record_takes_is_refused(name):
    with pytest.raises(UsageError, match="a term of the loss is called"):
        Term(name)
