"""Which AUROCs measured on the same images cannot be distinguished: DeLong, DeLong and
Clarke-Pearson (1988).

The *placement* of an in-distribution image is the share of out-of-distribution images that score
below it, ties by half; that of an out-of-distribution image the share of in-distribution images
above it. Their means are the AUROC. For two models on the same images the variance of the
difference of their AUROCs is the variance of the differences of their placements, over the numbers
of images: what both have in common cancels.

N in-distribution images, M out-of-distribution ones. No torch: commands that only read a sweep use
these.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmoe_tune.arrays import read_arrays
from lmoe_tune.durable import write_aside
from lmoe_tune.records import PLACEMENTS_FILE

Floats = npt.NDArray[np.float64]

COMPARABLE = ("val_auroc", "val_fine_auroc", "val_coarse_auroc")
"""The metrics whose differences have a variance here."""
Z = 1.959964  # two-sided 95%


@dataclass(frozen=True)
class Placements:
    """Of one model's validation images, against each kind of novelty that there is: `fine`,
    `coarse`.
    """

    known: dict[str, Floats]
    """(N,) each."""
    novel: dict[str, Floats]
    """(M,) each."""

    def auroc(self, metric: str) -> float:
        """One of COMPARABLE."""
        return float(np.mean([self.known[name].mean() for name in self._kinds(metric)]))

    def variance_of_difference(
        self, other: Placements, metric: str, sizes: Mapping[str, int] | None = None
    ) -> float:
        """Of the difference of this model's AUROC and another's on the same images.

        Args:
            sizes: on so many other images like these: `known`, and each kind of novelty.
        """
        kinds, sizes = self._kinds(metric), sizes or {}
        of_known = np.mean([self.known[name] - other.known[name] for name in kinds], axis=0)
        variance = float(of_known.var(ddof=1)) / sizes.get("known", len(of_known))
        for name in kinds:
            of_novel = (self.novel[name] - other.novel[name]) / len(kinds)
            variance += float(of_novel.var(ddof=1)) / sizes.get(name, len(of_novel))
        return variance

    def is_tied(self, other: Placements, metric: str) -> bool:
        """Whether the two cannot be distinguished at 95% on these images; this is about this seed
        and says nothing about others.
        """
        difference = abs(self.auroc(metric) - other.auroc(metric))
        return bool(difference <= Z * np.sqrt(self.variance_of_difference(other, metric)) + 1e-12)

    def is_alike(self, other: Placements) -> bool:
        """Whether they are of as many images, and so can be compared."""
        return _sizes(self) == _sizes(other)

    def can_compare(self, metric: str) -> bool:
        """Whether there are at least two images of each kind that a metric needs."""
        if metric not in COMPARABLE or not self._kinds(metric):
            return False
        kinds = self._kinds(metric)
        return all(min(len(self.known[name]), len(self.novel[name])) > 1 for name in kinds)

    def save(self, folder: Path) -> None:
        """Write them into a trial's folder."""
        content = io.BytesIO()
        arrays = {f"known_{name}": values for name, values in self.known.items()}
        arrays |= {f"novel_{name}": values for name, values in self.novel.items()}
        np.savez(content, allow_pickle=False, **arrays)
        folder.mkdir(parents=True, exist_ok=True)
        write_aside(folder / PLACEMENTS_FILE, content.getvalue())

    def _kinds(self, metric: str) -> list[str]:
        wanted = metric.removeprefix("val_").removesuffix("auroc").rstrip("_")
        return [name for name in self.known if wanted in ("", name)]


def placements_of(known: Floats, novel: dict[str, Floats]) -> Placements:
    """From scores (N,) and (M,) of each kind of novelty; empty kinds are left out."""
    found = {name: _placed(known, scores) for name, scores in novel.items() if len(scores)}
    return Placements(
        {name: of_known for name, (of_known, _) in found.items()},
        {name: of_novel for name, (_, of_novel) in found.items()},
    )


def mean_placements(several: Sequence[Placements]) -> Placements:
    """Image by image the mean over models of the same images: what differs from model to model
    cancels.
    """
    return Placements(
        _averaged([one.known for one in several]), _averaged([one.novel for one in several])
    )


def _averaged(several: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    for name in several[0]:
        found[name] = np.mean([one[name] for one in several], axis=0)
    return found


def read_placements(folder: Path) -> Placements | None:
    """Those of a trial's folder; None if they were not kept."""
    try:
        found = read_arrays(folder / PLACEMENTS_FILE)
    except (OSError, ValueError):
        return None

    kinds = [name.removeprefix("known_") for name in found if name.startswith("known_")]
    if not all(f"novel_{name}" in found for name in kinds):
        return None
    known = {name: found[f"known_{name}"] for name in kinds}
    return Placements(known, {name: found[f"novel_{name}"] for name in kinds})


def _placed(known: Floats, novel: Floats) -> tuple[Floats, Floats]:
    sorted_known, sorted_novel = np.sort(known), np.sort(novel)
    below = np.searchsorted(sorted_novel, known, "left")
    not_above = np.searchsorted(sorted_novel, known, "right")
    above = len(known) - np.searchsorted(sorted_known, novel, "right")
    not_below = len(known) - np.searchsorted(sorted_known, novel, "left")

    of_known = (below + not_above) / (2 * len(novel))
    of_novel = (above + not_below) / (2 * len(known))
    return of_known, of_novel


def _sizes(one: Placements) -> list[tuple[str, int, int]]:
    return [(name, len(one.known[name]), len(one.novel[name])) for name in sorted(one.known)]
