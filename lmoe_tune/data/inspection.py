"""What is in the data of a spec, and what prevents a search on them.

The data checker sees every image, sealed ones too, but keeps only paths, hashes and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lmoe_tune.data.embedded import PHOTOS, digits_of, load_digits, load_photo_patches
from lmoe_tune.data.exclusion import same_classes
from lmoe_tune.data.leaks import Leak, copied, find_leaks, find_near_duplicates
from lmoe_tune.data.sealed_plan import plan_test_of
from lmoe_tune.data.search_data import describe_splits, load_embedded
from lmoe_tune.data.search_plan import id_parts, plan_of
from lmoe_tune.data.table import Part
from lmoe_tune.data.usable_images import (
    ID,
    OUTLIERS,
    VAL_COARSE,
    Finding,
    Say,
    Selected,
    UsableImages,
    class_split,
    coarse_sets,
    listed_id,
    select,
    sets_of,
    split_id,
)
from lmoe_tune.data.worker_processes import unwatched
from lmoe_tune.errors import UsageError
from lmoe_tune.readers import READERS, LayoutError
from lmoe_tune.readers.names import read_names, some, write_names
from lmoe_tune.spec import Dataset, DataSpec
from lmoe_tune.wording import counted, printable

MEASURED_ON = ("val", "val_fine", "val_coarse", "test", "test_fine", "test_outliers", "test_coarse")
FEW_IMAGES = 20
"""One of them moves an AUROC, or an accuracy, by several percent."""

Counts = dict[str, Any]


@dataclass(frozen=True)
class Inspection:
    """What was found. Of the `problems`, those that stop a search come first; images with the
    others are left out or left as they are."""

    id: Counts
    outliers: Counts | None
    coarse_ood: Counts
    splits: dict[str, Counts]
    problems: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    fingerprint: str | None = None
    near_duplicates: Counts | None = None
    val_coarse: Counts | None = None

    @property
    def stops(self) -> bool:
        """Whether a search must not start."""
        return any(problem.stops for problem in self.problems)

    def document(self) -> dict[str, Any]:
        """What `--format json` prints."""
        return {
            "id": self.id,
            "outliers": self.outliers,
            "val_coarse": self.val_coarse,
            "coarse_ood": self.coarse_ood,
            "splits": self.splits,
            "near_duplicates": self.near_duplicates,
            "problems": [
                {"where": one.where, "what": one.what, "fix": one.fix, "stops": one.stops}
                for one in self.problems
            ],
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
        }


def inspect(data: DataSpec, home: Path, say: Say | None = None) -> Inspection:
    """Read everything that a spec names, hash it, and look for broken files, duplicates and leaks.

    Args:
        home: where hashes and findings are kept: a second inspection of the same files is quick.
        say: receives the progress of the reading, then of the comparing.
    """
    if READERS[data.id.dataset].is_embedded:
        return _inspect_embedded(data)

    found = _Found(home, say or unwatched)
    selected = found.select_all(data)
    found.look_for_leaks(selected)
    found.say_what_means_what(data)
    own = selected.get(ID)
    splits: dict[str, Counts] = {}
    fingerprint = near_duplicates = None
    if own is not None:
        near_duplicates = found.near_duplicates(data, own)
        if selected.keys() >= sets_of(data, sealed=False).keys():
            splits, fingerprint = found.splits(data, selected)

    coarse = coarse_sets(selected)
    return Inspection(
        id=_described(own) if own else {"layout": None, "classes": 0, "images": 0},
        outliers=_described_or_missing(data.outliers, selected.get(OUTLIERS)),
        val_coarse=_described_or_missing(data.val_coarse, selected.get(VAL_COARSE)),
        coarse_ood={
            "images": sum(map(len, coarse)),
            "sets": [_described(one) for one in coarse],
        },
        splits=splits,
        problems=tuple(sorted(found.problems, key=lambda problem: not problem.stops)),
        notes=tuple(found.notes),
        fingerprint=fingerprint,
        near_duplicates=near_duplicates,
    )


def refuse_unsound(
    data: DataSpec,
    home: Path,
    say: Say | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """The inspection that a search starts with.

    Args:
        say: is told how far the reading of the data is.
        warn: is told each problem that is no reason to stop.

    Raises:
        UsageError: with every problem that stops a search.
    """
    found = inspect(data, home, say)
    if found.stops:
        lines = "\n".join(str(problem) for problem in found.problems if problem.stops)
        raise UsageError(f"the data cannot be searched on:\n{lines}")

    if warn is not None:
        for problem in found.problems:
            warn(f"warning: {problem}")


def problem_of_lists(data: DataSpec) -> Finding | None:
    """Why the in-distribution images cannot be split as the spec asks, as far as the names of files
    and the lists show it: no image is opened."""
    try:
        if READERS[data.id.dataset].is_embedded:
            load_embedded(data)
        else:
            id_parts(data, listed_id(data))
    except LayoutError as error:
        return finding_of(error)
    return None


def finding_of(error: LayoutError) -> Finding:
    """Why images cannot be read, or not be split as the spec asks."""
    return Finding(error.where, error.what, error.fix)


@dataclass
class _Found:
    """Problems and notes as they come up."""

    home: Path
    say: Say
    problems: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, where: str, what: str, fix: str, *, stops: bool) -> None:
        self.problems.append(Finding(where, what, fix, stops))

    def select_all(self, data: DataSpec) -> Selected:
        """The images of every set that can be read and has some; adds the findings and notes."""
        selected = {}
        for where in sets_of(data, sealed=True):
            try:
                found = select(data, where, self.home, self.say)
            except LayoutError as error:
                self.problems.append(finding_of(error))
                continue

            self.problems += found.findings
            self.notes += [f"{where}: {note}" for note in found.notes]
            if len(found):
                selected[where] = found
            else:
                fix = f"relax {where}.exclude, or add images"
                self.add(where, "no image is left", fix, stops=True)
        return selected

    def say_what_means_what(self, data: DataSpec) -> None:
        """Note what a reader of the results must know about these sets."""
        self.notes.append(f"data.id: {seen_by_imagenet(data.id.dataset)}")
        if data.outliers is not None and data.val_coarse is None:
            self.notes.append(
                "data.val_coarse: the coarse images to validate with come from the source of the "
                "outliers that are trained on, so val_coarse metrics are higher than those of other "
                "coarse images; name a set of their own to avoid that"
            )

    def look_for_leaks(self, selected: Selected) -> None:
        """Find images and classes that are in two sets which must be disjoint."""
        kinds = {
            ID: "in-distribution images",
            OUTLIERS: "outliers",
            VAL_COARSE: "images of data.val_coarse",
        }
        sets = list(selected.values())
        for place, first in enumerate(sets):
            for other in sets[place + 1 :]:
                if first.where in kinds:
                    self._leaks(first, other, kinds[first.where])
                if first.where == ID:
                    self._classes_in_common(first, other)

    def near_duplicates(self, data: DataSpec, own: UsableImages) -> Counts:
        """Images of the in-distribution set that copy one another, and the parts they are in."""
        pairs = find_near_duplicates(
            own, self.home, partial(self.say, f"{own.where}: likely copies compared")
        )
        part_of = _parts_by_path(data, own)
        parts_of = {pair: [part_of[pair.path], part_of[pair.other]] for pair in pairs}
        pairs_across = [pair for pair, (one, other) in parts_of.items() if one != other]
        across = Counter(
            " / ".join(sorted(parts_of[pair], key=PARTS.index)) for pair in pairs_across
        )
        tested = {path for path, part in part_of.items() if part == "test"}
        seen = copied(pairs, tested, part_of.keys() - tested)
        if across:
            between = ", ".join(f"{count} {name}" for name, count in sorted(across.items()))
            self.add(
                own.where,
                f"{counted(sum(across.values()), 'pair')} of near-duplicates lie across the parts "
                f"of the split ({between}): {some(list(map(str, pairs_across)), '; ')}",
                "nothing: a confirmation measures the test without them, too; or remove one of "
                "each",
                stops=False,
            )
        return {
            "pairs": len(pairs),
            "across": dict(sorted(across.items())),
            "test_images": len(seen),
            "list": [{**vars(pair), "parts": parts} for pair, parts in parts_of.items()],
        }

    def splits(self, data: DataSpec, selected: Selected) -> tuple[dict[str, Counts], str | None]:
        """Classes and images of every part, and the fingerprint of what a search sees."""
        try:
            plan, sealed = plan_of(data, selected), plan_test_of(data, selected)
        except LayoutError as error:
            self.problems.append(finding_of(error))
            return {}, None

        parts: dict[str, Sequence[Part | None]] = {
            "train": [plan.train],
            "val": [plan.val],
            "val_fine": [plan.val_fine],
            "outliers": [plan.outliers],
            "val_coarse": [plan.val_coarse],
            "test": [sealed.test],
            "test_fine": [sealed.test_fine],
            "test_outliers": [sealed.test_outliers],
            "test_coarse": sealed.test_coarse,
        }
        splits = {name: _counted(some) for name, some in parts.items()}
        self.say_what_is_scarce(splits)
        return splits, plan.fingerprint

    def say_what_is_scarce(self, splits: dict[str, Counts]) -> None:
        """Sealed parts without an image, and parts with a few: a search can start, but its metrics,
        or those of a confirmation, say less.
        """
        fixes = {
            "test": "add images to its classes",
            "test_fine": "leave it classes with a lower data.num_id_classes, or add images to them",
        }
        for name, fix in fixes.items():
            if not splits[name]["images"]:
                self.add("data.id", f"no image is left for {name}", fix, stops=False)

        for name, part in splits.items():
            if name in MEASURED_ON and 0 < part["images"] < FEW_IMAGES:
                there = counted(part["images"], "image")
                what = f"{there} for {name}, so its metrics say next to nothing"
                where = "data" if name in ("val_coarse", "test_outliers") else "data.id"
                self.add(where, what, "add images", stops=False)

    def _leaks(self, first: UsableImages, second: UsableImages, kind: str) -> None:
        progress = partial(self.say, f"{second.where}: likely copies of {first.where} compared")
        leaks = find_leaks(first, second, self.home, progress)
        if not leaks:
            return

        self.add(
            second.where,
            f"{counted(len(leaks), 'image')} in common with the {kind}: "
            f"{some(list(map(str, leaks)), '; ')}",
            "remove them, or leave them out with exclude: "
            f"[{_listed(leaks, second, self.home)}], which lists all of them",
            stops=True,
        )

    def _classes_in_common(self, learnt: UsableImages, other: UsableImages) -> None:
        present = {other.table.classes[label] for label in set(other.labels.tolist()) if label >= 0}
        shared = [name for _, name in same_classes(learnt.table, other.table) if name in present]
        if not shared:
            return

        self.add(
            other.where,
            f"{counted(len(shared), 'class')} in common with the in-distribution set: "
            f"{some(shared)}",
            f"leave them out with exclude: [{', '.join(shared)}]",
            stops=True,
        )


def seen_by_imagenet(dataset: str) -> str:
    """A sentence for readers of a result: with ImageNet weights, a novel class is new to the
    fine-tuning only.
    """
    kind = READERS[dataset].shows
    if kind is None:
        return (
            "weights trained on ImageNet have seen photographs of 1,000 classes, perhaps of some of "
            "these, novel ones included: 'novel' means that a class was not fine-tuned on"
        )
    return (
        f"weights trained on ImageNet have seen photographs of {kind.name}, perhaps of the novel "
        "classes, too: 'novel' means that a class was not fine-tuned on"
    )


PARTS = ("train", "val", "test", "unused")


def _parts_by_path(data: DataSpec, own: UsableImages) -> dict[str, str]:
    """The part of the split that each image is in; held-out classes are trained on in the end."""
    split = split_id(data, own)
    part_of = dict.fromkeys(own.paths, "unused")
    for name in ("train", "val", "test"):
        part_of |= {own.table.paths[index]: name for index in getattr(split, name)}

    try:
        novel = class_split(data, len(own.table.classes)).test_novel
    except UsageError:  # reported with the splits
        return part_of
    instead = "test"  # as `sealed_plan` has it
    if "test" in own.table.official:
        instead = "unused"
    for path, label in zip(own.paths, own.labels.tolist(), strict=True):
        if label in novel and part_of[path] != "test":
            part_of[path] = instead
    return part_of


def _listed(leaks: Sequence[Leak], found: UsableImages, home: Path) -> Path:
    """A file that lists the leaking images of a set, in the notation of `exclude`."""
    place = found.where.removeprefix("data.").replace(".", "-")
    path = home / "data" / "leaks" / f"{found.table.dataset}-{place}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)

    before = []
    if path.exists():
        before = read_names(path)
    write_names(path, sorted({*before, *(leak.path for leak in leaks)}))
    return path


def _described(found: UsableImages) -> Counts:
    heights = np.array([digest.height for digest in found.digests])
    widths = np.array([digest.width for digest in found.digests])
    return {
        "dataset": found.table.dataset,
        "layout": found.table.layout,
        "root": str(found.table.root),
        "classes": len({label for label in found.labels.tolist() if label >= 0}),
        "images": len(found),
        "bytes": sum(digest.size for digest in found.digests),
        "median_pixels": [int(np.median(widths)), int(np.median(heights))],
        "smallest_side": int(np.minimum(heights, widths).min()),
        "broken": [f"{printable(path)}: {why}" for path, why in found.broken],
        "duplicates": len(found.duplicates),
        "excluded": list(found.excluded),
    }


def _described_or_missing(dataset: Dataset | None, found: UsableImages | None) -> Counts | None:
    if dataset is None:
        return None
    if found is None:
        return {"images": 0}
    return _described(found)


def _counted(parts: Sequence[Part | None]) -> Counts:
    there = [part for part in parts if part]
    classes = {
        (place, label)
        for place, part in enumerate(there)
        for label in set(part.labels.tolist())
        if label >= 0
    }
    return {"classes": len(classes), "images": sum(map(len, there))}


def _inspect_embedded(data: DataSpec) -> Inspection:
    """Digits and patches of photographs: nothing can be broken or leak, but the spec may ask for
    too much."""
    images, _ = load_digits()
    found = _Found(Path(), unwatched)
    splits: dict[str, Counts] = {}
    fingerprint = None
    try:
        splits, fingerprint = _embedded_splits(data)
        found.say_what_is_scarce(splits)
    except LayoutError as error:
        found.problems.append(finding_of(error))

    outliers = None
    if data.outliers is not None:
        outliers = {
            "dataset": data.outliers.dataset,
            "layout": "embedded",
            "images": _num_patches((data.outliers,)),
        }
    return Inspection(
        id={
            "dataset": "digits",
            "layout": "embedded",
            "root": None,
            "classes": 10,
            "images": min(len(images), data.id.limit or len(images)),
            "bytes": images.nbytes,
            "median_pixels": [8, 8],
            "smallest_side": 8,
            "broken": [],
            "duplicates": 0,
            "excluded": [],
        },
        outliers=outliers,
        coarse_ood={
            "images": _num_patches(data.coarse_ood),
            "sets": [{"dataset": one.dataset, "layout": "embedded"} for one in data.coarse_ood],
        },
        splits=splits,
        problems=tuple(found.problems),
        fingerprint=fingerprint,
    )


def _embedded_splits(data: DataSpec) -> tuple[dict[str, Counts], str]:
    """Classes and images of every part. Raises UsageError if the digits cannot be split."""
    described = describe_splits(data)
    digits = digits_of(data)
    split = digits.classes
    num_classes = {"train": len(split.train), "val": len(split.train)}
    num_classes["val_fine"] = len(split.val_novel)
    splits = {
        name: {"classes": num_classes.get(name, 0), "images": count}
        for name, count in described["images"].items()
    }

    for name, of, classes in (
        ("test", digits.split.test, split.in_distribution),
        ("test_fine", digits.every(), split.test_novel),
    ):
        splits[name] = {"classes": len(classes), "images": len(digits.of(of, classes))}

    outliers = [one for one in (data.outliers,) if one]
    for name, sets in (("test_outliers", outliers), ("test_coarse", data.coarse_ood)):
        splits[name] = {"classes": 0, "images": _num_patches(sets, ("test",))}
    return splits, described["fingerprint"]


def _num_patches(sets: Sequence[Dataset], pools: Sequence[Any] = ("train", "val", "test")) -> int:
    photos = [PHOTOS[one.dataset] for one in sets if one.dataset in PHOTOS]
    return sum(len(load_photo_patches(photo, pool)) for photo in photos for pool in pools)
