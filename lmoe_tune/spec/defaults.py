"""What a spec with the embedded digits may leave out: the demonstration of `search_spaces/digits.yaml`.

A test compares the two. What the model of the spec has as a default already is not repeated here.
"""

from __future__ import annotations

from typing import Any, Final

from lmoe_tune.spec.document import Entry, Mapping, Mark, Node, Scalar, Sequence

DIGITS_TRAINABLE: Final = "logit_mixoe"
"""The method that the default space is one of; with another one the spec must say what to search."""

DIGITS: Final[dict[str, Any]] = {
    "data": {"outliers": {"dataset": "photo_china"}, "coarse_ood": [{"dataset": "photo_flower"}]},
    "model": {
        "arch": "small_cnn",
        "weights": "none",
        "baseline": {"epochs": 10, "lr": 0.1, "weight_decay": 1e-4, "batch_size": 32},
    },
    "train": {"epochs": 10, "batch_size": 32, "lr": 0.01, "weight_decay": 1e-4},
    "space": {
        "mixing_alpha": {"low": 0.1, "high": 10, "log": True},
        "consistency_weight": {"low": 0, "high": 5},
        "outlier_ratio": {"low": 0.25, "high": 1},
    },
    "search": {"max_concurrent": 2},
    "budget": {"trials": 16},
}

_BOUNDING = ("trials", "time", "gpu_hours")


def fill_in_digits(root: Mapping, *, with_space: bool) -> None:
    """Add to the document, in place, what it leaves out. What it says stays, key by key within a section.

    `space` is taken as a whole and only `with_space`; `budget` as a whole where the document bounds the sweep
    in no way itself.
    """
    for section, default in DIGITS.items():
        given = root.get(section)
        if section == "space" and (given is not None or not with_space):
            continue
        if (
            section == "budget"
            and isinstance(given, Mapping)
            and any(key in given.entries for key in _BOUNDING)
        ):
            continue
        _fill(root, section, default)


def node_of(value: Any, mark: Mark) -> Node:
    """A document's node for a value that is implied at a place."""
    if isinstance(value, dict):
        return Mapping(mark, {key: Entry(mark, node_of(item, mark)) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return Sequence(mark, [node_of(item, mark) for item in value])
    return Scalar(mark, value)


def _fill(parent: Mapping, key: str, default: Any) -> None:
    given = parent.get(key)
    if key not in parent.entries:
        parent.entries[key] = Entry(parent.mark, node_of(default, parent.mark))
    elif isinstance(given, Mapping) and isinstance(default, dict):
        for name, value in default.items():
            _fill(given, name, value)
