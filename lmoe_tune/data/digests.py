"""What identifies images without their pixels: size, SHA-256, and a grey thumbnail of 8 x 8.

The thumbnail is the perceptual hash: a copy that was encoded again or resized has nearly the same
one. Reading also shows whether a file is an intact image. Digests are kept under the home, by path,
size and time of change, so a file is read once; a killed run continues where it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmoe_tune.data.decode import CorruptImageError, UInt8Array, decode_rgb
from lmoe_tune.data.worker_processes import Progress, run_jobs, serve, unwatched
from lmoe_tune.durable import writing

THUMBNAIL = 8  # pixels, both sides
VERSION = 1
"""Goes up whenever a file gives another digest."""
JOB = 64  # files: a fifth of a second
FEW = 256  # files that are read faster than processes start

Job = dict[str, Any]
"""`root`, and the `paths` in it."""


@dataclass(frozen=True)
class Digest:
    """What is known about a file: `broken` says why it is not an intact image, else it is empty."""

    size: int
    sha256: str
    thumbnail: bytes
    height: int
    width: int
    broken: str = ""


def digest_images(
    root: Path,
    paths: Sequence[str],
    *,
    crop_bottom: int = 0,
    home: Path | None = None,
    progress: Progress = unwatched,
    processes: int | None = None,
) -> list[Digest]:
    """The digests of images, in the order of `paths` (relative to `root`); reads what is not known
    yet.

    Args:
        home: where digests are kept; None: nowhere.
        processes: None: as many as there are cores.
    """
    store, known = None, {}
    if home is not None:
        store = _Store(home, root)
        known = store.read()
    stats = {path: _stat(root / path) for path in paths}
    found: dict[str, Digest] = {}

    for path, stat in stats.items():
        entry = known.get(path)
        if stat is None:
            found[path] = Digest(0, "", b"", 0, 0, "is not there")
        elif entry is not None and entry[0] == stat:
            found[path] = entry[1]

    unread = [path for path in stats if path not in found]
    num_before = len(found)

    def note(job: Job, answers: Sequence[Any]) -> None:
        lines = []
        for path, answer in zip(job["paths"], answers, strict=True):
            stat = stats[path]
            assert stat is not None, "a file that is not there is not read"
            found[path] = _digest(stat[0], answer)
            if not answer.get("was_refused"):
                lines.append([path, stat, answer])
        if store is not None:
            store.add(lines)
        progress(len(found) - num_before, len(unread))

    jobs: list[Job] = [
        {"root": str(root), "paths": unread[start : start + JOB]}
        for start in range(0, len(unread), JOB)
    ]

    if len(unread) <= FEW:
        processes = 1
    run_jobs(examine, jobs, note, processes=processes)
    return [_cropped(found[path], crop_bottom) for path in paths]


def examine(job: Job) -> list[Any]:
    """The raw digest of every file of a job: what is written into the store, and what `_digest`
    reads."""
    return [_examine(Path(job["root"], path)) for path in job["paths"]]


def thumbnail(path: Path, side: int) -> tuple[UInt8Array, tuple[int, int]]:
    """A grey picture (side, side) of a whole image, and the image's height and width. Raises
    CorruptImageError."""
    try:
        return _thumbnail(path.read_bytes(), side)
    except (
        Exception
    ):  # `decode_rgb` says what is wrong with it, and reads what the short cut cannot
        from PIL import Image

        pixels = decode_rgb(path)
        grey = Image.fromarray(pixels).convert("L").resize((side, side), Image.Resampling.BOX)
        return np.asarray(grey), (pixels.shape[0], pixels.shape[1])


def _examine(path: Path) -> Any:
    if os.path.exists(path) and not path.is_file():  # a pipe is waited for, a device never ends
        return {"broken": "is not a regular file"}

    try:
        content = path.read_bytes()
    except OSError as error:
        # The file may be sound, and be readable the next time with the same size and time of change.
        return {"broken": f"cannot be read ({error.strerror})", "was_refused": True}
    try:
        picture, (height, width) = thumbnail(path, THUMBNAIL)
    except CorruptImageError as error:
        return {"broken": error.why}
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "thumbnail": picture.tobytes().hex(),
        "size": [height, width],
    }


def _thumbnail(content: bytes, side: int) -> tuple[UInt8Array, tuple[int, int]]:
    """For JPEG only, at an eighth of the cost: its decoder reads the whole file, but computes
    few pixels."""
    from PIL import ExifTags, Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content)) as image:
            if image.format != "JPEG" or image.mode not in ("RGB", "L"):
                raise ValueError("no plain JPEG")
            width, height = image.size
            image.draft("L", (8 * side, 8 * side))
            image.load()
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            turned = ImageOps.exif_transpose(image)
            if orientation in (5, 6, 7, 8):
                width, height = height, width
            grey = turned.convert("L").resize((side, side), Image.Resampling.BOX)
            return np.asarray(grey), (height, width)


def _digest(size: int, answer: dict[str, Any]) -> Digest:
    if "broken" in answer:
        return Digest(size, "", b"", 0, 0, str(answer["broken"]))
    height, width = answer["size"]
    return Digest(
        size, str(answer["sha256"]), bytes.fromhex(answer["thumbnail"]), int(height), int(width)
    )


def _cropped(digest: Digest, crop_bottom: int) -> Digest:
    if crop_bottom and not digest.broken and digest.height <= crop_bottom:
        return replace(
            digest, broken=f"is {digest.height} pixels high, but {crop_bottom} are to be cut off"
        )
    return digest


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


class _Store:
    """One file per root, a line per image: append-only, the last line of an image counts.

    A line that a kill or another process has damaged is not read, and its image is digested again.
    """

    def __init__(self, home: Path, root: Path) -> None:
        name = hashlib.sha256(f"{VERSION}\x1f{root.resolve()}".encode()).hexdigest()[:16]
        self.path = home / "data" / "digests" / f"{name}.jsonl"

    def read(self) -> dict[str, tuple[tuple[int, int], Digest]]:
        known: dict[str, tuple[tuple[int, int], Digest]] = {}
        if not self.path.exists():
            return known
        with writing(self.path), self.path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    path, (size, changed), answer = json.loads(line)
                    known[path] = (size, changed), _digest(size, answer)
                except (ValueError, KeyError, TypeError):
                    continue
        return known

    def add(self, lines: Sequence[Any]) -> None:
        text = "\n" + "".join(
            json.dumps(line) + "\n" for line in lines
        )  # starts on a new line, as the last one may be torn
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(text.encode())


def main() -> None:
    """Run as one of the processes that digest images."""
    serve(examine)
