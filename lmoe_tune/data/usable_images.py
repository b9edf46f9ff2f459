"""From a spec to the usable images of each set: read, limited, without broken ones and duplicates.

This is the data checker's view: it holds the images of every part, sealed ones too, as paths and
hashes. What a search sees of it is in `search_plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmoe_tune.data.digests import Digest, digest_images
from lmoe_tune.data.exclusion import Exclusion, exclude
from lmoe_tune.data.splits import (
    ClassSplit,
    ImageSplit,
    IntArray,
    fixed_subset,
    pools,
    split_classes,
    split_official,
)
from lmoe_tune.data.table import ImageTable, Part, read_table
from lmoe_tune.data.worker_processes import unwatched
from lmoe_tune.errors import UsageError
from lmoe_tune.readers import READERS, LayoutError
from lmoe_tune.readers.names import path_key, some
from lmoe_tune.spec import Dataset, DataSpec
from lmoe_tune.wording import counted, printable

MAX_BROKEN_FRAC = 0.1
"""Share of a set's images; more is not bad luck but an interrupted copy."""

Say = Callable[[str, int, int], None]
"""Receives the task, such as "data.id: files read", how many are done, and of how many."""


@dataclass(frozen=True)
class Finding:
    """Something about the data: `where` is the setting, `stops` whether a search must not start."""

    where: str
    what: str
    fix: str
    stops: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. To fix it: {self.fix}"


class UnusableError(LayoutError):
    """The images cannot be split as the spec asks."""


@dataclass(frozen=True, eq=False, kw_only=True)
class UsableImages(Part):
    """The usable images of one data set, and their `digests` (M,)."""

    where: str
    digests: tuple[Digest, ...]
    broken: tuple[tuple[str, str], ...] = ()
    """Path and why."""
    duplicates: tuple[tuple[str, str], ...] = ()
    """Path of an image that is left out, and of the identical one that is kept."""
    excluded: tuple[str, ...] = ()
    """Classes that are left out."""
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = field(default=())

    @property
    def hashes(self) -> dict[int, str]:
        """The hashes of the files by their indices."""
        hashes = [digest.sha256 for digest in self.digests]
        return dict(zip(self.indices.tolist(), hashes, strict=True))


Selected = Mapping[str, UsableImages]
"""The usable images of the sets that a spec names, by setting."""

ID, OUTLIERS, VAL_COARSE, COARSE_OOD = (
    "data.id",
    "data.outliers",
    "data.val_coarse",
    "data.coarse_ood",
)


def sets_of(data: DataSpec, *, sealed: bool) -> dict[str, Dataset]:
    """The data sets that a spec names, by setting; `sealed`: the coarse test sets, too."""
    named = {ID: data.id, OUTLIERS: data.outliers, VAL_COARSE: data.val_coarse}
    if sealed:
        named |= {f"{COARSE_OOD}.{place}": one for place, one in enumerate(data.coarse_ood)}
    return {where: one for where, one in named.items() if one is not None}


def coarse_sets(selected: Selected) -> list[UsableImages]:
    """The coarse test sets among some sets, in order."""
    return [one for where, one in selected.items() if where.startswith(COARSE_OOD)]


def select_all(data: DataSpec, home: Path | None, *, sealed: bool = False) -> Selected:
    """The usable images of every set: the in-distribution ones of all classes, the outliers of all
    pools, the coarse ones to validate with; `sealed`: the coarse test sets, too.

    Raises UsageError with every finding that stops a search, or that a folder cannot be read.
    """
    selected = {where: select(data, where, home) for where in sets_of(data, sealed=sealed)}
    findings = [finding for found in selected.values() for finding in found.findings]
    stopping = [str(finding) for finding in findings if finding.stops]
    if stopping:
        raise UsageError("\n".join(stopping))
    return selected


