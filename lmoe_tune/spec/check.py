"""Loading a spec: the file, the overrides, every check, and either a typed `Spec` or all problems at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmoe_tune.errors import Problem, SpecError, UsageError
from lmoe_tune.readers import READERS
from lmoe_tune.spec import document, sections
from lmoe_tune.spec.declaration import METHOD, Declaration, Value, combined, methods_with
from lmoe_tune.spec.defaults import DIGITS_TRAINABLE, fill_in_digits, node_of
from lmoe_tune.spec.findings import Findings
from lmoe_tune.spec.metrics import METRICS
from lmoe_tune.spec.model import Dataset, ObjectiveSpec, Spec
from lmoe_tune.spec.overrides import apply_overrides
from lmoe_tune.spec.parameters import check_parameters, check_values, default_start, typed_space
from lmoe_tune.spec.wording import printable, shown

Resolve = Callable[[str, Path], Declaration]
Missing = Callable[[Dataset], str | None]

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_START = "a spec starts with name, trainable, data and space; see search_spaces/digits.yaml"


@dataclass(frozen=True)
class LoadedSpec:
    """A spec and the file it came from."""

    spec: Spec
    path: Path


def folder_missing(dataset: Dataset) -> str | None:
    """What stands against a data set's folder, as far as can be told without knowing its layout."""
    if dataset.root is not None and not os.path.isdir(dataset.root):
        return f"there is no folder {dataset.root}"
    return None


def load_spec(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    declarations: Mapping[str, Declaration],
    check_files: bool = True,
    resolve: Resolve | None = None,
    missing: Missing = folder_missing,
    bounded: bool = False,
) -> LoadedSpec:
    """Read, complete and check a spec.

    Args:
        overrides: `a.b=v` each, as `--set` takes them; they go through the same checks.
        declarations: the shipped trainables by name.
        check_files: whether folders and files that the spec names must exist.
        resolve: gives the declaration of a `package.module:Class`, from that and the spec's folder; raises
            UsageError where it cannot.
        missing: what a data set with an absolute `root` lacks, None where all is there.
        bounded: something else than the spec's budget ends the sweep.

    Raises:
        SpecError: with every problem there is, in the order of the file.
    """
    path = Path(path)
    root, problems = _read(path)
    fold_objectives(root)
    _complete(root, overrides, declarations)
    apply_overrides(root, overrides, problems)
    fold_objectives(root)
    _imply(root)
    findings = Findings(root, problems)
    findings.check_shape()
    methods = _methods(findings, path, declarations, resolve)
    declaration = None
    if methods:
        declaration = combined(methods) if _searched_methods(findings) else methods[0]
    sections.check_data(findings, declaration, path.parent, missing if check_files else None)
    sections.check_model(findings, path.parent, check_files=check_files)
    sections.check_train(findings)
    check_parameters(findings, declaration)
    sections.check_objective(findings)
    sections.check_search(findings)
    sections.check_budget(findings, bounded=bounded)
    sections.check_tracking(findings)
    if findings.problems:
        raise SpecError(findings.problems)
    assert declaration is not None, "a spec without a declaration and without a problem"
    return LoadedSpec(_build(root.plain(), declaration, methods, path.parent), path)


def load_params(path: Path, declaration: Declaration) -> dict[str, Value]:
    """The hyperparameters in a YAML file, `name: value` each, checked against the declaration.

    Raises SpecError with every problem; `declaration.resolve` completes what this returns.
    """
    root, problems = _read(
        Path(path), start=f"it holds parameters of {declaration.name}, such as NAME: VALUE"
    )
    findings = Findings(root, problems)
    return check_values(findings, declaration)


def _read(
    path: Path, start: str = _START
) -> tuple[document.Mapping, list[tuple[document.Mark, Problem]]]:
    """The file's tree and its duplicate keys."""
    problems: list[tuple[document.Mark, Problem]] = []
    name = document.file_name(path)
    node = document.parse(document.read_text(path), name, problems)
    if node is None:
        raise SpecError([Problem(f"{name}:1:1", "", f"the file is empty: {start}")])
    if not isinstance(node, document.Mapping):
        what = f"the file holds {shown(node.plain())}, but must hold a mapping: {start}"
        raise SpecError([Problem(node.mark.where, "", what)])
    return node, problems


