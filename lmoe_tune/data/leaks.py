"""Images that are in two sets which must be disjoint: the same file, the same bytes, or a copy encoded anew.

A copy is found in two steps. Pairs whose 8 x 8 grey thumbnails differ by little are candidates. A candidate is
confirmed at up to 64 x 64: their fine detail must agree, as it does in copies, and does not in different
photographs, however alike their composition. What is cropped, mirrored or recoloured is not found, nor are
pictures that are next to uniform, of which any two look like copies.

Measured on two photographs: copies encoded at quality 10 to 95, resized by 0.25 to 1.5, squared or turned grey
correlate by .94 and more in their fine detail, the same view shifted by 1% of its width by .5 to .6 with a
difference too large, shifted by 2% by .25 and less; pictures with the same smooth pattern under different noise by
0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lmoe_tune.data.decode import CorruptImageError
from lmoe_tune.data.digests import thumbnail
from lmoe_tune.data.usable_images import UsableImages
from lmoe_tune.durable import write_durably
from lmoe_tune.readers.names import shown

VERSION = 1
MIN_CONTRAST = 4.0  # standard deviation of the 8 x 8 thumbnail, in levels of 255
MAX_DIFFERENCE = 6.0  # root mean square between 8 x 8 thumbnails, in levels
CONFIRMING_SIDE = 64  # pixels
MIN_AGREEMENT = 0.4  # correlation of the fine detail
MAX_NOISE = 3.0  # levels that encoding anew may add at that size,
MAX_DETAIL_FRAC = 0.8  # ... and how much of the detail's energy besides
SMOOTH = 1.0  # energy below which there is no detail to compare,
MAX_SMOOTH_NOISE = 2.0  # ... but pictures must be the same within so many levels
MAX_CANDIDATES = 20_000  # two decodings each; the nearest ones are looked at
BLOCK = 4096  # images compared at a time with all others

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Leak:
    """An image of one set that is in another one as well; paths are relative to the sets' roots."""

    path: str
    other: str
    how: str

    def __str__(self) -> str:
        return f"{shown(self.path)} is {shown(self.other)} ({self.how})"


def find_leaks(first: UsableImages, second: UsableImages, home: Path | None = None) -> list[Leak]:
    """The images of `second` that are in `first` too, one leak each, in their order; kept under the home."""
    kept = _record(first, second, home)
    if kept is not None and kept.exists():
        return [Leak(*entry) for entry in json.loads(kept.read_text(encoding="utf-8"))]
    leaks = _same_bytes(first, second)
    for place, other in _copies(first, second, set(leaks)):
        leaks.setdefault(
            place, Leak(second.paths[place], first.paths[other], "a copy, encoded anew")
        )
    found = [leaks[place] for place in sorted(leaks)]
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_durably(
            kept, json.dumps([(leak.path, leak.other, leak.how) for leak in found]).encode()
        )
    return found


def _record(first: UsableImages, second: UsableImages, home: Path | None) -> Path | None:
    if home is None:
        return None
    digest = hashlib.sha256(f"{VERSION}".encode())
    for found in (first, second):
        for path, one in zip(found.paths, found.digests, strict=True):
            digest.update(f"{path}\x1f{one.sha256}\x1e".encode(errors="surrogateescape"))
        digest.update(b"\x1d")
    return home / "data" / "leaks" / f"{digest.hexdigest()[:16]}.json"


def _same_bytes(first: UsableImages, second: UsableImages) -> dict[int, Leak]:
    place_of = {digest.sha256: place for place, digest in enumerate(first.digests)}
    paths, others = first.paths, second.paths
    leaks = {}
    for place, digest in enumerate(second.digests):
        other = place_of.get(digest.sha256)
        if other is not None:
            same = (first.table.root / paths[other]).resolve() == (
                second.table.root / others[place]
            ).resolve()
            how = "the same file" if same else "the same bytes"
            leaks[place] = Leak(others[place], paths[other], how)
    return leaks


def _copies(
    first: UsableImages, second: UsableImages, known: set[int]
) -> Iterator[tuple[int, int]]:
    """Pairs (place in `second`, place in `first`) of copies; the nearest candidates first."""

    @lru_cache(maxsize=4096)
    def detail(found: UsableImages, place: int, side: int) -> Floats:
        index = found.indices[place]
        picture, _ = thumbnail(found.table.root / found.table.paths[index], side)
        return picture.astype(np.float32)

    seen = set(known)
    for place, other in _candidates(first, second):
        if place in seen:
            continue
        sizes = [
            (digest.height, digest.width)
            for digest in (first.digests[other], second.digests[place])
        ]
        side = max(8, min(CONFIRMING_SIDE, *(min(size) for size in sizes)))
        try:
            is_one = same_picture(detail(first, other, side), detail(second, place, side))
        except CorruptImageError:  # has changed since it was digested: the next inspection says so
            continue
        if is_one:
            seen.add(place)
            yield place, other


def same_picture(one: Floats, other: Floats) -> bool:
    """Whether two grey pictures (S, S) of the same size are one, apart from what encoding anew does to it."""
    difference = float(np.mean((one - other) ** 2))
    details = [picture - _blurred(picture) for picture in (one, other)]
    energies = [float(np.mean(detail**2)) for detail in details]
    if max(energies) < SMOOTH:
        return difference <= MAX_SMOOTH_NOISE**2
    agreement = (
        float(np.mean(details[0] * details[1])) / max(energies[0] * energies[1], 1e-6) ** 0.5
    )
    return agreement >= MIN_AGREEMENT and difference <= MAX_NOISE**2 + MAX_DETAIL_FRAC * max(
        energies
    )


def _blurred(picture: Floats) -> Floats:
    padded = np.pad(picture, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    blurred: Floats = windows.mean(axis=(2, 3))
    return blurred


def _candidates(first: UsableImages, second: UsableImages) -> list[tuple[int, int]]:
    """Pairs (place in `second`, place in `first`) with like thumbnails, the most alike first."""
    ours, our_places = _thumbnails(first)
    theirs, their_places = _thumbnails(second)
    limit = np.float32(MAX_DIFFERENCE**2 * ours.shape[1])
    found: list[tuple[float, int, int]] = []
    squares = (ours**2).sum(axis=1)
    for start in range(0, len(theirs), BLOCK):
        block = theirs[start : start + BLOCK]
        distance = (block**2).sum(axis=1)[:, None] + squares[None] - 2 * (block @ ours.T)
        for row, column in zip(*np.nonzero(distance <= limit), strict=True):
            found.append(
                (
                    float(distance[row, column]),
                    int(their_places[start + row]),
                    int(our_places[column]),
                )
            )
    found.sort()
    return [(place, other) for _, place, other in found[:MAX_CANDIDATES]]


def _thumbnails(found: UsableImages) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Thumbnails (N, 64) of the images that are not next to uniform, around middle grey, and their places."""
    pixels = np.frombuffer(b"".join(digest.thumbnail for digest in found.digests), dtype=np.uint8)
    values = pixels.reshape(len(found.digests), -1).astype(np.float32) - 128
    if not len(values):
        return np.zeros((0, 64), np.float32), np.zeros(0, np.int64)
    places = np.flatnonzero(values.std(axis=1) >= MIN_CONTRAST).astype(np.int64)
    return values[places], places
