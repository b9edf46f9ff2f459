"""Checks within and between the sections of a spec that no single field can see."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from lmoe_tune.readers import READERS
from lmoe_tune.spec.declaration import METHOD, Declaration
from lmoe_tune.spec.document import KeyPath
from lmoe_tune.spec.findings import Findings
from lmoe_tune.spec.metrics import Metric
from lmoe_tune.spec.model import Dataset, ObjectiveSpec, TrainSpec
from lmoe_tune.spec.quantity import BoundExpression
from lmoe_tune.wording import is_secret, masked, shown

VAL_COARSE: KeyPath = ("data", "val_coarse")
WEIGHTS = ("none", "imagenet")
OF_IMAGE_FILES = ("resize", "crop", "augment")


def absolute(path: str, spec_folder: Path) -> str:
    """A path of the spec: relative to the working directory where it exists there, else to its
    folder.
    """
    path = os.path.expanduser(path)
    beside = os.path.join(spec_folder, path)
    return os.path.abspath(beside if not os.path.exists(path) and os.path.exists(beside) else path)


def dataset_paths(findings: Findings) -> list[KeyPath]:
    """Where the spec names data sets."""
    coarse = findings.items(("data", "coarse_ood"))
    places: list[KeyPath] = [("data", "id"), ("data", "outliers"), VAL_COARSE, *coarse]

    return [path for path in places if findings.plain((*path, "dataset")) is not None]


def check_data(
    findings: Findings,
    declaration: Declaration | None,
    spec_folder: Path,
    missing: Callable[[Dataset], str | None] | None,
) -> None:
    """Roles of the data sets, their folders (`missing` None: not looked at), sizes and numbers of
    classes.
    """
    sets: dict[tuple[str, str | None], KeyPath] = {}
    for path in dataset_paths(findings):
        name = findings.plain((*path, "dataset"))
        root = findings.plain((*path, "root"))
        if path == ("data", "id") and not READERS[name].has_classes:
            findings.add(
                (*path, "dataset"),
                f"{name} has no classes to learn: it can be outliers or coarse_ood only",
            )

        if READERS[name].is_embedded:
            if root is not None:
                findings.add(
                    (*path, "root"), f"{name} comes with the installation: leave root out", at="key"
                )
        elif root is None:
            if findings.clean((*path, "root")):
                findings.add_missing(
                    (*path, "root"),
                    "the folder of your images" if name == "folder" else f"the folder of {name}",
                )

            continue
        elif missing is not None and findings.clean(path):
            fault = missing(Dataset(dataset=name, root=absolute(root, spec_folder)))
            if fault is not None:
                findings.add((*path, "root"), fault)

        check_exclusions(findings, path, spec_folder, check_files=missing is not None)
        where = root and absolute(root, spec_folder)
        twin = sets.setdefault((name, where), path)
        bands = READERS[name].is_embedded and VAL_COARSE in (twin, path)  # of one photograph

        if twin != path and not bands:
            role = ".".join(map(str, twin))
            findings.add(
                (*path, "dataset"),
                f"these are the images of {role}: the parts of the data must be disjoint",
            )

    needed = declaration is not None and declaration.needs_outliers and findings.keys(("data",))
    if declaration is not None and needed and findings.raw(("data", "outliers")) is None:
        findings.add_missing(("data", "outliers"), f"{declaration.name} trains with outliers")

    resize, crop = findings.plain(("data", "resize")), findings.plain(("data", "crop"))
    if resize is not None and crop is not None and crop > resize:
        findings.refuse(("data", "crop"), f"at most data.resize, {resize}")

    num_id, num_novel = (
        findings.plain(("data", key)) for key in ("num_id_classes", "num_val_novel")
    )
    if num_id is not None and num_novel is not None and num_novel > num_id - 2:
        text = (
            f"at most {num_id - 2}: of data.num_id_classes, {num_id}, two must remain to be learnt"
        )
        findings.refuse(("data", "num_val_novel"), text)

    own = findings.plain(("data", "id", "dataset"))
    if own is None:
        return

    there_are = READERS[own].num_classes
    if num_id is not None and there_are is not None and num_id > there_are:
        findings.refuse(("data", "num_id_classes"), f"at most {there_are}, the classes of {own}")
    _check_embedded(findings, own)


def _check_embedded(findings: Findings, own: str) -> None:
    """The embedded sets go with one another, and their images are as they are."""
    embedded = READERS[own].is_embedded
    for path in dataset_paths(findings):
        name = findings.plain((*path, "dataset"))
        if not findings.clean(path) or READERS[name].is_embedded == embedded:
            continue

        if embedded:
            text = f"beside {own} there are photo_china and photo_flower only, not {name}"
        else:
            text = f"{name} is embedded, 8 x 8 pixels: it goes with digits only, not with {own}"
        findings.add((*path, "dataset"), text)

    if not embedded:
        return

    for key in OF_IMAGE_FILES:
        if findings.plain(("data", key)) is not None:
            text = "the embedded sets are 8 x 8 pixels and not augmented: leave it out"
            findings.add(("data", key), text, at="key")


def check_exclusions(
    findings: Findings, path: KeyPath, spec_folder: Path, *, check_files: bool
) -> None:
    """`exclude` belongs to image folders without a class to learn; its text files exist."""
    excluded = findings.plain((*path, "exclude")) or ()
    if excluded and path == ("data", "id"):
        text = "only outliers and coarse_ood can leave classes out; data.num_id_classes says how many are learnt"
        findings.add((*path, "exclude"), text, at="key")
    elif excluded and READERS[findings.plain((*path, "dataset"))].is_embedded:
        findings.add(
            (*path, "exclude"), "the embedded images have no classes to leave out", at="key"
        )

    for place, entry in enumerate(excluded):
        if isinstance(entry, str) and is_list_file(entry) and check_files:
            file = absolute(entry, spec_folder)
            if not os.path.isfile(file):
                findings.add((*path, "exclude", place), f"there is no file {file}")


def is_list_file(entry: str) -> bool:
    """Whether an entry of `exclude` is a text file with one entry a line."""
    return entry.lower().endswith(".txt")


def check_model(findings: Findings, spec_folder: Path, *, check_files: bool) -> None:
    """The weights: a word, or a file that exists."""
    path: KeyPath = ("model", "weights")
    weights = findings.plain(path)
    epochs: KeyPath = ("model", "baseline", "epochs")

    if findings.plain(epochs) == 0 and weights in (None, *WEIGHTS) and findings.clean(path):
        text = "takes model.weights as the baseline: give the path of your own classifier there"
        findings.add(epochs, f"value is 0, which {text}")

    if weights is None or weights == "none":
        return

    if weights == "imagenet":
        if findings.plain(("model", "arch")) == "small_cnn":
            findings.add(path, "there are no ImageNet weights of small_cnn: write none")
        return

    hint = findings.did_you_mean(weights, WEIGHTS)
    is_word = not any(char in weights for char in "/\\.~")
    if (is_word or check_files) and not os.path.isfile(absolute(weights, spec_folder)):
        findings.refuse(path, "none, imagenet or the path of a checkpoint that exists", hint=hint)


def check_train(findings: Findings) -> None:
    """What the training settings ask of each other and of the resources."""
    min_lr_path: KeyPath = ("train", "min_lr")
    if findings.clean(min_lr_path):
        min_lr = findings.plain(min_lr_path, TrainSpec.model_fields["min_lr"].default)
        for path in _learning_rates(findings):
            lr = findings.plain(path)
            if isinstance(lr, int | float) and lr < min_lr:
                findings.refuse(
                    path, f"at least train.min_lr, {shown(min_lr)}, where the cosine ends"
                )

    gpu = findings.plain(("resources", "gpu"), 0)
    if (
        findings.plain(("train", "device")) == "cuda"
        and gpu == 0
        and findings.clean(("resources", "gpu"))
    ):
        findings.add(
            ("train", "device"),
            "value is 'cuda', but resources.gpu is 0: give the trials a share of a GPU",
        )

    if gpu > 1:
        findings.refuse(("resources", "gpu"), "at most 1, as a trial trains on one GPU")


def _learning_rates(findings: Findings) -> list[KeyPath]:
    """Where the spec says what a learning rate starts from, or may start from at least."""
    paths: list[KeyPath] = [("train", "lr"), ("model", "baseline", "lr")]

    for name in findings.keys(("fixed",)):
        if name.rpartition(".")[2] == "lr":
            paths.append(("fixed", name))

    for name in findings.keys(("space",)):
        if name.rpartition(".")[2] == "lr":
            paths += [("space", name, "low"), *findings.items(("space", name, "choices"))]

    return paths


def check_objective(findings: Findings, metrics: dict[str, Metric]) -> None:
    """The metrics exist and are fit for it; the direction is the metric's; the constraints can
    hold.

    Args:
        metrics: by name, with those that only this spec's methods give.
    """
    entries: list[KeyPath] = [("objective",), *findings.items(("objective", "also"))]
    seen = set()

    for entry in entries:
        path: KeyPath = (*entry, "metric")
        name = findings.plain(path)
        if entry == ("objective",) and findings.node(path) is None:
            name = ObjectiveSpec.model_fields["metric"].default
        metric = _metric(findings, metrics, path, name, at="value")
        if metric is None:
            continue

        if metric.name in seen:
            findings.add(path, f"{metric.name} is an objective already")
        seen.add(metric.name)

        direction = findings.plain((*entry, "direction"))
        if metric.direction is None and direction is None:
            findings.add(path, f"{metric.name} is your method's own: say its direction, too")
        if metric.direction is not None and direction not in (None, metric.direction):
            better = {"maximize": "higher", "minimize": "lower"}[metric.direction]
            text = f"value is '{direction}', but {metric.name} is better when {better}: write {metric.direction}"
            findings.add((*entry, "direction"), text)

    for name in findings.keys(("objective", "constraints")):
        where: KeyPath = ("objective", "constraints", name)
        constrained = _metric(findings, metrics, where, name, at="key")
        if constrained is not None and findings.clean(where):
            _check_bounds(findings, where, constrained)


def _metric(
    findings: Findings,
    metrics: dict[str, Metric],
    path: KeyPath,
    name: str | None,
    *,
    at: Literal["key", "value"],
) -> Metric | None:
    if name is None:
        return None

    metric = metrics.get(name)
    searchable = [name for name, one in metrics.items() if one.searchable]
    if metric is None:
        hint = findings.did_you_mean(name, searchable) or f"; there are {', '.join(searchable)}"
        own = ""
        if name.startswith("train_"):
            own = "; a term of your own method is declared: Declaration(terms=(Term(...), ...))"
        findings.add(path, f"there is no metric {shown(name)}{hint}{own}", at=at)
        return None

    fault = ""
    if not metric.searchable:
        fault = (
            f"{name} is recorded only: an objective or constraint can use {', '.join(searchable)}"
        )
    elif (
        metric.needs_outliers
        and findings.clean(("data", "outliers"))
        and findings.plain(("data", "outliers")) is None
    ):
        fault = f"{name} is measured on outliers, but data.outliers is not given"

    if fault:
        findings.add(path, fault, at=at)
        return None

    return metric


def _check_bounds(findings: Findings, path: KeyPath, metric: Metric) -> None:
    ends: dict[str, BoundExpression] = {}
    for key in ("min", "max"):
        value = findings.plain((*path, key))
        if value is None:
            continue

        bound = BoundExpression.parse(value)
        fault = _bound_fault(bound, metric, key)

        if fault:
            findings.add((*path, key), f"value is {shown(value)}, but {fault}")
        else:
            ends[key] = bound

    if not any(findings.node((*path, key)) for key in ("min", "max")):
        findings.add(path, "bounds nothing: give min, max or both")

    low, high = ends.get("min"), ends.get("max")
    if (
        low is not None
        and high is not None
        and low.relative == high.relative
        and low.offset > high.offset
    ):
        text = f"cannot hold: min is {shown(low.notation())}, but must be at most max, {shown(high.notation())}"
        findings.add((*path, "min"), text)


def _bound_fault(bound: BoundExpression, metric: Metric, key: str) -> str:
    """Why a bound on a metric makes no sense: it can never hold, or always does."""
    width = metric.high - metric.low
    limits = f"between {metric.low:g} and {metric.high:g}"

    if not bound.relative:
        if metric.low <= bound.offset <= metric.high:
            return ""
        if math.isinf(width):
            return f"must be at least {metric.low:g}: {metric.name} is never below it"

        hint = ""
        if key == "min" and -width < bound.offset < metric.low:
            hint = f"; did you mean 'baseline - {abs(bound.offset):g}'?"
        elif 1 < bound.offset <= 100 and metric.high == 1:
            hint = f"; did you mean {bound.offset / 100:g}?"

        return f"must be {limits}, as {metric.name} is{hint}"

    if not metric.in_baseline:
        return f"must be a number: the baseline has no {metric.name}"
    if abs(bound.offset) > width:
        return f"no baseline can make that hold: {metric.name} is {limits}, so add at most {width:g} to it"

    return ""


def check_search(findings: Findings) -> None:
    """What the sampler and the pruner ask of the space and of the training."""
    epochs, min_epochs = (
        findings.plain(("train", "epochs")),
        findings.plain(("search", "min_epochs")),
    )
    if epochs is not None and min_epochs is not None and min_epochs > epochs:
        findings.refuse(("search", "min_epochs"), f"at most train.epochs, {epochs}")

    sampler = findings.plain(("search", "sampler"))
    if findings.items(("objective", "also")):
        pruner = findings.plain(("search", "pruner"), "none")
        if pruner != "none":
            findings.add(
                ("search", "pruner"),
                f"{pruner} judges by one metric, but there are several objectives: write none",
            )

        if sampler == "cmaes":
            findings.add(
                ("search", "sampler"),
                "cmaes optimises one metric, but there are several: use nsga2 or tpe",
            )

    if sampler == "grid" and findings.node(("space", METHOD)) is not None:
        text = "a grid has every parameter in every trial, but each method has its own: use tpe or random"
        findings.add(("search", "sampler"), text)

    entries = {name: findings.plain(("space", name)) for name in findings.keys(("space",))}
    if not entries or not all(entries.values()):
        return

    ranges = [name for name, entry in entries.items() if "choices" not in entry]
    continuous = [name for name in ranges if not entries[name].get("step")]

    if sampler == "grid" and (
        open_ends := [name for name in continuous if not entries[name].get("int")]
    ):
        text = (
            f"grid needs choices or a step for every parameter: {', '.join(open_ends)} has neither"
        )
        findings.add(("search", "sampler"), text)
    elif sampler == "grid":
        for place, point in enumerate(findings.plain(("search", "start_from")) or ()):
            if isinstance(point, dict) and (
                lacking := [name for name in entries if name not in point]
            ):
                text = f"a grid needs whole points, but this one leaves out {', '.join(lacking)}"
                findings.add(("search", "start_from", place), text)
    elif sampler == "cmaes" and len(ranges) < 2:
        findings.add(
            ("search", "sampler"),
            f"cmaes needs at least two ranges, but the space has {len(ranges)}: use tpe",
        )
    elif sampler == "qmc" and not ranges:
        findings.add(
            ("search", "sampler"),
            "qmc needs at least one range, but the space has choices only: use grid",
        )


def check_warm_start(findings: Findings) -> None:
    """Each sweep is named once, and none is this one. Whether they exist depends on the home."""
    names = findings.plain(("warm_start",)) or ()
    for place, name in enumerate(names):
        path: KeyPath = ("warm_start", place)
        if name == findings.plain(("name",)):
            findings.add(path, f"{name} is this sweep itself; name others")
        elif name in names[:place]:
            findings.add(path, f"{name} is in the list twice")


def check_budget(findings: Findings, *, bounded: bool) -> None:
    """Something ends the sweep."""
    path: KeyPath = ("budget",)
    gpu_hours = findings.plain((*path, "gpu_hours"))

    if (
        gpu_hours is not None
        and findings.plain(("resources", "gpu"), 0) == 0
        and findings.clean(("resources", "gpu"))
    ):
        findings.add(
            (*path, "gpu_hours"),
            "resources.gpu is 0: no GPU-hours are ever used up; bound trials or time",
        )

    keys = ("trials", "time", "gpu_hours")
    bounded = bounded or any(findings.plain((*path, key)) is not None for key in keys)
    finite = bounded or findings.plain(("search", "sampler")) == "grid"
    if findings.node(path) is not None and findings.clean(path) and not finite:
        findings.add(path, "nothing ends the sweep: give trials, time or gpu_hours")


def check_tracking(findings: Findings) -> None:
    """The URI is one, and carries no credentials: the spec is written into the sweep's records."""
    path: KeyPath = ("tracking", "uri")
    uri = findings.plain(path)
    if uri is None:
        return

    try:
        parts = urlsplit(uri)
        query = parse_qsl(parts.query, keep_blank_values=True)
        secret = parts.password is not None or (
            parts.scheme in ("http", "https") and "@" in parts.netloc
        )
    except ValueError:
        findings.add(path, "must be a URI such as http://host:5000 or sqlite:///runs/mlflow.db")
        return

    if secret or masked(uri) != uri or any(is_secret(key) for key, _ in query):
        text = "must not hold credentials, as the spec is kept with the sweep: put it into MLFLOW_TRACKING_URI"
        findings.add(path, text)
    elif "://" not in uri and uri != "databricks":
        findings.refuse(path, "a URI such as http://host:5000 or sqlite:///runs/mlflow.db")