def _complete(
    root: document.Mapping, overrides: Sequence[str], declarations: Mapping[str, Declaration]
) -> None:
    """Fill in the defaults of the embedded data, in place, so that overrides find them there.

    Whether the data are the embedded ones may be up to an override. An unknown data set is reported as such
    and not, for the same cause, as a spec that lacks sections.
    """
    probe = document.copied(root)
    assert isinstance(probe, document.Mapping)
    apply_overrides(probe, overrides, [])
    _imply(probe)
    seen = Findings(probe, [])
    dataset, trainable = (seen.plain(("data", "id", "dataset")), seen.plain(("trainable",)))
    if dataset == "digits" or dataset not in READERS:
        known = isinstance(trainable, str) and (trainable in declarations or ":" in trainable)
        fill_in_digits(root, with_space=trainable == DIGITS_TRAINABLE or not known)


def fold_objectives(root: document.Mapping) -> None:
    """Turn a list of objectives, in place, into its first entry with the others under `also`.

    Constraints may stand in any entry: they hold for the trial.
    """
    given = root.get("objective")
    if not isinstance(given, document.Sequence) or not given.items:
        return
    entries = [
        item for item in map(document.copied, given.items) if isinstance(item, document.Mapping)
    ]
    if len(entries) < len(given.items):
        return  # its shape is reported
    first, others = entries[0], entries[1:]
    for other in others:
        moved = other.entries.pop("constraints", None)
        constraints = first.get("constraints")
        if moved is None:
            continue
        if isinstance(constraints, document.Mapping) and isinstance(moved.value, document.Mapping):
            for name, entry in moved.value.entries.items():
                constraints.entries.setdefault(name, entry)
        else:
            first.entries.setdefault("constraints", moved)
    first.entries["also"] = document.Entry(given.mark, document.Sequence(given.mark, list(others)))
    root.entries["objective"] = document.Entry(root.entries["objective"].key_mark, first)


def _imply(root: document.Mapping) -> None:
    """Fill in, in place, what follows from the rest: the trainable of a sweep that searches it, no pruner for
    several objectives, and no default constraint on what is itself an objective."""
    space, objective = root.get("space"), root.get("objective")
    method = space.get(METHOD) if isinstance(space, document.Mapping) else None
    choices = method.get("choices") if isinstance(method, document.Mapping) else None
    if "trainable" not in root.entries and isinstance(choices, document.Sequence) and choices.items:
        root.entries["trainable"] = document.Entry(choices.mark, choices.items[0])
    also = objective.get("also") if isinstance(objective, document.Mapping) else None
    if not (
        isinstance(objective, document.Mapping)
        and isinstance(also, document.Sequence)
        and also.items
    ):
        return
    search = root.entries.setdefault(
        "search", document.Entry(root.mark, node_of({}, root.mark))
    ).value
    if isinstance(search, document.Mapping) and "pruner" not in search.entries:
        search.entries["pruner"] = document.Entry(search.mark, node_of("none", search.mark))
    named = [
        objective.get("metric"),
        *(one.get("metric") for one in also.items if isinstance(one, document.Mapping)),
    ]
    if "constraints" not in objective.entries and "val_accuracy" in [
        one.plain() for one in named if one is not None
    ]:
        objective.entries["constraints"] = document.Entry(
            objective.mark, node_of({}, objective.mark)
        )


def _searched_methods(findings: Findings) -> list[tuple[document.KeyPath, Any]]:
    """Where the choices of `space.method` stand, and what they are; empty where the method is not searched."""
    path: document.KeyPath = ("space", METHOD, "choices")
    node = findings.node(path)
    items = node.items if isinstance(node, document.Sequence) else []
    return [((*path, place), item.plain()) for place, item in enumerate(items)]


