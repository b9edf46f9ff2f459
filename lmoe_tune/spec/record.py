"""A spec as a sweep keeps it: written out in full, read back, and compared with the next one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from lmoe_tune.errors import Problem, SpecError
from lmoe_tune.spec import document
from lmoe_tune.spec.findings import Findings
from lmoe_tune.spec.model import Spec
from lmoe_tune.spec.sections import check_tracking
from lmoe_tune.wording import dotted, shown

CHANGEABLE = ("budget", "resources", "tracking")
"""Sections that may differ from one run of a sweep to the next."""

CHANGEABLE_DATA = ("cache", "cache_dir", "cache_limit")
"""Settings of `data` that may differ as well: where decoded images are kept changes no result."""

SETTLED_AT_START = (
    ("train", "device"),
    ("train", "precision"),
    ("train", "compile"),
    ("train", "threads"),
    ("train", "seed"),
)
"""Settings that a spec may leave open (`auto`, null) and a sweep's start decides for good."""

_RECORD = "the recorded spec"


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than text."""


_Dumper.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", document.NULL, ["~", "n", "N", ""]),
    ("bool", document.BOOL, list("tTfF")),
    ("int", document.INT, list("-+0123456789")),
    ("float", document.FLOAT, list("-+.0123456789")),
):
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, _first)
for _char, _resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items():
    _Dumper.yaml_implicit_resolvers[_char] = (
        _Dumper.yaml_implicit_resolvers.get(_char, []) + _resolvers
    )


def resolved_yaml(spec: Spec) -> str:
    """The spec with all defaults written out, in a stable order; `spec_from_resolved` reads it
    back.
    """
    text: str = yaml.dump(
        spec.model_dump(mode="json", by_alias=True),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    return text


def spec_from_resolved(text: str) -> Spec:
    """The spec of `resolved_yaml`. Raises SpecError if the text has been damaged."""
    findings = _findings_in(text)
    if findings.problems:
        raise SpecError(findings.problems)

    return Spec.model_validate(findings.root.plain())


def problems_of(spec: Spec) -> list[Problem]:
    """What is wrong with a spec that was changed in memory, whose record could not be read again."""
    findings = _findings_in(resolved_yaml(spec))
    check_tracking(findings)
    return findings.problems


def _findings_in(text: str) -> Findings:
    problems: list[tuple[document.Mark, Problem]] = []
    root = document.parse(text, _RECORD, problems)
    if not isinstance(root, document.Mapping):
        raise SpecError([Problem(f"{_RECORD}:1:1", "", "is not a mapping: it has been damaged")])

    findings = Findings(root, problems)
    findings.check_shape()
    return findings


def identity(spec: Spec) -> dict[str, Any]:
    """Everything that must not change between the runs of a sweep: all but budget, resources,
    tracking, caches.
    """
    left_out: dict[str, Any] = dict.fromkeys(CHANGEABLE, True) | {"data": set(CHANGEABLE_DATA)}
    return spec.model_dump(mode="json", by_alias=True, exclude=left_out)


def with_start_of(frozen: Spec, wanted: Spec) -> Spec:
    """The wanted spec with the points that the frozen one took from other sweeps at its start.

    As it is where it asks for other sweeps, or for other points of its own before theirs.
    """
    own, taken = wanted.search.start_from, frozen.search.start_from
    if wanted.warm_start != frozen.warm_start or taken[: len(own)] != own:
        return wanted

    search = wanted.search.model_copy(update={"start_from": taken})
    return wanted.model_copy(update={"search": search})


def settings(spec: Spec) -> dict[str, Any]:
    """Every single setting of a spec by its dotted path, without those that may change from run to
    run.
    """
    return {dotted(path): value for path, value in leaves(identity(spec))}


def diff(old: Spec, new: Spec) -> list[str]:
    """What keeps `new` from continuing the sweep of `old`: "train.lr: 0.001 -> 0.01", one per
    setting.

    What `new` leaves open (device, precision, compiling, threads, seed of the training, points of
    other sweeps) agrees with what was decided at the start.
    """
    if old.warm_start:
        new = with_start_of(old, new)
    before, after = dict(leaves(identity(old))), dict(leaves(identity(new)))
    for path in SETTLED_AT_START:
        if after[path] in (None, "auto"):
            after[path] = before[path]

    return [
        f"{dotted(path)}: {_value(before, path)} -> {_value(after, path)}"
        for path in before | after
        if path not in before or path not in after or before[path] != after[path]
    ]


def _value(leaves: dict[document.KeyPath, Any], path: document.KeyPath) -> str:
    if path not in leaves:
        return "not there"

    value = leaves[path]
    return value if isinstance(value, str) and value else "null" if value is None else shown(value)


def leaves(value: Any, path: document.KeyPath = ()) -> Iterator[tuple[document.KeyPath, Any]]:
    """The single values by path; an empty mapping or list counts as one."""
    children: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)

    if not value or not children:
        yield path, value
        return

    for key, child in children:
        yield from leaves(child, (*path, key))
