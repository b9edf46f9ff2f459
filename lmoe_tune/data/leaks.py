"""Images that are in two sets which must be disjoint, and images of one set that copy one another.

The first are leaks: the same file, the same bytes, or a copy; no search starts with them. The
second are common in public data sets: near-duplicates across train, val and test are reported, and
tests can be measured without them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from lmoe_tune.data.copies import Pair, copies_between, copies_within
from lmoe_tune.data.usable_images import UsableImages
from lmoe_tune.data.worker_processes import Progress, unwatched
from lmoe_tune.durable import write_durably, writing
from lmoe_tune.wording import printable

VERSION = 2
"""Goes up with every change of what is found."""


@dataclass(frozen=True)
class Leak:
    """An image that is the same as another; paths are relative to their sets' roots."""

    path: str
    other: str
    how: str

    def __str__(self) -> str:
        return f"{printable(self.path)} is {printable(self.other)} ({self.how})"


def find_leaks(
    first: UsableImages,
    second: UsableImages,
    home: Path | None = None,
    progress: Progress = unwatched,
) -> list[Leak]:
    """The images of `second` that are in `first` too, one leak each, in order; the result is kept
    under the home."""

    def find() -> list[Leak]:
        leaks = _same_bytes(first, second)
        for pair in copies_between(first, second, set(leaks), progress):
            leaks[pair.place] = _leak(first, second, pair)
        return [leaks[place] for place in sorted(leaks)]

    return _kept(home, (first, second), find)


def find_near_duplicates(
    found: UsableImages, home: Path | None = None, progress: Progress = unwatched
) -> list[Leak]:
    """Pairs that connect the images of one set that copy one another; kept under the home.

    Identical files are not among them: one of each is left out of a set from the start.
    """

    def find() -> list[Leak]:
        return sorted(
            (_leak(found, found, pair) for pair in copies_within(found, progress)), key=astuple
        )

    return _kept(home, (found,), find)


def groups_of(pairs: Iterable[Leak]) -> list[set[str]]:
    """The paths that some pairs connect, group by group."""
    group_of: dict[str, set[str]] = {}
    for pair in pairs:
        merged = group_of.get(pair.path, {pair.path}) | group_of.get(pair.other, {pair.other})
        for path in merged:
            group_of[path] = merged
    return list({id(group): group for group in group_of.values()}.values())


def copied(pairs: Iterable[Leak], tested: Iterable[str], trained: Iterable[str]) -> set[str]:
    """The tested paths that are, or copy, a trained one."""
    tested, trained = set(tested), set(trained)
    seen = tested & trained
    for group in groups_of(pairs):
        if group & trained:
            seen |= group & tested
    return seen


def _leak(first: UsableImages, second: UsableImages, pair: Pair) -> Leak:
    how = "a copy, encoded again"
    if pair.mirrored:
        how = "a mirrored copy"
    return Leak(second.paths[pair.place], first.paths[pair.other], how)


def _kept(
    home: Path | None, sets: Sequence[UsableImages], find: Callable[[], list[Leak]]
) -> list[Leak]:
    """What was found among these images before, else what `find` finds now."""
    if home is None:
        return find()

    digest = hashlib.sha256(f"{VERSION}".encode())
    for found in sets:
        for path, one in zip(found.paths, found.digests, strict=True):
            digest.update(f"{path}\x1f{one.sha256}\x1e".encode(errors="surrogateescape"))
        digest.update(b"\x1d")
    record = home / "data" / "leaks" / f"{digest.hexdigest()[:16]}.json"
    try:
        return [Leak(*entry) for entry in json.loads(record.read_bytes())]
    except (OSError, ValueError, TypeError):
        pass  # there is none, or it is damaged

    leaks = find()
    with writing(record):
        record.parent.mkdir(parents=True, exist_ok=True)
    write_durably(record, json.dumps([astuple(leak) for leak in leaks]).encode())
    return leaks


def _same_bytes(first: UsableImages, second: UsableImages) -> dict[int, Leak]:
    place_of = {digest.sha256: place for place, digest in enumerate(first.digests)}
    paths, others = first.paths, second.paths
    leaks = {}

    for place, digest in enumerate(second.digests):
        other = place_of.get(digest.sha256)
        if other is None:
            continue
        ours = (first.table.root / paths[other]).resolve()
        theirs = (second.table.root / others[place]).resolve()
        how = "the same bytes"
        if ours == theirs:
            how = "the same file"
        leaks[place] = Leak(others[place], paths[other], how)

    return leaks