def class_split(data: DataSpec, num_classes: int) -> ClassSplit:
    """The class split of a data set with this many classes: MixOE's numbers if it is the published
    set.

    Raises:
        UnusableError: the spec asks for more classes than there are.
    """
    reader = READERS[data.id.dataset]
    num_id = data.num_id_classes or round(0.75 * num_classes)
    num_val_novel = data.num_val_novel
    if reader.num_classes == num_classes:
        num_id = data.num_id_classes or reader.num_id_classes or num_id
        num_val_novel = num_val_novel or reader.num_val_novel
    num_val_novel = num_val_novel or max(1, round(num_id / 10))

    try:
        return split_classes(
            num_classes, num_id=num_id, num_val_novel=num_val_novel, split=data.split
        )
    except ValueError as error:
        raise UnusableError(
            f"{error} ({reader.title} has {num_classes} classes)",
            "set data.num_id_classes and data.num_val_novel to numbers that leave two classes to "
            "train on, or add classes",
            "data",
        ) from error


def split_id(data: DataSpec, found: UsableImages) -> ImageSplit:
    """Indices of the in-distribution set's images (into its table) in train, val and test, all
    classes."""
    official = [found.table.official[index] for index in found.indices]
    split = split_official(found.labels, official, split=data.split)
    return ImageSplit(*(found.indices[part] for part in (split.train, split.val, split.test)))


def outlier_pools(found: UsableImages) -> ImageSplit:
    """Indices of the outliers (into their table) in the pools."""
    split = pools([digest.sha256 for digest in found.digests])
    return ImageSplit(*(found.indices[part] for part in (split.train, split.val, split.test)))


def select(data: DataSpec, where: str, home: Path | None, say: Say = unwatched) -> UsableImages:
    """The usable images of the set that a setting names. Raises LayoutError."""
    table, wanted, chosen = _listed(data, where)
    digests = digest_images(
        table.root,
        [table.paths[index] for index in chosen],
        crop_bottom=table.crop_bottom,
        home=home,
        progress=partial(say, f"{where}: files read"),
    )

    broken = [(table.paths[i], one.broken) for i, one in zip(chosen, digests, strict=True)]
    broken = [(path, why) for path, why in broken if why]
    broken += [(path, "is listed, but not there") for path in table.absent]
    fix = "nothing, if it is meant to be so"  # what the reader assumed or left out
    findings = [Finding(where, note, fix, stops=False) for note in table.notes]
    findings += wanted.findings
    findings += _broken_findings(data, where, table, broken, len(chosen) + len(table.absent))

    whole = [place for place, digest in enumerate(digests) if not digest.broken]
    kept, duplicates = _without_duplicates(table, chosen, digests, whole)
    notes = list(wanted.notes)
    if where == ID and duplicates:
        findings += _duplicate_findings(data, where, duplicates, table)
    elif duplicates:
        notes.append(f"{len(duplicates)} duplicate images are left out")

    return UsableImages(
        table,
        chosen[kept],
        where=where,
        digests=tuple(digests[place] for place in kept),
        broken=tuple(broken),
        duplicates=tuple(duplicates),
        excluded=wanted.excluded,
        notes=tuple(notes),
        findings=tuple(findings),
    )


def listed_id(data: DataSpec) -> UsableImages:
    """The in-distribution images as they are listed: no file was opened, so that broken ones and
    duplicates are among them, and there are no digests. Raises LayoutError."""
    table, _, chosen = _listed(data, ID)
    return UsableImages(table, chosen, where=ID, digests=())


def _listed(data: DataSpec, where: str) -> tuple[ImageTable, _Wanted, IntArray]:
    """All images of a set, those that the spec wants, and as many of these as its limit allows."""
    dataset = sets_of(data, sealed=True)[where]
    assert dataset.root is not None, f"{dataset.dataset} has no root"
    try:
        table = read_table(dataset.dataset, dataset.root, labelled=where == ID)
    except LayoutError as error:
        raise LayoutError(error.what, error.fix, f"{where}.root") from error

    wanted = _wanted(data, where, dataset, table)
    keys = [path_key(table.paths[index]) for index in wanted.indices]
    return table, wanted, wanted.indices[fixed_subset(keys, dataset.limit)].astype(np.int64)


class _Wanted(NamedTuple):
    """The images of a table that a spec wants (M,), and what to report about the others."""

    indices: IntArray
    excluded: tuple[str, ...]
    notes: list[str]
    findings: list[Finding]


