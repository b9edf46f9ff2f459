"""What a trainable exposes: its hyperparameters with type, range, default and meaning.

A declaration imports neither torch nor Ray, so that `check` and `methods` answer at once. The
spec's `space`, `fixed` and `start_from` are validated against it, and `Declaration.resolve`
completes the parameters of a trial.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from lmoe_tune.errors import UsageError
from lmoe_tune.spec.quantity import bounds, is_number
from lmoe_tune.wording import did_you_mean, shown

Value = bool | int | float | str
"""A hyperparameter's value."""

Kind = Literal["float", "int", "choice", "bool"]
TERM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""What MLflow and every other record accept as a metric's name, after the prefix `train_`."""
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Range:
    """The range over which a parameter is worth tuning, narrower than the range it may have."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter. `low` and `high` are inclusive unless `low_exclusive`; None means
    unbounded.
    """

    name: str
    kind: Kind
    default: Value | None
    """None: taken from elsewhere (`lr` from train.lr), as the help says."""
    help: str
    low: float | None = None
    high: float | None = None
    low_exclusive: bool = False
    choices: tuple[Value, ...] = ()
    tune: Range | None = None
    """The range over which `confirm` tunes it when the method is compared with another one; None:
    it stays at its default.
    """
    only_with: tuple[str, ...] = field(default=(), compare=False)
    """The weights of which one must be above 0 for this parameter to change anything. Methods that
    share the parameter have weights of their own.
    """

    def __post_init__(self) -> None:
        own = self.name.rpartition(".")[2] if isinstance(self.name, str) else ""
        self._refuse(not own.isidentifier(), "is not a name for a parameter")
        self._refuse(self.kind not in KINDS, f"its kind must be one of {', '.join(KINDS)}")
        self._refuse(
            not isinstance(self.choices, tuple | list)
            or not all(isinstance(choice, Value) for choice in self.choices),
            "choices must be a tuple of values",
        )
        self._refuse(
            bool(self.choices) != (self.kind == "choice"), "choices go with the kind 'choice'"
        )
        self._refuse(len(set(self.choices)) < len(self.choices), "a choice is there twice")
        ends = [end for end in (self.low, self.high) if end is not None]
        self._refuse(
            not all(is_number(end) and math.isfinite(end) for end in ends),
            "low and high must be finite numbers, or None",
        )
        self._refuse(len(ends) == 2 and ends[0] >= ends[1], "its range is empty")
        self._refuse(
            self.default is not None and not self.accepts(self.default),
            f"its default is {shown(self.default)}, but must be {self.must_be()}",
        )
        self._refuse(not isinstance(self.tune, Range | None), "tune must be a Range, or None")
        self._refuse(
            self.tune is not None
            and not (self.accepts(self.tune.low) and self.accepts(self.tune.high)),
            f"its range to tune over must be within what it may be, {self.must_be()}",
        )
        self._refuse(isinstance(self.only_with, str), "only_with must be a tuple of names")

    def _refuse(self, is_wrong: bool, what: str) -> None:
        if is_wrong:
            raise UsageError(f"the parameter {shown(self.name)}: {what}")

    def must_be(self) -> str:
        """What a value must be, in words that follow "must be"."""
        if self.kind == "choice":
            return "one of " + ", ".join(shown(choice) for choice in self.choices)
        if self.kind == "bool":
            return "true or false"

        noun = {"int": "a whole number", "float": "a number"}[self.kind]
        return noun + bounds(self.low, self.high, low_exclusive=self.low_exclusive)

    def accepts(self, value: object) -> bool:
        """Whether the value has the parameter's type and lies within its bounds (a bool is not a
        number).
        """
        if self.kind == "choice":
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        if self.kind == "bool":
            return isinstance(value, bool)

        if not is_number(value, whole=self.kind == "int") or not abs(value) <= sys.float_info.max:
            return False
        if self.low is not None and (value <= self.low if self.low_exclusive else value < self.low):
            return False

        return self.high is None or value <= self.high

    def typed(self, value: Value) -> Value:
        """The accepted value in the parameter's own type: 1 is 1.0 for a float."""
        if self.kind == "float":
            return float(value)

        return value


METHOD = "method"
"""The parameter that chooses among trainables, where a space has it."""

SHARED_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("lr", "float", None, "learning rate at the start of the cosine; default: train.lr",
              low=0, low_exclusive=True),
    Parameter("weight_decay", "float", None, "L2 penalty of SGD; default: train.weight_decay", low=0),
)  # fmt: skip
"""What every trainable has. A declaration may name one itself, to give it another range: it means the same, so it
has no default of its own.
"""


@dataclass(frozen=True)
class Term:
    """A part of the loss that is logged as `train_NAME`."""

    name: str
    weights: tuple[str, ...] = ()
    """The parameters of which one must be above 0 for it to be there; none: it always is."""

    def __post_init__(self) -> None:
        fault = fault_of_term(self.name)
        if fault:
            raise UsageError(fault)


def fault_of_term(name: object) -> str | None:
    """Why this cannot be the name of a term; None if it can."""
    if not isinstance(name, str) or not TERM_NAME.fullmatch(name):
        return (
            f"a term of the loss is called {name!r}, but must have a name of letters, digits, '_', '-' "
            "and '.' that begins with a letter or digit, and at most 100 of them"
        )
    if name == "loss":
        return "a term of the loss is called 'loss', but that is the name of the whole"
    return None


