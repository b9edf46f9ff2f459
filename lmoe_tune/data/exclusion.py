"""Which classes of the outliers are left out: those that a spec names, and those that show the
known classes.

A WebVision class is its line in synsets.txt, "n04285008 sports car, sport car". With cars,
aircraft, birds or butterflies in-distribution, the synsets of these kinds are left out by default:
by words in their names, and by ranges of WordNet 3.0's numbers, which follow its tree, so that
three ranges hold all birds. The rule is made for ImageNet's 1,000 synsets and would rather leave
out too much (fire engines, aircraft carriers). It goes by a synset's name, not by what a picture
shows: street scenes still have cars in them.
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
from lmoe_tune.readers.files import is_image
from lmoe_tune.readers.layout import Kind
from lmoe_tune.readers.names import SHOWN, folded, path_key, read_names

MAX_COMPARED = 1000  # paths that an unmatched path is compared with
_SYNSET = re.compile(r"n(\d{8})\b")
_GENERIC = re.compile(r"(class|category|label|cls|group|kind|type|id|c|k)? ?([a-z]|\d+)?")


@dataclass(frozen=True, eq=False)
class Exclusion:
    """What is left out of a table: `kept` (N,) per image, the excluded classes by reason, and
    entries that match nothing.

    `unmatched` and `unmatched_paths` map an entry to the nearest class or path, "" if none is near;
    `empty` are the text files without a line.
    """

    kept: npt.NDArray[np.bool_]
    by_kind: tuple[str, ...]
    by_name: tuple[str, ...]
    unmatched: dict[str, str]
    unmatched_paths: dict[str, str]
    empty: tuple[str, ...]


def exclude(table: ImageTable, entries: Sequence[str], learnt: str | None) -> Exclusion:
    """Leave out classes and images.

    Args:
        entries: names of classes, synsets (n04285008), paths of images relative to the root, or
            text files (.txt) with one of these a line.
        learnt: the in-distribution data set; what it shows is left out of WebVision.

    Raises:
        LayoutError: a text file cannot be read.
    """
    named_by = {entry: _names(entry) for entry in entries}
    wanted = [name for names in named_by.values() for name in names]
    paths = [name for name in wanted if is_image(path_key(name).rpartition("/")[2])]
    is_path = set(paths)
    by_name, unmatched = _classes_named(table, [name for name in wanted if name not in is_path])

    by_kind = []
    kind = READERS[learnt].shows if learnt else None
    if kind is not None and table.dataset == "webvision":
        by_kind = [name for name in table.classes if shows(name, kind)]
    numbers = [table.classes.index(name) for name in {*by_name, *by_kind}]
    out = np.isin(table.labels, numbers)

    unmatched_paths: dict[str, str] = {}
    if paths:
        keys = [path_key(path) for path in table.paths]
        named = {_relative(path, table.root): path for path in paths}
        out |= np.array([key in named for key in keys], dtype=bool)
        lacking = [named[key] for key in sorted(named.keys() - set(keys))]
        unmatched_paths = _nearest_paths(lacking, keys)

    return Exclusion(
        kept=~out,
        by_kind=tuple(by_kind),
        by_name=tuple(sorted(by_name)),
        unmatched=unmatched,
        unmatched_paths=unmatched_paths,
        empty=tuple(entry for entry, names in named_by.items() if not names),
    )


def _classes_named(table: ImageTable, entries: Sequence[str]) -> tuple[set[str], dict[str, str]]:
    """The classes that the entries name; the entries that name none, with the nearest class."""
    class_of: dict[str, set[str]] = {}
    for name in table.classes:
        for alias in _aliases(name):
            class_of.setdefault(alias, set()).add(name)

    named: set[str] = set()
    unmatched = {}
    for entry in entries:
        found = class_of.get(plain_name(entry)) or class_of.get(folded(entry))
        if found:
            named |= found
        else:
            unmatched[entry] = suggestion(entry, table)
    return named, unmatched


def _relative(path: str, root: Path) -> str:
    """The key of a path that may be absolute."""
    return path_key(path).removeprefix(f"{path_key(str(root))}/")


def _nearest_paths(lacking: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """For each path without a match, the nearest (by its key); guessed for the first few only."""
    nearest = dict.fromkeys(lacking, "")
    for path in lacking[:SHOWN]:
        folder, _, name = path_key(path).rpartition("/")
        near = [key for key in keys if folded(key.rpartition("/")[2]) == folded(name)]
        near = near or [key for key in keys if key.rpartition("/")[0] == folder]
        near = near or list(keys)
        close = difflib.get_close_matches(path_key(path), near[:MAX_COMPARED], n=1, cutoff=0.5)
        nearest[path] = "".join(close)
    return nearest


def shows(synset: str, kind: Kind) -> bool:
    """Whether a synset, given by its line, is of a kind."""
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
    return "".join(names[name] for name in close)


def plain_name(name: str) -> str:
    """A class's name for comparing: folded, blanks for punctuation, without a leading synset or
    number."""
    name = re.sub(r"^(n\d{8}\b|\d+\.)", " ", name.strip())
    return " ".join(re.sub(r"[\W_]+", " ", folded(name)).split()) or folded(name)


def _aliases(name: str) -> set[str]:
    """What a class may be called: its whole name, its synset, and each of the names of a synset."""
    number = _SYNSET.match(name)
    aliases = {folded(name), plain_name(name)}
    if number is not None:
        aliases |= {number[0], *map(plain_name, name.split(","))}
    return aliases


def _names(entry: str) -> list[str]:
    if entry.lower().endswith(".txt"):
        return read_names(Path(entry))
    return [entry]
