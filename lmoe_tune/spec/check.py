"""Loading a spec: the file, the overrides, every check, and either a typed `Spec` or all problems
at once.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmoe_tune.errors import Problem, SpecError, UsageError
from lmoe_tune.readers import READERS
from lmoe_tune.spec import document, sections
from lmoe_tune.spec.combinations import check_combinations
from lmoe_tune.spec.declaration import METHOD, Declaration, Value, combined, methods_with
from lmoe_tune.spec.defaults import (
    TRAINABLE,
    Filled,
    fill_in_digits,
    fill_in_images,
    node_of,
)
from lmoe_tune.spec.findings import Findings
from lmoe_tune.spec.metrics import METRICS, Metric, of_term
from lmoe_tune.spec.model import NAME_PATTERN, Dataset, DataSpec, ObjectiveSpec, Spec
from lmoe_tune.spec.overrides import apply_name, apply_overrides
from lmoe_tune.spec.parameters import (
    check_parameters,
    check_values,
    default_start,
    typed_space,
    with_method,
)
from lmoe_tune.spec.record import leaves
from lmoe_tune.wording import dotted, printable, shown

Resolve = Callable[[str, Path], Declaration]
Missing = Callable[[Dataset], str | None]

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
SEARCHED: document.KeyPath = ("space", METHOD, "choices")
_START = "a spec starts with name, trainable, data and space; see search_spaces/digits.yaml"


@dataclass(frozen=True)
class LoadedSpec:
    """A spec and the file it came from."""

    spec: Spec
    path: Path
    filled_in: tuple[str, ...] = ()
    """Settings that neither the file nor an override gives, as "train.lr 0.001"."""
    given: frozenset[str] = frozenset()
    """Settings that the file or an override gives, as "train.lr"."""

    def __post_init__(self) -> None:
        # The caller may change the working directory before this is used.
        object.__setattr__(self, "path", self.path.absolute())

    @property
    def folder(self) -> Path:
        """Where the modules that it names are looked for first."""
        return self.path.resolve().parent


def load_spec(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    name: str | None = None,
    declarations: Mapping[str, Declaration],
    resolve: Resolve | None = None,
    missing: Missing | None = None,
    bounded: bool = False,
) -> LoadedSpec:
    """Read, complete and check a spec.

    Args:
        overrides: `a.b=v` each, as `--set` takes them; they go through the same checks.
        name: the sweep's name, instead of the spec's.
        declarations: the shipped trainables by name.
        resolve: gives the declaration of a `package.module:Class`, from that and the spec's folder;
            raises UsageError where it cannot.
        missing: what a data set with an absolute `root` lacks, None if nothing is missing; None:
            folders and files that the spec names need not exist.
        bounded: something else than the spec's budget ends the sweep.

    Raises:
        SpecError: with every problem there is, in the order of the file.
    """
    path = Path(path)
    root, problems = _read(path)
    filled, given = _completed(root, problems, path, overrides, declarations)
    if name is not None:
        apply_name(root, name, len(overrides) + 1)

    findings = Findings(root, problems)
    findings.check_shape()
    known, methods = _methods(findings, path, declarations, resolve)
    declaration = None
    if known:
        declaration = combined(known) if findings.items(SEARCHED) else known[0]

    sections.check_data(findings, declaration, path.parent, missing)
    sections.check_model(findings, path.parent, check_files=missing is not None)
    sections.check_train(findings)
    check_parameters(findings, declaration, methods)
    metrics = metrics_of(known)
    sections.check_objective(findings, metrics)
    sections.check_search(findings)
    sections.check_warm_start(findings)
    sections.check_budget(findings, bounded=bounded)
    sections.check_tracking(findings)
    check_combinations(findings, methods)
    if findings.problems:
        raise SpecError(findings.problems)

    assert declaration is not None, "a spec without a declaration and without a problem"
    said = tuple(
        f"{dotted(at)} {_in_words(value)}"
        for at, value in filled
        if not (at == ("name",) and name is not None)
    )

    return LoadedSpec(
        _build(root.plain(), declaration, methods, metrics, path.parent), path, said, given
    )


def metrics_of(methods: Sequence[Declaration]) -> dict[str, Metric]:
    """The metrics of an epoch by name: those that every method has, and the terms that these
    declare.
    """
    own = [of_term(term.name) for method in methods for term in method.terms or ()]
    return {metric.name: metric for metric in own} | METRICS


def load_data(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    declarations: Mapping[str, Declaration],
    missing: Missing | None = None,
) -> DataSpec:
    """The section `data` of a spec, for callers that need nothing else; the other sections may be
    wrong or absent.

    Args:
        missing: as for `load_spec`.

    Raises:
        SpecError: with every problem of that section.
    """
    path = Path(path)
    root, problems = _read(path)
    _completed(root, problems, path, overrides, declarations)
    findings = Findings(root, problems)
    findings.check_shape(("data",))
    sections.check_data(findings, None, path.parent, missing)
    found = [problem for problem in findings.problems if problem.key.split(".")[0] in ("", "data")]
    if found:
        raise SpecError(found)

    data = root.plain()["data"]
    assert isinstance(data, dict)

    return DataSpec.model_validate(_with_absolute_paths(data, path.parent))


def located(
    path: Path,
    faults: Mapping[document.KeyPath, str],
    *,
    overrides: Sequence[str],
    declarations: Mapping[str, Declaration],
) -> SpecError:
    """What is wrong with some settings of a spec that can be read, each at its place in the file or
    in the override that gives it."""
    root, _ = _read(path)
    apply_overrides(root, overrides, [], methods=declarations)
    findings = Findings(root, [])
    for at, what in faults.items():
        findings.add(at, what)
    return SpecError(findings.problems)


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


def _completed(
    root: document.Mapping,
    problems: list[tuple[document.Mark, Problem]],
    path: Path,
    overrides: Sequence[str],
    declarations: Mapping[str, Declaration],
) -> tuple[Filled, frozenset[str]]:
    """Fill in, in place, what the document and the overrides leave out. Returns the settings that
    were filled in, and the names of those that were there.

    The defaults are there before the overrides are applied, which may change a part of one; which
    defaults they are may be up to an override. An unknown data set is reported as such and not, for
    the same cause, as a spec that lacks sections.
    """
    fold_objectives(root)
    probe = copy.deepcopy(root)
    apply_overrides(probe, overrides, [], methods=declarations)
    given = {at for at, _ in leaves(probe.plain())}
    _imply(probe)
    seen = Findings(probe, [])
    dataset, trainable = (seen.plain(("data", "id", "dataset")), seen.plain(("trainable",)))

    filled: Filled = []
    if "name" not in probe.entries and re.fullmatch(NAME_PATTERN, path.stem):
        root.set("name", node_of(path.stem, root.mark))
        filled.append((("name",), path.stem))

    if "trainable" not in probe.entries:
        root.set("trainable", node_of(TRAINABLE, root.mark))
        filled.append((("trainable",), TRAINABLE))
        trainable = TRAINABLE

    if not isinstance(dataset, str) or dataset == "digits" or dataset not in READERS:
        known = isinstance(trainable, str) and (trainable in declarations or ":" in trainable)
        filled += fill_in_digits(root, with_space=trainable == TRAINABLE or not known)
    else:
        filled += fill_in_images(root, probe, dataset)

    apply_overrides(root, overrides, problems, methods=declarations)
    fold_objectives(root)
    _imply(root)

    added = [(at, value) for at, value in filled if not any(g[: len(at)] == at for g in given)]

    return added, frozenset(map(dotted, given))


def _in_words(value: Any) -> str:
    """A value that was filled in, on one line."""
    if isinstance(value, dict):
        return " and ".join(value)
    if isinstance(value, list):
        return " and ".join(item["dataset"] for item in value) or "none"

    return str(value)


def fold_objectives(root: document.Mapping) -> None:
    """Turn a list of objectives, in place, into its first entry with the others under `also`.

    Constraints may be in any entry: they apply to the trial.
    """
    given = root.entries.get("objective")
    items = copy.deepcopy(document.items_at(root, "objective"))
    entries = [item for item in items if isinstance(item, document.Mapping)]
    if given is None or not entries or len(entries) < len(items):
        return  # its shape is reported

    first, *others = entries
    for other in others:
        moved = other.entries.pop("constraints", None)
        if moved is None:
            continue

        constraints = first.entries.setdefault("constraints", moved).value
        if isinstance(constraints, document.Mapping):
            constraints.entries.update(document.entries_at(moved.value) | constraints.entries)

    first.set("also", document.Sequence(given.value.mark, list(others)), given.value.mark)
    root.set("objective", first, given.key_mark)


def _imply(root: document.Mapping) -> None:
    """Fill in, in place, what follows from the rest: the trainable of a sweep that searches it, no
    pruner for several objectives, and no default constraint on what is itself an objective."""
    methods = document.items_at(root, "space", METHOD, "choices")
    if "trainable" not in root.entries and methods:
        root.set("trainable", methods[0])

    objective = document.node_at(root, "objective")
    also = document.items_at(objective, "also")
    if not (isinstance(objective, document.Mapping) and also):
        return

    if "search" not in root.entries:
        root.set("search", document.Mapping(root.mark))
    search = document.node_at(root, "search")
    if isinstance(search, document.Mapping) and "pruner" not in search.entries:
        search.set("pruner", node_of("none", search.mark))

    named = [document.node_at(one, "metric") for one in (objective, *also)]
    optimised = [one.plain() for one in named if one is not None]
    if "constraints" not in objective.entries and "val_accuracy" in optimised:
        objective.set("constraints", document.Mapping(objective.mark))


def _methods(
    findings: Findings, path: Path, declarations: Mapping[str, Declaration], resolve: Resolve | None
) -> tuple[list[Declaration], list[Declaration]]:
    """What the trainable, or each of those that are searched, declares, as far as it is known; and
    the same once more if that is all of them, else nothing.

    A misspelt name counts as the one that was probably meant, so that the parameters are checked
    at the same time.
    """
    name = findings.plain(("trainable",))
    asked = findings.items(SEARCHED)
    names = list(asked.values())
    if asked and name is not None and name not in names:
        findings.add(
            ("trainable",),
            f"value is {shown(name)}, but must be one of space.method: {', '.join(map(str, names))}",
        )

    found = [
        _declaration(findings, at, choice, path, declarations, resolve)
        for at, choice in (asked or {("trainable",): name}).items()
    ]
    known = list({method.name: method for method in found if method is not None}.values())
    if None in found:
        return known, []

    return known, known


def _declaration(
    findings: Findings,
    at: document.KeyPath,
    name: Any,
    path: Path,
    declarations: Mapping[str, Declaration],
    resolve: Resolve | None,
) -> Declaration | None:
    """What a trainable declares; None if that has been reported as a problem."""
    if name is None or not findings.clean(at):
        return None

    if name in declarations:
        return declarations[name]

    shipped = ", ".join(declarations)
    if isinstance(name, str) and not any(char in name for char in ":./\\"):
        there_are = f"; there are {shipped}, or your own package.module:Class"
        hint = findings.did_you_mean(name, declarations) or there_are
        findings.add(at, f"unknown trainable {shown(name)}{hint}")
        return declarations.get(findings.guess(name, declarations) or "")

    if not isinstance(name, str) or not _CLASS_PATH.fullmatch(name):
        findings.refuse(at, f"one of {shipped}, or your own package.module:Class")
        return None

    if resolve is None:
        findings.add(at, f"your own trainable cannot be used here; there are {shipped}")
        return None

    try:
        # It goes by its name in the spec, whatever its declaration calls it.
        return replace(resolve(name, path.parent), name=name)
    except UsageError as error:
        findings.add(at, printable(" ".join(str(error).split())))
        return None


def _build(
    plain: dict[str, Any],
    declaration: Declaration,
    methods: Sequence[Declaration],
    metrics: Mapping[str, Metric],
    spec_folder: Path,
) -> Spec:
    """The typed spec of a document without problems: numbers in their parameters' types, paths
    absolute.
    """
    plain["data"] = _with_absolute_paths(plain["data"], spec_folder)
    weights = plain["model"].get("weights", "none")
    if weights not in sections.WEIGHTS:
        plain["model"]["weights"] = sections.absolute(weights, spec_folder)

    parameters = declaration.all_parameters
    if "fixed" in plain:
        plain["fixed"] = {
            name: parameters[name].typed(value) for name, value in plain["fixed"].items()
        }

    plain["space"] = typed_space(plain["space"], declaration)
    named = (*plain["space"], *plain.get("fixed", {}))
    if METHOD in plain["space"]:
        for name, entry in plain["space"].items():
            entry["only_for"] = methods_with(name, methods, named)

    search = plain.setdefault("search", {})
    if "start_from" in search:
        points = search["start_from"]
        if METHOD in plain["space"]:
            points = [with_method(point, methods, named) for point in points]

        def typed(point: Mapping[str, Any]) -> dict[str, Any]:
            return {name: parameters[name].typed(value) for name, value in point.items()}

        search["start_from"] = tuple(typed(point) for point in points)
    else:
        points = default_start(plain["space"], methods, plain["train"])
        whole = all(set(point) == set(plain["space"]) for point in points)
        search["start_from"] = points if whole or search.get("sampler") != "grid" else ()

    objective = plain.setdefault("objective", {})
    for one in (objective, *objective.get("also", ())):
        if "direction" not in one:
            metric = metrics[one.get("metric", ObjectiveSpec.model_fields["metric"].default)]
            one["direction"] = metric.direction or "maximize"

    return Spec.model_validate(plain)


def _with_absolute_paths(data: dict[str, Any], spec_folder: Path) -> dict[str, Any]:
    """The section `data` with the folders and files that it names as absolute paths."""
    if data.get("cache_dir") is not None:
        data["cache_dir"] = sections.absolute(data["cache_dir"], spec_folder)

    given = (data["id"], data.get("outliers"), data.get("val_coarse"))
    for dataset in (*given, *data.get("coarse_ood", ())):
        if dataset and dataset.get("root") is not None:
            dataset["root"] = sections.absolute(dataset["root"], spec_folder)

        if dataset and dataset.get("exclude"):
            dataset["exclude"] = tuple(
                sections.absolute(entry, spec_folder) if sections.is_list_file(entry) else entry
                for entry in dataset["exclude"]
            )

    return data
