"""Which classes of the outliers are left out: those that a spec names, and those that show what is learnt.

A WebVision class is its line in synsets.txt, "n04285008 sports car, sport car". With cars, aircraft, birds or
butterflies in-distribution, the synsets of these kinds are left out by default: by words in their names, and by
stretches of WordNet 3.0's numbers, which follow its tree, so that all birds are in three of them. The rule knows
ImageNet's 1,000 synsets and prefers to leave out too much (fire engines, aircraft carriers). It looks at what a
synset is called, not at what a picture shows: street scenes still have cars in them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmoe_tune.data.table import ImageTable
from lmoe_tune.readers import READERS
from lmoe_tune.readers.files import is_image, read_lines
from lmoe_tune.readers.layout import Kind

_SYNSET = re.compile(r"n(\d{8})\b")
_GENERIC = re.compile(r"(class|category|label|cls|group|kind|type|id|c|k)? ?([a-z]|\d+)?")


@dataclass(frozen=True, eq=False)
class Exclusion:
    """What was left out of a table: `kept` (N,) per image, the `classes` by why, and entries that match nothing."""

    kept: npt.NDArray[np.bool_]
    by_kind: tuple[str, ...]
    by_name: tuple[str, ...]
    unmatched: tuple[str, ...]


def exclude(table: ImageTable, entries: Sequence[str], learnt: str | None) -> Exclusion:
    """Leave out classes and images.

    Args:
        entries: names of classes, synsets (n04285008), paths of images relative to the root, or text files (.txt)
            with one of these a line.
        learnt: the in-distribution data set; its kind is left out of WebVision.

    Raises:
        LayoutError: a text file cannot be read.
    """
    wanted = [line for entry in entries for line in _lines(entry)]
    paths = {entry for entry in wanted if is_image(entry.rpartition("/")[2])}
    class_of: dict[str, set[str]] = {}
    for name in table.classes:
        for alias in _aliases(name):
            class_of.setdefault(alias, set()).add(name)
    named: set[str] = set()
    unmatched = []
    for entry in wanted:
        if entry in paths:
            continue
        found = class_of.get(plain_name(entry)) or class_of.get(entry.strip().lower())
        if found:
            named |= found
        else:
            unmatched.append(entry)
    kind = READERS[learnt].shows if learnt and table.dataset == "webvision" else None
    shown = [name for name in table.classes if kind is not None and shows(name, kind)]
    out = np.isin(table.labels, [table.classes.index(name) for name in {*named, *shown}])
    by_path = (
        np.array([path in paths for path in table.paths], dtype=bool)
        if paths
        else np.zeros(len(table), bool)
    )
    return Exclusion(
        kept=~(out | by_path),
        by_kind=tuple(shown),
        by_name=tuple(sorted(named)),
        unmatched=tuple(unmatched),
    )


def shows(synset: str, kind: Kind) -> bool:
    """Whether a synset's line is of a kind."""
    number = _SYNSET.match(synset)
    if number is not None and any(first <= int(number[1]) <= last for first, last in kind.numbers):
        return True
    name = f" {plain_name(synset)} "
    return any(f" {word} " in name for word in kind.words)


def same_classes(learnt: ImageTable, other: ImageTable) -> list[tuple[str, str]]:
    """Classes of two sets with the same name, apart from names that say nothing (class_1, 07)."""
    ours = {plain_name(name): name for name in learnt.classes}
    pairs = [
        (ours[alias], name) for name in other.classes for alias in _aliases(name) if alias in ours
    ]
    return sorted({pair for pair in pairs if not _GENERIC.fullmatch(plain_name(pair[0]))})


def suggestion(entry: str, table: ImageTable) -> str:
    """The class that an entry was probably meant to name, or nothing."""
    names = {plain_name(name): name for name in table.classes}
    close = difflib.get_close_matches(plain_name(entry), names, n=1, cutoff=0.75)
    return names[close[0]] if close else ""


def plain_name(name: str) -> str:
    """A class's name for comparing: lower case, blanks for punctuation, without synset or number before it."""
    name = re.sub(r"^(n\d{8}\b|\d+\.)", " ", name.strip())
    return " ".join(re.sub(r"[\W_]+", " ", name.lower()).split()) or name.strip().lower()


def _aliases(name: str) -> set[str]:
    """What a class may be called: its whole name, its synset, and each of the names of a synset."""
    number = _SYNSET.match(name)
    parts = name.split(",") if number is not None else [name]
    return {name.strip().lower(), plain_name(name), *map(plain_name, parts)} | (
        {number[0]} if number else set()
    )


def _lines(entry: str) -> list[str]:
    return read_lines(Path(entry)) if entry.lower().endswith(".txt") else [entry]
