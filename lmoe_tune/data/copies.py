"""Pictures that are the same although their files differ: encoded again, resized, turned grey, or
mirrored.

A copy is found in two steps. Pairs whose 8 x 8 grey thumbnails differ by little are candidates. A
candidate is confirmed at up to 64 x 64: the fine detail must agree, as it does in copies but not in
different photographs, however similar their composition. Cropped or recoloured copies are not
found, nor are copies of nearly uniform pictures, any two of which look like copies.

Correlation of the fine detail, measured on two photographs: .94 or more for copies encoded at
quality 10 to 95, resized by 0.25 to 1.5, squared or turned grey; .5 to .6 for the same view shifted
by 1% of its width, with a difference too large; .25 or less for a shift by 2%; 0 for the same
smooth pattern under different noise.

N images of the first set, M of the second; a place is an image's number in its set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lmoe_tune.data.decode import CorruptImageError
from lmoe_tune.data.digests import THUMBNAIL, thumbnail
from lmoe_tune.data.usable_images import UsableImages
from lmoe_tune.data.worker_processes import Progress, unwatched

MIN_CONTRAST = 4.0  # standard deviation of the 8 x 8 thumbnail, in levels of 255
MAX_DIFFERENCE = 6.0  # root mean square between 8 x 8 thumbnails, in levels
CONFIRMING_SIDE = 64  # pixels
MIN_AGREEMENT = 0.4  # correlation of the fine detail
MAX_NOISE = 3.0  # levels that encoding again may add at that size,
MAX_DETAIL_FRAC = 0.8  # ... plus this share of the detail's energy
SMOOTH = 1.0  # energy below which there is no detail to compare,
MAX_SMOOTH_NOISE = 2.0  # ... but pictures must agree within this many levels
MAX_CANDIDATES = 20_000  # two decodings each; the nearest ones are kept
BLOCK = 1024  # images compared at a time with those of similar brightness

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Pair(NamedTuple):
    """An image of the second set, the one of the first set that it copies, and whether it is
    mirrored."""

    place: int
    other: int
    mirrored: bool


def copies_between(
    first: UsableImages,
    second: UsableImages,
    known: set[int],
    progress: Progress = unwatched,
) -> Iterator[Pair]:
    """One pair for each image of the second set that copies one of the first; none for the
    `known` places."""
    seen = set(known)
    for pair in _confirmed(first, second, lambda pair: pair.place not in seen, progress):
        seen.add(pair.place)
        yield pair


def copies_within(found: UsableImages, progress: Progress = unwatched) -> Iterator[Pair]:
    """Pairs that connect all images of a set that copy one another: n - 1 for a group of n."""
    group = np.arange(len(found))

    for pair in _confirmed(
        found, found, lambda pair: group[pair.place] != group[pair.other], progress
    ):
        group[group == group[pair.place]] = group[pair.other]
        yield pair


@dataclass(frozen=True, eq=False)
class Picture:
    """A grey picture (S, S), its fine detail (S, S), and the energy of the detail."""

    pixels: Floats
    detail: Floats
    energy: float

    @classmethod
    def of(cls, pixels: Floats) -> Picture:
        """The picture with these pixels."""
        detail = pixels - _blurred(pixels)
        return cls(pixels, detail, float(np.mean(detail**2)))

    def mirrored(self) -> Picture:
        """The same picture seen in a mirror."""
        return Picture(self.pixels[:, ::-1], self.detail[:, ::-1], self.energy)


def same_picture(one: Picture, other: Picture) -> bool:
    """Whether two pictures of one size are the same, apart from what encoding again changes."""
    difference = float(np.mean((one.pixels - other.pixels) ** 2))
    energy = max(one.energy, other.energy)
    if energy < SMOOTH:
        return difference <= MAX_SMOOTH_NOISE**2
    if difference > MAX_NOISE**2 + MAX_DETAIL_FRAC * energy:
        return False

    scale = math.sqrt(max(one.energy * other.energy, 1e-6))
    return float(np.mean(one.detail * other.detail)) / scale >= MIN_AGREEMENT


def _confirmed(
    first: UsableImages,
    second: UsableImages,
    is_wanted: Callable[[Pair], bool],
    progress: Progress,
) -> Iterator[Pair]:
    """The candidates that are copies, the most similar first; unwanted ones are skipped."""

    @lru_cache(maxsize=2048)  # 64 MB
    def picture(found: UsableImages, place: int, side: int) -> Picture:
        index = found.indices[place]
        pixels, _ = thumbnail(found.table.root / found.table.paths[index], side)
        return Picture.of(pixels.astype(np.float32))

    candidates = _candidates(first, second)
    for number, pair in enumerate(candidates, start=1):
        progress(number, len(candidates))
        if not is_wanted(pair):
            continue

        digests = first.digests[pair.other], second.digests[pair.place]
        smallest = min(min(digest.height, digest.width) for digest in digests)
        side = max(THUMBNAIL, min(CONFIRMING_SIDE, smallest))
        try:
            theirs = picture(second, pair.place, side)
            ours = picture(first, pair.other, side)
        except CorruptImageError:  # has changed since it was digested: the next inspection says so
            continue
        if pair.mirrored:
            theirs = theirs.mirrored()
        if same_picture(ours, theirs):
            yield pair


def _blurred(picture: Floats) -> Floats:
    """Each pixel the mean of the 3 x 3 around it."""
    height, width = picture.shape
    padded = np.pad(picture, 1, mode="edge")
    rows = padded[:height] + padded[1 : height + 1] + padded[2:]
    blurred: Floats = (rows[:, :width] + rows[:, 1 : width + 1] + rows[:, 2:]) / 9
    return blurred


def _candidates(first: UsableImages, second: UsableImages) -> list[Pair]:
    """Pairs with similar thumbnails, the most similar first; within one set, each pair once.

    Similar pictures are similar in brightness, so each is compared only with those of similar
    brightness.
    """
    ours, our_places = _thumbnails(first)
    theirs, their_places = _thumbnails(second)
    our_means, their_means = ours.mean(axis=1), theirs.mean(axis=1)
    squares = (ours**2).sum(axis=1)
    limit = np.float32(MAX_DIFFERENCE**2 * ours.shape[1])
    found: list[tuple[float, Pair]] = []

    for start in range(0, len(theirs), BLOCK):
        block, places = theirs[start : start + BLOCK], their_places[start : start + BLOCK]
        ends = their_means[start : start + BLOCK][[0, -1]] + [-MAX_DIFFERENCE, MAX_DIFFERENCE]
        low, high = np.searchsorted(our_means, ends)

        for mirrored, turned in ((False, block), (True, _mirrored(block))):
            distance = (turned**2).sum(axis=1)[:, None] + squares[None, low:high]
            distance -= 2 * (turned @ ours[low:high].T)
            near = distance <= limit
            if first is second:
                near &= places[:, None] > our_places[None, low:high]
            for row, column in _nearest(distance, near):
                pair = Pair(int(places[row]), int(our_places[low + column]), mirrored)
                found.append((float(distance[row, column]), pair))

        if len(found) > 4 * MAX_CANDIDATES:
            found = sorted(found)[:MAX_CANDIDATES]

    return [pair for _, pair in sorted(found)[:MAX_CANDIDATES]]


def _nearest(distance: Floats, near: npt.NDArray[np.bool_]) -> Ints:
    """Rows and columns (K, 2) where the mask is true, at most MAX_CANDIDATES: those with the
    smallest distances."""
    places = np.argwhere(near)
    if len(places) > MAX_CANDIDATES:
        chosen = np.argpartition(distance[near], MAX_CANDIDATES)[:MAX_CANDIDATES]
        places = places[chosen]
    return places


def _mirrored(thumbnails: Floats) -> Floats:
    pictures = thumbnails.reshape(-1, THUMBNAIL, THUMBNAIL)[:, :, ::-1]
    return np.ascontiguousarray(pictures).reshape(thumbnails.shape)


def _thumbnails(found: UsableImages) -> tuple[Floats, Ints]:
    """Thumbnails (N, 64) of the images that are not nearly uniform, sorted by brightness, and their
    places."""
    size = THUMBNAIL**2
    pixels = np.frombuffer(b"".join(digest.thumbnail for digest in found.digests), dtype=np.uint8)
    values = (
        pixels.reshape(-1, size).astype(np.float32) - 128
    )  # around 0: sums of squares stay small

    places = np.flatnonzero(values.std(axis=1) >= MIN_CONTRAST)
    places = places[np.argsort(values[places].mean(axis=1), kind="stable")].astype(np.int64)
    return values[places], places