@dataclass(frozen=True)
class Declaration:
    """A trainable as the spec sees it."""

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    """The trainable's own; `all_parameters` has the shared ones too."""
    needs_outliers: bool = True
    """Whether it trains with outliers, so that a spec must name some."""
    terms: tuple[Term, ...] | None = None
    """What it logs, so that an objective on anything else is refused; None: not known."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise UsageError(f"a trainable is called {self.name!r}, but must have a name")

        names = [parameter.name for parameter in self.parameters]
        self._refuse_double(names, "parameter")
        self._refuse_double([term.name for term in self.terms or ()], "term")
        shared = {parameter.name: parameter for parameter in SHARED_PARAMETERS}
        for own in self.parameters:
            if own.name in shared and (own.kind, own.default) != ("float", None):
                raise UsageError(
                    f"{self.name}: '{own.name}' is the setting train.{own.name}: declare it as a float with the "
                    "default None, or rename the parameter"
                )
            if own.name == "outlier_ratio" and own.kind not in ("float", "int"):
                numbers = [one for one in own.choices if isinstance(one, int | float)]
                if own.kind != "choice" or len(numbers) < len(own.choices):
                    raise UsageError(
                        f"{self.name}: 'outlier_ratio' is how many outliers go with an image: declare it as a number"
                    )

        weights = {*names, *shared}
        for term in self.terms or ():
            _refuse_unknown(term.weights, weights, f"{self.name}: the term '{term.name}'")
        for own in self.parameters:
            _refuse_unknown(own.only_with, weights, f"{self.name}: the parameter '{own.name}'")

    def _refuse_double(self, names: Sequence[str], kind: str) -> None:
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"{self.name} declares the {kind} '{name}' twice")

    @property
    def all_parameters(self) -> dict[str, Parameter]:
        """Every parameter by name: the trainable's own, then the shared ones."""
        own = {parameter.name: parameter for parameter in self.parameters}
        return own | {
            parameter.name: parameter
            for parameter in SHARED_PARAMETERS
            if parameter.name not in own
        }

    def resolve(self, params: Mapping[str, Value]) -> dict[str, Value | None]:
        """All parameters of a trial: the given values in their own types, defaults for the others.

        `lr` and `weight_decay` are None if neither given nor declared with a default: as in
        `train`. Raises UsageError that names every parameter that does not exist or has a value it
        cannot have.
        """
        available = self.all_parameters
        there_are = f"; {self.name} has {', '.join(available)}"
        faults = [
            f"{name}: unknown parameter{did_you_mean(name, available) or there_are}"
            for name in params
            if name not in available
        ]
        faults += [
            f"{name}: value is {shown(value)}, but must be {available[name].must_be()}"
            for name, value in params.items()
            if name in available and not available[name].accepts(value)
        ]
        if faults:
            raise UsageError("\n".join(faults))

        return {
            name: parameter.typed(params[name]) if name in params else parameter.default
            for name, parameter in available.items()
        }


def _refuse_unknown(weights: Sequence[str], names: Collection[str], whose: str) -> None:
    for weight in weights:
        if weight not in names:
            raise UsageError(
                f"{whose} goes with '{weight}', but there is no such parameter; there are {', '.join(names)}"
            )


def combined(declarations: Sequence[Declaration]) -> Declaration:
    """What a sweep over several trainables exposes: `method`, and the parameters of each.

    A parameter goes by its name, for every method that has it, or by `method.name` for that one
    alone. Where methods disagree about a default, the common name has none; its bounds are those
    that suit all.
    """
    by_name: dict[str, list[Parameter]] = {}
    for declaration in declarations:
        for name, parameter in declaration.all_parameters.items():
            by_name.setdefault(name, []).append(parameter)

    names = tuple(declaration.name for declaration in declarations)
    parameters = [Parameter(METHOD, "choice", names[0], "the trainable", choices=names)]
    parameters += [
        _common(found) for found in by_name.values() if len({one.kind for one in found}) == 1
    ]
    for declaration in declarations:
        for name, parameter in declaration.all_parameters.items():
            parameters.append(replace(parameter, name=f"{declaration.name}.{name}"))

    return Declaration(
        name=" | ".join(names),
        summary="one of several trainables",
        parameters=tuple(parameters),
        needs_outliers=any(declaration.needs_outliers for declaration in declarations),
    )


def methods_with(
    name: str, declarations: Collection[Declaration], named: Collection[str]
) -> tuple[str, ...] | None:
    """The methods that a parameter of a combined space is for; None: all.

    Args:
        named: every name in the space and under `fixed`; `mixoe.lr` there takes mixoe out of those
            of `lr`.
    """
    if name == METHOD:
        return None

    qualifier, _, own = name.rpartition(".")
    if qualifier:
        return (qualifier,)

    having = [
        one.name
        for one in declarations
        if own in one.all_parameters and f"{one.name}.{own}" not in named
    ]

    if len(having) == len(declarations):
        return None

    return tuple(having)


def own_params(
    params: Mapping[str, Value], method: str, declaration: Declaration
) -> dict[str, Value]:
    """The parameters of a combined space that belong to one of its methods, under their own names."""
    common = {name: value for name, value in params.items() if name in declaration.all_parameters}
    prefix = f"{method}."
    qualified = {
        name.removeprefix(prefix): value
        for name, value in params.items()
        if name.startswith(prefix)
    }
    return common | qualified


def _common(found: Sequence[Parameter]) -> Parameter:
    """One parameter that fits all methods which have it."""
    first = found[0]
    lows = [one.low for one in found if one.low is not None]
    highs = [one.high for one in found if one.high is not None]
    low = max(lows, default=None)
    choices = tuple(
        choice for choice in first.choices if all(choice in one.choices for one in found)
    )
    defaults = {repr(one.default) for one in found}

    return replace(
        first,
        default=first.default if len(defaults) == 1 else None,
        low=low,
        high=min(highs, default=None),
        low_exclusive=any(one.low_exclusive and one.low == low for one in found),
        choices=choices or first.choices,
    )