def _wanted(data: DataSpec, where: str, dataset: Dataset, table: ImageTable) -> _Wanted:
    notes: list[str] = []
    if where == ID:
        known = table.labels >= 0
        unknown = int((~known).sum())
        if unknown:
            notes.append(f"{unknown} images without a class are left out")
        return _Wanted(np.flatnonzero(known), (), notes, [])

    exclusion = exclude(table, dataset.exclude, data.id.dataset)
    kind = READERS[data.id.dataset].shows
    if exclusion.by_kind and kind is not None:
        notes.append(f"{len(exclusion.by_kind)} synsets show {kind.name} and are left out")
    return _Wanted(
        np.flatnonzero(exclusion.kept),
        (*exclusion.by_name, *exclusion.by_kind),
        notes,
        _unmatched(where, exclusion),
    )


def _without_duplicates(
    table: ImageTable, chosen: IntArray, digests: Sequence[Digest], whole: Sequence[int]
) -> tuple[list[int], list[tuple[str, str]]]:
    """Places of the images to keep, and pairs of paths: of identical files, the one in the official
    test stays."""
    rank = {"test": 0, "val": 1}
    first: dict[str, int] = {}

    for place in sorted(whole, key=lambda place: rank.get(table.official[chosen[place]], 2)):
        first.setdefault(digests[place].sha256, place)

    keep = set(first.values())
    pairs = [
        (table.paths[chosen[place]], table.paths[chosen[first[digests[place].sha256]]])
        for place in whole
        if place not in keep
    ]
    return sorted(keep), pairs


def _duplicate_findings(
    data: DataSpec, where: str, duplicates: Sequence[tuple[str, str]], table: ImageTable
) -> list[Finding]:
    classes = dict(zip(table.paths, table.labels, strict=True))
    contradicting = sum(classes[path] != classes[other] for path, other in duplicates)
    pairs = some([f"{path} is {other}" for path, other in duplicates], "; ")
    what = f"{len(duplicates)} images appear twice: {pairs}"
    if contradicting:
        what += f"; {contradicting} of them in two classes, so that one label is wrong"
    if data.duplicates == "refuse":
        return [Finding(where, what, "remove them, or set data.duplicates to drop", stops=True)]
    return [
        Finding(where, f"{what}; one of each is left out", "nothing, or remove them", stops=False)
    ]


def _broken_findings(
    data: DataSpec,
    where: str,
    table: ImageTable,
    broken: Sequence[tuple[str, str]],
    num_images: int,
) -> list[Finding]:
    if not broken:
        return []

    named = some([f"{table.root / path} {why}" for path, why in broken], "; ")
    what = f"{len(broken)} of {num_images} images are broken: {named}"
    if len(broken) > max(1, MAX_BROKEN_FRAC * num_images):
        fix = "this many point to an interrupted download or copy: unpack the images again"
        return [Finding(where, what, fix)]
    if data.corrupt == "refuse":
        return [Finding(where, what, "replace or remove them, or set data.corrupt to skip")]
    return [Finding(where, f"{what}; they are left out", "nothing, or replace them", stops=False)]


def _unmatched(where: str, exclusion: Exclusion) -> list[Finding]:
    """Findings about the entries of `exclude` that match nothing."""
    where = f"{where}.exclude"
    found = [
        Finding(where, f"{printable(entry)} is empty", "fill it, or leave it out", stops=False)
        for entry in exclusion.empty
    ]
    for entry, guess in exclusion.unmatched.items():
        # Its part of WebVision may not be unpacked, so a missing synset is not a mistake.
        is_synset = len(entry) == 9 and entry[0] == "n" and entry[1:].isdigit()
        hint = "correct it"
        if guess:
            hint = f"did you mean '{printable(guess)}'? Correct it"
        found.append(
            Finding(
                where,
                f"'{printable(entry)}' is not a class here",
                f"{hint}, or leave it out",
                stops=not is_synset,
            )
        )

    paths = exclusion.unmatched_paths
    if paths:
        nearest = list(map(_with_nearest, paths.items()))
        found.append(
            Finding(
                where,
                f"{counted(len(paths), 'path')} without an image here: {some(nearest, '; ')}",
                "correct them, or leave them out",
                stops=False,
            )
        )
    return found


def _with_nearest(entry: tuple[str, str]) -> str:
    path, guess = entry
    if not guess:
        return path
    return f"{path} (nearest: {guess})"