def _methods(
    findings: Findings, path: Path, declarations: Mapping[str, Declaration], resolve: Resolve | None
) -> list[Declaration]:
    """What the trainable, or each of those that are searched, declares; empty where a problem was reported."""
    name = findings.plain(("trainable",))
    searched = _searched_methods(findings)
    if not searched:
        found = _declaration(findings, ("trainable",), name, path, declarations, resolve)
        return [found] if found is not None else []
    names = [choice for _, choice in searched]
    if name is not None and name not in names:
        findings.add(
            ("trainable",),
            f"value is {shown(name)}, but must be one of space.method: {', '.join(map(str, names))}",
        )
    methods = [
        _declaration(findings, at, choice, path, declarations, resolve) for at, choice in searched
    ]
    known = [method for method in methods if method is not None]
    # A class of one's own goes by the name in the spec, whatever its declaration calls it.
    return (
        [replace(one, name=str(choice)) for one, choice in zip(known, names, strict=False)]
        if all(methods)
        else []
    )


def _declaration(
    findings: Findings,
    at: document.KeyPath,
    name: Any,
    path: Path,
    declarations: Mapping[str, Declaration],
    resolve: Resolve | None,
) -> Declaration | None:
    """What a trainable declares; None where that has been reported as a problem."""
    if name is None or not findings.clean(at):
        return None
    if not isinstance(name, str):
        findings.refuse(
            at, f"one of {', '.join(declarations)}, or package.module:Class of your own"
        )
        return None
    if name in declarations:
        return declarations[name]
    shipped = ", ".join(declarations)
    if not any(char in name for char in ":./\\"):
        hint = (
            findings.did_you_mean(name, declarations)
            or f"; there are {shipped}, or package.module:Class of your own"
        )
        findings.add(at, f"unknown trainable {shown(name)}{hint}")
        return None
    if not _CLASS_PATH.fullmatch(name):
        findings.refuse(at, f"one of {shipped}, or package.module:Class of your own")
        return None
    if resolve is None:
        findings.add(at, f"a trainable of your own cannot be used here; there are {shipped}")
        return None
    try:
        return resolve(name, path.parent)
    except UsageError as error:
        findings.add(at, printable(" ".join(str(error).split())))
        return None


def _build(
    plain: dict[str, Any],
    declaration: Declaration,
    methods: Sequence[Declaration],
    spec_folder: Path,
) -> Spec:
    """The typed spec of a document without problems: numbers in their parameters' types, paths absolute."""
    data = plain["data"]
    if data.get("cache_dir") is not None:
        data["cache_dir"] = sections.absolute(data["cache_dir"], spec_folder)
    for dataset in (data["id"], data.get("outliers"), *data.get("coarse_ood", ())):
        if dataset and dataset.get("root") is not None:
            dataset["root"] = sections.absolute(dataset["root"], spec_folder)
        if dataset and dataset.get("exclude"):
            dataset["exclude"] = tuple(
                sections.absolute(entry, spec_folder) if sections.is_list_file(entry) else entry
                for entry in dataset["exclude"]
            )
    weights = plain["model"].get("weights", "none")
    if weights not in sections.WEIGHTS:
        plain["model"]["weights"] = sections.absolute(weights, spec_folder)
    parameters = declaration.all_parameters
    if "fixed" in plain:
        plain["fixed"] = {
            name: parameters[name].typed(value) for name, value in plain["fixed"].items()
        }
    plain["space"] = typed_space(plain["space"], declaration)
    if METHOD in plain["space"]:
        named = (*plain["space"], *plain.get("fixed", {}))
        for name, entry in plain["space"].items():
            entry["only_for"] = methods_with(name, methods, named)
    search = plain.setdefault("search", {})
    if "start_from" in search:
        points = search["start_from"]
        search["start_from"] = tuple(
            {k: parameters[k].typed(v) for k, v in point.items()} for point in points
        )
    elif data["id"]["dataset"] == "digits":
        points = default_start(plain["space"], methods, plain["train"])
        whole = all(set(point) == set(plain["space"]) for point in points)
        search["start_from"] = points if whole or search.get("sampler") != "grid" else ()
    objective = plain.setdefault("objective", {})
    for one in (objective, *objective.get("also", ())):
        if "direction" not in one:
            metric = METRICS[one.get("metric", ObjectiveSpec.model_fields["metric"].default)]
            one["direction"] = metric.direction or "maximize"
    return Spec.model_validate(plain)
