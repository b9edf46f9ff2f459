"""Settings that contradict one another, or make one another meaningless, across the sections of a
spec.

What is only worth a note (a harmless setting without effect) is a remark: `sweep/remarks.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lmoe_tune.readers import READERS
from lmoe_tune.spec.declaration import Declaration
from lmoe_tune.spec.document import KeyPath
from lmoe_tune.spec.findings import Findings
from lmoe_tune.spec.outliers import OUTLIER_RATIO, outliers_per_step

TERM = "train_"
"""Begins the names of the metrics that a method's loss gives."""
VIT_PATCH = 16  # pixels: images of vit_b_16 are cut into squares of this side


def check_combinations(findings: Findings, methods: Sequence[Declaration]) -> None:
    """Report problems that no single section can see.

    Args:
        methods: what the trainable, or each of those that are searched, declares.
    """
    _check_network(findings)
    _check_sizes(findings)
    _check_searched_for_nothing(findings, methods)

    for path, name in _named_metrics(findings).items():
        if name is not None and findings.clean(path):
            _check_given(findings, path, str(name), methods)


def _check_network(findings: Findings) -> None:
    """The embedded sets go with a network for small grey images."""
    own = findings.plain(("data", "id", "dataset"))
    arch = findings.plain(("model", "arch"), "small_cnn")
    if own is not None and READERS[own].is_embedded and arch != "small_cnn":
        text = "small_cnn: the embedded images have one channel, the other networks take three"
        findings.refuse(("model", "arch"), text)


def _check_sizes(findings: Findings) -> None:
    """Numbers of pixels that the network allows."""
    if findings.plain(("model", "arch")) != "vit_b_16":
        return

    crop, resize = findings.plain(("data", "crop")), findings.plain(("data", "resize"))
    side = crop or resize
    if side is not None and side % VIT_PATCH:
        where: KeyPath = ("data", "crop" if crop is not None else "resize")
        findings.refuse(where, f"a multiple of {VIT_PATCH} for vit_b_16")


def _check_searched_for_nothing(findings: Findings, methods: Sequence[Declaration]) -> None:
    """Every searched parameter changes something in some trial."""
    batch = findings.plain(("train", "batch_size"))

    for name in findings.keys(("space",)):
        path: KeyPath = ("space", name)
        entry = findings.plain(path)
        if not isinstance(entry, dict):
            continue

        qualifier, _, own = name.rpartition(".")
        having = [
            method
            for method in methods
            if own in method.all_parameters and qualifier in ("", method.name)
        ]
        if having and all(_is_idle(findings, own, method) for method in having):
            weights = having[0].all_parameters[own].only_with
            text = f"changes nothing while {_are(weights)} 0: take it out of the space"
            findings.add(path, text, at="key")
        elif own == OUTLIER_RATIO and batch is not None:
            counts = {outliers_per_step(ratio, batch) for ratio in _values(entry)}
            if len(counts) == 1 and len(_values(entry)) > 1:
                text = (
                    f"changes nothing: beside {batch} images every value means {counts.pop()} outliers "
                    f"in a step, as a ratio is rounded to whole outliers (1/{batch} each) and a step has two at least"
                )
                findings.add(path, text, at="key")


def _is_idle(findings: Findings, name: str, method: Declaration) -> bool:
    """Whether all weights that this parameter needs are 0 in every trial."""
    weights = method.all_parameters[name].only_with
    return bool(weights) and all(
        set(_values_of(findings, weight, method)) == {0} for weight in weights
    )


def _named_metrics(findings: Findings) -> dict[KeyPath, str | None]:
    """The metrics that the spec names, in values and as the keys of the constraints, by place."""
    entries: list[KeyPath] = [("objective",), *findings.items(("objective", "also"))]
    constrained = findings.keys(("objective", "constraints"))
    values: dict[KeyPath, str | None] = {
        (*entry, "metric"): findings.plain((*entry, "metric")) for entry in entries
    }
    return values | {("objective", "constraints", name): name for name in constrained}


def _check_given(
    findings: Findings, path: KeyPath, name: str, methods: Sequence[Declaration]
) -> None:
    """A term of the loss is given by every method, in every trial."""
    if not name.startswith(TERM) or name == "train_loss":
        return

    at: Literal["key", "value"] = "key" if path[-1] == name else "value"
    for method in methods:
        if method.terms is None:
            continue

        terms = {term.name: term for term in method.terms}
        term = terms.get(name.removeprefix(TERM))
        if term is None:
            given = ", ".join(f"{TERM}{one}" for one in terms)
            text = f"{method.name} never gives {name}; of its loss it gives {given}"
            findings.add(path, text, at=at)
        elif term.weights and all(
            0 in _values_of(findings, weight, method) for weight in term.weights
        ):
            text = (
                f"{method.name} gives {name} only where {' or '.join(term.weights)} is above 0, and "
                f"{_are(term.weights)} 0 in some trials or all: fix or search it above 0"
            )
            findings.add(path, text, at=at)


def _values_of(findings: Findings, name: str, method: Declaration) -> list[float]:
    """What a numeric parameter is in the trials: its fixed value, the ends of its range, its
    choices.
    """
    for key in (f"{method.name}.{name}", name):
        fixed = findings.plain(("fixed", key))
        if isinstance(fixed, int | float):
            return [float(fixed)]

        entry = findings.plain(("space", key))
        if isinstance(entry, dict):
            return _values(entry)

    default = method.all_parameters[name].default
    return [float(default)] if isinstance(default, int | float) else []


def _values(entry: dict[str, object]) -> list[float]:
    ends = entry.get("choices") or (entry.get("low"), entry.get("high"))
    assert isinstance(ends, list | tuple)
    return [float(end) for end in ends if isinstance(end, int | float)]


def _are(weights: Sequence[str]) -> str:
    if len(weights) == 1:
        return f"{weights[0]} is"
    return f"{' and '.join(weights)} are"
