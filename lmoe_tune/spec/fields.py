"""The fields of the spec's models by path: which keys there are, and what a value must be."""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Le, MaxLen
from pydantic import BaseModel

from lmoe_tune.spec.model import MustBe, Spec
from lmoe_tune.spec.quantity import bounds, is_number
from lmoe_tune.wording import suggestion

KeyPath = tuple[str | int, ...]

SYNONYMS = {
    "min": "low", "max": "high", "lower": "low", "upper": "high", "values": "choices", "options": "choices",
    "categorical": "choices", "q": "step", "log_scale": "log", "learning_rate": "lr", "num_epochs": "epochs",
    "n_trials": "trials", "num_trials": "trials", "max_trials": "trials", "timeout": "time",
    "gpus": "gpu", "cpus": "cpu", "algorithm": "sampler", "scheduler": "pruner",
    "concurrency": "max_concurrent", "n_jobs": "max_concurrent", "architecture": "arch",
    "pretrained": "weights", "goal": "direction", "mode": "direction", "method": "trainable", "path": "root",
    "search_space": "space", "parameters": "space", "hyperparameters": "space",
}  # fmt: skip
"""Other tools' names for a key; used only if the right one is a key there."""


def keys_at(path: KeyPath) -> tuple[str, ...]:
    """The keys a mapping at this path may have; empty if any name goes, or where no mapping
    does.
    """
    return _keys(_field(path)[0])


def must_be(path: KeyPath, value: object = None) -> str:
    """What the value at this path must be, in words that follow "must be".

    Limits that only guard against slips (100,000 epochs) are named to a value that is beyond them.
    """
    annotation, metadata = _field(path)
    return _words(
        annotation, [limit for limit in metadata if not _guards(limit) or _beyond(value, limit)]
    )


def takes(path: KeyPath, kind: type) -> bool:
    """Whether values of this type (int, float, str) are possible at this path."""
    annotation = _field(path)[0]
    if annotation is float and kind is int:
        return True

    if _is_union(annotation):
        members = get_args(annotation)
    else:
        members = (annotation,)
    strings = any(get_origin(member) is Literal for member in members)

    return kind in members or (kind is str and strings)


def takes_text(path: KeyPath) -> bool:
    """Whether the value at this path is text, so that what is typed on a command line is that text."""
    return _field(path)[0] is str


def allows_null(path: KeyPath) -> bool:
    """Whether the setting at this path may be null, which means its default."""
    section = _field(path[:-1])[0]
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        return False

    by_key = {field.alias or name: field for name, field in section.model_fields.items()}
    return path[-1] in by_key and type(None) in get_args(by_key[str(path[-1])].annotation)


def options_at(path: KeyPath) -> tuple[str, ...]:
    """The words that the value at this path may be; empty if it is not one of a few words."""
    annotation, metadata = _field(path)
    for entry in metadata:
        if isinstance(entry, MustBe) and entry.options:
            return entry.options

    return _options(annotation)


def _options(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    if annotation is bool:
        return "true", "false"
    if not _is_union(annotation):
        return ()

    of_members = [_options(member) for member in get_args(annotation)]
    return tuple(itertools.chain(*of_members)) if all(of_members) else ()


def meant_key(path: KeyPath, key: str) -> str | None:
    """What an unknown key of the mapping at this path was meant to be: a key of it, or a path
    elsewhere.
    """
    keys = keys_at(path)
    if SYNONYMS.get(key.lower()) in keys:
        return SYNONYMS[key.lower()]

    return suggestion(key, keys) or (_elsewhere(key) if len(path) < 2 else None)


def _guards(limit: object) -> bool:
    return isinstance(limit, MaxLen) or (isinstance(limit, Le) and float(str(limit.le)) >= 1e5)


def _beyond(value: object, limit: object) -> bool:
    if isinstance(limit, MaxLen):
        return isinstance(value, tuple) and len(value) > limit.max_length

    return is_number(value) and isinstance(limit, Le) and value > float(str(limit.le))


def _elsewhere(key: str) -> str | None:
    """The dotted path of a setting of this name in one of the sections."""
    for name, field in Spec.model_fields.items():
        if key in _keys(_bare(field.annotation, [])[0]):
            return f"{name}.{key}"

    return None


def _keys(annotation: Any) -> tuple[str, ...]:
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return ()
    return tuple(field.alias or name for name, field in annotation.model_fields.items())


def _field(path: KeyPath) -> tuple[Any, list[Any]]:
    """Annotation and metadata of the field at a path, without None."""
    annotation: Any = Spec
    metadata: list[Any] = []

    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            by_key = {field.alias or name: field for name, field in annotation.model_fields.items()}
            if part not in by_key:
                return object, []

            annotation, metadata = (by_key[str(part)].annotation, list(by_key[str(part)].metadata))
        elif get_origin(annotation) is dict:
            annotation, metadata = get_args(annotation)[1], []
        elif get_origin(annotation) is tuple:
            annotation, metadata = get_args(annotation)[0], []
        else:
            return object, []

        annotation, metadata = _bare(annotation, metadata)

    return annotation, metadata


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _bare(annotation: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _bare(inner, [*metadata, *more])

    if _is_union(annotation):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            return _bare(members[0], metadata)

    return annotation, metadata


def _words(annotation: Any, metadata: Iterable[Any]) -> str:
    said = [entry.text for entry in metadata if isinstance(entry, MustBe)]
    if said:
        return said[0]

    limits = {name: limit for entry in metadata for name, limit in asdict(entry).items()}
    if annotation in (int, float):
        noun = {int: "a whole number", float: "a number"}[annotation]
        return noun + bounds(
            limits.get("gt", limits.get("ge")),
            limits.get("lt", limits.get("le")),
            low_exclusive="gt" in limits,
            high_exclusive="lt" in limits,
        )

    if annotation is bool:
        return "true or false"
    if words := _options(annotation):
        return f"one of {', '.join(words)}"
    if annotation is str:
        return "text"
    if get_origin(annotation) is tuple:
        return f"a list of at most {limits['max_length']}" if "max_length" in limits else "a list"
    if get_origin(annotation) is dict or _keys(annotation):
        return "a mapping"

    return "a number, text, true or false"
