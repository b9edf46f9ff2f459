"""What is in the data of a spec, and what stands against searching on them.

The data checker sees every image, sealed ones too, but keeps paths, hashes and counts of them only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmoe_tune.data.embedded import load_digits, load_photo_patches
from lmoe_tune.data.exclusion import same_classes
from lmoe_tune.data.leaks import Leak, find_leaks
from lmoe_tune.data.sealed_plan import plan_test_of
from lmoe_tune.data.search_data import PHOTOS, class_split_of, describe_splits
from lmoe_tune.data.search_plan import plan_of
from lmoe_tune.data.splits import split_images
from lmoe_tune.data.table import Part
from lmoe_tune.data.usable_images import (
    Finding,
    Say,
    UsableImages,
    counted,
    select_coarse,
    select_id,
    select_outliers,
)
from lmoe_tune.errors import UsageError
from lmoe_tune.readers import READERS, LayoutError
from lmoe_tune.readers.names import read_names, shown, some, write_names
from lmoe_tune.spec import Dataset, DataSpec

Counts = dict[str, Any]


@dataclass(frozen=True)
class Inspection:
    """What was found. `problems` come first that stop a search; the others are left out or left as they are."""

    id: Counts
    outliers: Counts | None
    coarse_ood: Counts
    splits: dict[str, Counts]
    problems: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    fingerprint: str | None = None

    @property
    def stops(self) -> bool:
        return any(problem.stops for problem in self.problems)

    def document(self) -> dict[str, Any]:
        """What `--format json` prints."""
        return {
            "id": self.id,
            "outliers": self.outliers,
            "coarse_ood": self.coarse_ood,
            "splits": self.splits,
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
        home: where hashes and what was found are kept: a second inspection of the same files is quick.
        say: told how far the reading is.
    """
    if READERS[data.id.dataset].is_embedded:
        return _inspect_embedded(data)
    found = _Found()
    own = found.selected("data.id", lambda: select_id(data, home, say))
    outliers = (
        found.selected("data.outliers", lambda: select_outliers(data, home, say))
        if data.outliers
        else None
    )
    coarse = [
        found.selected(
            f"data.coarse_ood.{place}", lambda place=place: select_coarse(data, place, home, say)
        )
        for place in range(len(data.coarse_ood))
    ]
    if own is not None:
        found.leaks(own, outliers, "in-distribution images", home)
        for one in coarse:
            found.leaks(own, one, "in-distribution images", home)
            found.classes_in_common(own, one)
        found.classes_in_common(own, outliers)
    for one in coarse:
        if outliers is not None:
            found.leaks(outliers, one, "outliers", home)
    splits: dict[str, Counts] = {}
    fingerprint = None
    if own is not None and (outliers is not None or data.outliers is None):
        try:
            plan = plan_of(data, own, outliers)
            sealed = plan_test_of(data, own, outliers, [one for one in coarse if one is not None])
        except UsageError as error:
            found.add_error(error)
        else:
            fingerprint = plan.fingerprint
            parts: dict[str, list[Part]] = {
                "train": [plan.train],
                "val": [plan.val],
                "val_fine": [plan.val_fine],
                "outliers": [plan.outliers] if plan.outliers is not None else [],
                "val_coarse": [plan.val_coarse],
                "test": [sealed.test],
                "test_fine": [sealed.test_fine],
                "test_outliers": [sealed.test_outliers] if sealed.test_outliers is not None else [],
                "test_coarse": list(sealed.test_coarse),
            }
            splits = {name: _counted(one) for name, one in parts.items()}
            for name in ("test", "test_fine"):
                if not splits[name]["images"]:
                    found.add(
                        "data.id",
                        f"no image is left for {name}",
                        "add images to its classes",
                        stops=False,
                    )
    return Inspection(
        id=_described(own) if own is not None else {"layout": None, "classes": 0, "images": 0},
        outliers=(_described(outliers) if outliers is not None else {"images": 0})
        if data.outliers
        else None,
        coarse_ood={
            "images": sum(len(one.indices) for one in coarse if one is not None),
            "sets": [_described(one) for one in coarse if one is not None],
        },
        splits=splits,
        problems=tuple(sorted(found.problems, key=lambda problem: not problem.stops)),
        notes=tuple(found.notes),
        fingerprint=fingerprint,
    )


def refuse_unsound(data: DataSpec, home: Path, say: Say | None = None) -> Inspection:
    """The inspection that a search starts with. Raises UsageError with every problem that stops it."""
    found = inspect(data, home, say)
    if found.stops:
        lines = "\n".join(str(problem) for problem in found.problems if problem.stops)
        raise UsageError(f"the data cannot be searched on:\n{lines}")
    return found


