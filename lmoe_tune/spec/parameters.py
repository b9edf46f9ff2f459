"""Checks of `fixed`, `space` and `search.start_from` against what the trainable declares."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lmoe_tune.errors import SpecError
from lmoe_tune.spec.declaration import METHOD, Declaration, Parameter, Value, methods_with
from lmoe_tune.spec.document import KeyPath
from lmoe_tune.spec.findings import Findings
from lmoe_tune.spec.quantity import is_number
from lmoe_tune.wording import shown

START_FROM: KeyPath = ("search", "start_from")
_MANY_STEPS = 1e15  # beyond them, neighbouring floats are the same step
_TOLERANCE = 1e-9  # relative, of multiples of a step: 0.3 is three steps of 0.1


def check_parameters(
    findings: Findings, declaration: Declaration | None, methods: Collection[Declaration]
) -> None:
    """Report what is wrong with the parameters; without a declaration only the problems that need
    none.

    Args:
        methods: all methods of the declaration; none if it lacks some, and with these perhaps
            parameters.
    """
    declared = declaration.all_parameters if declaration is not None else {}
    fixed, space = findings.keys(("fixed",)), findings.keys(("space",))
    misspelt = set()

    if declaration is not None and methods:
        for section, names in (("fixed", fixed), ("space", space)):
            for name in names:
                if name not in declared:
                    _unknown(findings, (section, name), declaration)
                    misspelt.add(findings.guess(name, declared))

    for name in fixed:
        path: KeyPath = ("fixed", name)
        if name in space:
            findings.add(
                path, "is both fixed and searched: keep it under fixed or under space", at="key"
            )
        elif name in declared and findings.clean(path):
            _check_value(findings, path, declared[name])

    for name in space:
        path = ("space", name)
        entry = findings.plain(path)
        if entry is not None:
            check = _check_choices if "choices" in entry else _check_range
            check(findings, path, entry, declared.get(name))

    if findings.node(("space",)) is not None and not space and findings.clean(("space",)):
        hint = f": {', '.join(declared)}" if declared else ""
        findings.add(
            ("space",),
            f"there is nothing to search: name at least one parameter of the trainable{hint}",
        )

    _check_start_from(findings, declaration, methods, misspelt)


def check_values(findings: Findings, declaration: Declaration) -> dict[str, Value]:
    """The values of a document that holds nothing but parameters. Raises SpecError with every
    problem.
    """
    declared = declaration.all_parameters
    for name in findings.keys(()):
        if name not in declared:
            _unknown(findings, (name,), declaration)
        else:
            _check_value(findings, (name,), declared[name])

    if findings.problems:
        raise SpecError(findings.problems)

    return {name: declared[name].typed(findings.plain((name,))) for name in findings.keys(())}


def typed_space(space: Mapping[str, Mapping[str, Any]], declaration: Declaration) -> dict[str, Any]:
    """The checked space with every number in its parameter's type, and `int` where the parameter is
    one.
    """
    result: dict[str, Any] = {}
    for name, entry in space.items():
        parameter = declaration.all_parameters[name]
        if entry.get("choices") is not None:
            result[name] = {
                "choices": tuple(parameter.typed(choice) for choice in entry["choices"])
            }
        else:
            whole = {"int": True} if parameter.kind == "int" else {}
            result[name] = {key: value for key, value in entry.items() if value is not None} | whole

    return result


def default_start(
    space: Mapping[str, Mapping[str, Any]], methods: Iterable[Declaration], train: Mapping[str, Any]
) -> tuple[dict[str, Any], ...]:
    """The untuned defaults of each method's searched parameters, if the space has them, as
    points.
    """
    points = []
    for method in methods:
        point: dict[str, Any] = {}
        for name, entry in space.items():
            own = name.removeprefix(f"{method.name}.")
            if own == METHOD:
                point[METHOD] = method.name

            parameter = method.all_parameters.get(own)
            if parameter is None or method.name not in (entry.get("only_for") or (method.name,)):
                continue

            if parameter.default is None:
                default = train.get(own)
            else:
                default = parameter.default
            if default is not None and outside(default, entry, parameter) is None:
                point[name] = parameter.typed(default)

        if point:
            points.append(point)

    return tuple(points)


def with_method(
    point: Mapping[str, Any], methods: Collection[Declaration], named: Collection[str]
) -> dict[str, Any]:
    """The point with the one method that has its parameters; as it is where several have them."""
    fitting = _fitting(point, methods, named)
    if METHOD in point or len(fitting) != 1:
        return dict(point)

    return {METHOD: fitting[0], **point}


def outside(value: Any, entry: Mapping[str, Any], parameter: Parameter | None) -> str | None:
    """What the value must be to lie in a checked distribution, or None if it does."""
    if entry.get("choices") is not None:
        if any(_same(value, choice, parameter) for choice in entry["choices"]):
            return None
        return "one of " + ", ".join(shown(choice) for choice in entry["choices"])

    low, high, step = entry["low"], entry["high"], entry.get("step")
    whole = entry.get("int") or (parameter is not None and parameter.kind == "int")
    if not is_number(value, whole=bool(whole)) or not low <= value <= high:
        return f"a {'whole ' if whole else ''}number between {shown(low)} and {shown(high)}, as the space has it"
    if step is not None and not _is_multiple(value - low, step):
        return f"{shown(low)} plus a multiple of the step {shown(step)}"

    return None


def _unknown(findings: Findings, path: KeyPath, declaration: Declaration) -> None:
    name, names = str(path[-1]), declaration.all_parameters
    hint = findings.did_you_mean(name, names) or f"; {declaration.name} has {', '.join(names)}"
    findings.add(path, f"unknown parameter{hint}", at="key")


def _check_value(findings: Findings, path: KeyPath, parameter: Parameter) -> bool:
    node = findings.node(path)
    assert node is not None
    if parameter.accepts(node.plain()):
        return True

    findings.refuse(path, parameter.must_be())
    return False


def _same(value: Any, choice: Any, parameter: Parameter | None) -> bool:
    if parameter is not None and parameter.kind == "float" and not isinstance(value, bool):
        return bool(value == choice)
    return type(value) is type(choice) and value == choice


def _is_multiple(distance: float, step: float) -> bool:
    count = distance / step
    return math.isfinite(count) and abs(count - round(count)) <= _TOLERANCE * max(1.0, abs(count))


def _check_choices(
    findings: Findings, path: KeyPath, entry: Mapping[str, Any], parameter: Parameter | None
) -> None:
    for key in entry:
        if key not in ("choices", "only_for"):
            findings.add(
                (*path, key),
                f"does not go with choices: give either choices or a range, not {key} too",
                at="key",
            )

    choices = entry["choices"]
    where = (*path, "choices")

    if choices is None:
        findings.refuse(where, "a list")
    elif not choices:
        findings.refuse(where, "a list of at least one value")

    seen: set[tuple[type, Any]] = set()
    for at, choice in findings.items(where).items():
        if parameter is not None and not _check_value(findings, at, parameter):
            continue

        value = parameter.typed(choice) if parameter is not None else choice
        if (type(value), value) in seen:
            findings.add(at, f"{shown(choice)} is in the list twice")

        seen.add((type(value), value))


def _check_range(
    findings: Findings, path: KeyPath, entry: Mapping[str, Any], parameter: Parameter | None
) -> None:
    low, high, step, log = (entry.get(key) for key in ("low", "high", "step", "log"))
    if parameter is not None and parameter.kind in ("choice", "bool"):
        options = parameter.choices or (True, False)
        text = ", ".join(
            str(option) if isinstance(option, str) else shown(option) for option in options
        )
        findings.add(
            path, f"{parameter.name} has no range: give {{choices: [{text}]}} or some of these"
        )
        return

    if low is None and high is None:
        findings.add(
            path, "has neither low and high nor choices: give {low: …, high: …} or {choices: […]}"
        )
        return

    for key, end in (("low", low), ("high", high)):
        if end is None:
            findings.add((*path, key), "is missing: a range has low and high")

    if low is None or high is None:
        return

    whole = bool(entry.get("int"))
    if parameter is not None and parameter.kind == "int":
        whole = True
    elif parameter is not None and whole:
        findings.add(
            (*path, "int"),
            f"{parameter.name} is not a whole number: leave int out (step: 1 steps by one)",
        )
        whole = False

    sound = [_check_end(findings, (*path, key), parameter, whole=whole) for key in ("low", "high")]
    if all(sound) and low >= high:
        findings.add(
            (*path, "low"),
            f"the range is empty: low is {shown(low)}, but must be less than high, {shown(high)}",
        )
    elif sound[0] and log and low <= 0:
        findings.refuse((*path, "low"), "greater than 0 with log: true")

    if step is None:
        return

    if log:
        findings.add((*path, "step"), "does not go with log: true: leave one of them out", at="key")
    elif whole and step != int(step):
        findings.refuse((*path, "step"), "a whole number")
    elif all(sound) and low < high:
        _check_step(findings, (*path, "step"), low, high, step)


def _check_end(
    findings: Findings, path: KeyPath, parameter: Parameter | None, *, whole: bool
) -> bool:
    value = findings.plain(path)
    if whole and value != int(value):
        findings.refuse(path, parameter.must_be() if parameter is not None else "a whole number")
        return False

    typed = int(value) if whole else value
    if parameter is not None and not parameter.accepts(typed):
        findings.refuse(path, f"{parameter.must_be()}, as {parameter.name} is")
        return False

    return True


def _check_step(findings: Findings, path: KeyPath, low: float, high: float, step: float) -> None:
    if not (high - low) / step < _MANY_STEPS:
        findings.refuse(path, "larger: the range has too many steps to count")
    elif step > (high - low) * (1 + _TOLERANCE):
        findings.refuse(path, f"at most high - low, {high - low:g}")
    elif not _is_multiple(high - low, step):
        last = low + math.floor((high - low) / step) * step
        findings.add(
            path,
            f"the step {shown(step)} does not reach high: it ends at {last:.6g}, not {shown(high)}",
        )


def _check_start_from(
    findings: Findings,
    declaration: Declaration | None,
    methods: Collection[Declaration],
    misspelt: Collection[str | None],
) -> None:
    space, fixed = findings.keys(("space",)), findings.keys(("fixed",))
    declared = declaration.all_parameters if declaration is not None else {}
    seen: dict[tuple[tuple[str, str], ...], Any] = {}

    for path, point in findings.items(START_FROM).items():
        if not isinstance(point, dict):
            continue
        if not point:
            findings.add(path, "the point is empty: name at least one searched parameter")

        for name, value in point.items():
            at = (*path, name)
            if declaration is not None and methods and name not in declared:
                _unknown(findings, at, declaration)
            elif name not in space:
                if "space" in findings.root.entries and name not in misspelt:
                    state = "fixed" if name in fixed else "not in the space"
                    findings.add(
                        at, f"{name} is {state}: a point names searched parameters only", at="key"
                    )
            elif findings.clean(at) and findings.clean(("space", name)):
                expected = outside(value, findings.plain(("space", name)), declared.get(name))
                if expected is not None:
                    findings.refuse(at, expected)

        if findings.clean(path):
            first = seen.setdefault(_key_of(point), path[-1])
            if first != path[-1]:
                findings.add(path, f"the same point as number {first}: it would be tried twice")
        if METHOD in declared and methods and findings.clean(path):
            _check_method_of_point(findings, path, point, methods, (*space, *fixed))


def _check_method_of_point(
    findings: Findings,
    path: KeyPath,
    point: Mapping[str, Any],
    methods: Collection[Declaration],
    named: Collection[str],
) -> None:
    """The point is of one method that has all its parameters; else it would be drawn and never
    tried.
    """
    fitting, method = _fitting(point, methods, named), point.get(METHOD)
    if method is not None:
        for name in point:
            only = methods_with(name, methods, named)
            if only is not None and method not in only:
                text = f"{method}, the method of this point, does not have it; {' and '.join(only)} does"
                findings.add((*path, name), text, at="key")
    elif not fitting:
        findings.add(path, f"no method has all of {', '.join(point)}: make a point for each")
    elif 1 < len(fitting) < len(methods):
        findings.add(path, f"say which method it is for: method: {' or '.join(fitting)}")


def _fitting(
    point: Mapping[str, Any], methods: Collection[Declaration], named: Collection[str]
) -> list[str]:
    """The methods that have every parameter of a point."""
    fitting = [method.name for method in methods]
    for name in point:
        only = methods_with(name, methods, named)
        if only is not None:
            fitting = [method for method in fitting if method in only]

    return fitting


def _key_of(point: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The same for equal points, whatever the order and whether a number is written 1 or 1.0."""
    return tuple(sorted((name, repr(float(v) if is_number(v) else v)) for name, v in point.items()))
