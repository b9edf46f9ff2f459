"""What a spec may leave out, beyond what the model of the spec has as a default.

For the embedded digits that is the demonstration of `search_spaces/digits.yaml` (a test compares
the two), for image files the published protocol of MixOE (arXiv 2106.03917): a ResNet-50 from a
baseline of 90 epochs, 10 epochs of fine-tuning.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from lmoe_tune.readers import READERS
from lmoe_tune.spec.document import (
    Entry,
    KeyPath,
    Mapping,
    Mark,
    Node,
    Scalar,
    Sequence,
    entries_at,
)

TRAINABLE: Final = "logit_mixoe"
"""The method of a spec that names none, and the one that the digits' space is a space of."""

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

IMAGES: Final[dict[str, Any]] = {
    "data": {"coarse_ood": []},
    "model": {"arch": "resnet50", "weights": "imagenet", "baseline": {"epochs": 90}},
    "train": {"epochs": 10, "batch_size": 32, "lr": 1e-3, "weight_decay": 1e-5},
    "budget": {"trials": 32},
}

_BOUNDING = ("trials", "time", "gpu_hours")

Filled = list[tuple[KeyPath, Any]]
"""Settings that were filled in, with their values."""


def fill_in_digits(root: Mapping, *, with_space: bool) -> Filled:
    """Add to the document, in place, what it leaves out. What the document says stays, key by key
    within a section.

    `space` is taken as a whole and only `with_space`; `budget` as a whole where the document bounds
    the sweep in no way itself.
    """
    defaults = dict(DIGITS)
    if not with_space or "space" in root.entries:
        del defaults["space"]

    return _fill_in(root, defaults)


def fill_in_images(root: Mapping, wanted: Mapping, dataset: str) -> Filled:
    """The same for image files.

    `resize` and `crop` go together, and so do a network and its weights: a pair is filled in only
    if the document gives neither.

    Args:
        wanted: the document as the overrides will leave it.
        dataset: the in-distribution set; its reader declares `resize` and `crop`.
    """
    defaults = copy.deepcopy(IMAGES)
    reader = READERS[dataset]
    sized = not {"resize", "crop"}.isdisjoint(entries_at(wanted, "data"))
    if not sized and reader.resize is not None:
        defaults["data"] |= {"resize": reader.resize, "crop": reader.crop}

    if "arch" in entries_at(wanted, "model"):
        del defaults["model"]["arch"], defaults["model"]["weights"]

    return _fill_in(root, defaults)


def node_of(value: Any, mark: Mark) -> Node:
    """A document's node for a value that is implied at a place."""
    if isinstance(value, dict):
        return Mapping(mark, {key: Entry(mark, node_of(item, mark)) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return Sequence(mark, [node_of(item, mark) for item in value])

    return Scalar(mark, value)


def _fill_in(root: Mapping, defaults: dict[str, Any]) -> Filled:
    filled: Filled = []
    if not entries_at(root, "budget").keys().isdisjoint(_BOUNDING):
        del defaults["budget"]
    for section, default in defaults.items():
        _fill(root, (section,), default, filled)

    return filled


def _fill(parent: Mapping, path: KeyPath, default: Any, filled: Filled) -> None:
    key = str(path[-1])
    if key not in parent.entries and (not isinstance(default, dict) or path[0] == "space"):
        parent.set(key, node_of(default, parent.mark))
        filled.append((path, default))
        return

    if isinstance(default, dict):
        mapping = parent.entries.setdefault(key, Entry(parent.mark, Mapping(parent.mark))).value
        if isinstance(mapping, Mapping):
            for name, value in default.items():
                _fill(mapping, (*path, name), value, filled)