@dataclass
class _Found:
    """Problems and notes as they come up."""

    problems: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, where: str, what: str, fix: str, *, stops: bool) -> None:
        self.problems.append(Finding(where, what, fix, stops))

    def add_error(self, error: UsageError) -> None:
        """An error with the words "setting: what is wrong; what to do"."""
        where, _, rest = str(error).partition(": ")
        if not where.startswith("data") or " " in where:
            where, rest = "data", str(error)
        what, _, fix = rest.rpartition("; ")
        self.add(
            where, what or rest, fix if what else "change the setting that it names", stops=True
        )

    def selected(self, where: str, select: Any) -> UsableImages | None:
        """What a selection gives, its findings and notes taken over; None where the set cannot be read."""
        try:
            found: UsableImages | None = select()
        except LayoutError as error:
            self.add(f"{where}.root", error.what, error.fix, stops=True)
            return None
        if found is None:
            return None
        self.problems += found.findings
        self.notes += [f"{where}: {note}" for note in found.notes]
        if not len(found.indices):
            self.add(where, "no image is left", "relax data.…exclude, or add images", stops=True)
            return None
        return found

    def leaks(
        self, first: UsableImages, second: UsableImages | None, kind: str, home: Path
    ) -> None:
        if second is None:
            return
        leaks = find_leaks(first, second, home)
        if not leaks:
            return
        pairs = some([str(leak) for leak in leaks], "; ")
        listed = _listed(leaks, second, home)
        self.add(
            second.where,
            f"{len(leaks)} images are {kind} as well: {pairs}",
            f"remove them, or leave them out with exclude: [{listed}], which lists all of them",
            stops=True,
        )

    def classes_in_common(self, learnt: UsableImages, other: UsableImages | None) -> None:
        if other is None:
            return
        present = {other.table.classes[label] for label in set(other.labels.tolist()) if label >= 0}
        pairs = [pair for pair in same_classes(learnt.table, other.table) if pair[1] in present]
        if pairs:
            names = [theirs for _, theirs in pairs]
            self.add(
                other.where,
                f"{counted(len(pairs), 'class')} in common with the in-distribution set: {some(names)}",
                f"leave them out with exclude: [{', '.join(names)}]",
                stops=True,
            )


def _listed(leaks: Sequence[Leak], found: UsableImages, home: Path) -> Path:
    """A file that lists the leaking images of a set, in the notation of `exclude`."""
    place = found.where.removeprefix("data.").replace(".", "-")
    path = home / "data" / "leaks" / f"{found.table.dataset}-{place}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = read_names(path) if path.exists() else []
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
        "images": len(found.indices),
        "bytes": found.num_bytes,
        "median_pixels": [int(np.median(widths)), int(np.median(heights))],
        "smallest_side": int(np.minimum(heights, widths).min()),
        "broken": [f"{shown(path)}: {why}" for path, why in found.broken],
        "duplicates": len(found.duplicates),
        "excluded": list(found.excluded),
    }


def _counted(parts: Sequence[Part]) -> Counts:
    classes = {
        (place, label)
        for place, part in enumerate(parts)
        for label in set(part.labels.tolist())
        if label >= 0
    }
    return {"classes": len(classes), "images": sum(map(len, parts))}


def _inspect_embedded(data: DataSpec) -> Inspection:
    """Digits and patches of photographs: nothing can be broken or leak, but the spec may ask for too much."""
    images, labels = load_digits()
    found = _Found()
    splits: dict[str, Counts] = {}
    fingerprint = None
    try:
        described = describe_splits(data)
        split = class_split_of(data)
    except UsageError as error:
        found.add_error(error)
    else:
        fingerprint = described["fingerprint"]
        classes = {
            "train": len(split.train),
            "val": len(split.train),
            "val_fine": len(split.val_novel),
        }
        splits = {
            name: {"classes": classes.get(name, 0), "images": count}
            for name, count in described["images"].items()
        }
        test = split_images(labels, split=data.split).test
        for name, chosen in (("test", split.in_distribution), ("test_fine", split.test_novel)):
            splits[name] = {
                "classes": len(chosen),
                "images": int(np.isin(labels[test], chosen).sum()),
            }
        splits["test_coarse"] = {
            "classes": 0,
            "images": _num_patches(data.coarse_ood, ("train", "val", "test")),
        }
    size = {
        "median_pixels": [8, 8],
        "smallest_side": 8,
        "broken": [],
        "duplicates": 0,
        "excluded": [],
    }
    return Inspection(
        id={
            "dataset": "digits",
            "layout": "embedded",
            "root": None,
            "classes": 10,
            "images": min(len(images), data.id.limit or len(images)),
            "bytes": images.nbytes,
            **size,
        },
        outliers={
            "dataset": data.outliers.dataset,
            "layout": "embedded",
            "images": _num_patches((data.outliers,), ("train", "val", "test")),
        }
        if data.outliers
        else None,
        coarse_ood={
            "images": _num_patches(data.coarse_ood, ("train", "val", "test")),
            "sets": [{"dataset": one.dataset, "layout": "embedded"} for one in data.coarse_ood],
        },
        splits=splits,
        problems=tuple(found.problems),
        fingerprint=fingerprint,
    )


def _num_patches(sets: Sequence[Dataset], pools: Sequence[Any]) -> int:
    photos = [PHOTOS[one.dataset] for one in sets if one.dataset in PHOTOS]
    return sum(len(load_photo_patches(photo, pool)) for photo in photos for pool in pools)
