"""Decoded images on disk: every image is decoded and resized once per node, and mapped into memory
from then on.

N images, R side of the square they are resized to, B images of a block.

A cache is a folder of *segments*, for one R and one decoder. Each build adds a segment with the
images that no segment has yet, so another split, or another spec over the same files, decodes only
what is new to it. A segment is a folder with

    images    N keys of 16 bytes: a hash of path, size, mtime and crop_bottom
    pixels    uint8 (N, R, R, 3), written block by block by several processes
    journal   a line "block checksum" per finished block; what it does not name is not there

It is called `building-…` until all is on the disk, then `segment-…`. A killed build leaves the
former; the next one checks its finished blocks against their checksums and keeps them. One process
builds at a time, the others wait: flock, which the kernel releases. Reading takes no lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmoe_tune import advice
from lmoe_tune.data.decode import CorruptImageError, UInt8Array, decode_resized, decoder_name
from lmoe_tune.data.worker_processes import Progress, run_jobs, serve, unwatched
from lmoe_tune.durable import sync_folder, write_durably
from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.wording import first_few, readable_size

log = logging.getLogger(__name__)

KEY_BYTES = 16
BLOCK_BYTES = 16 << 20  # what a process decodes at a time: a fifth of a second at 512 pixels
SPARE_BYTES = 1 << 30  # left free on the disk: a full one would end the sweep
NUM_SHOWN = 5  # broken files named in a message

_LINE = re.compile(rb"^(\d+) ([0-9a-f]{8})\n", re.MULTILINE)


@dataclass(frozen=True)
class ImageFile:
    """An image on the disk, and the height in pixels of a banner to cut off."""

    path: Path
    crop_bottom: int = 0


class CacheSpaceError(UsageError):
    """The decoded images do not fit. `needed` and `available` are bytes."""

    def __init__(self, folder: Path, needed: int, available: int, why: str) -> None:
        self.folder, self.needed, self.available = folder, needed, available
        super().__init__(
            f"{folder}: {readable_size(needed)} of decoded images are to be added, but {why}"
        )


@dataclass(frozen=True)
class CachedImages:
    """Images by row: `segments` are (n, R, R, 3) arrays mapped from the disk; row i is in one of
    them at a slot.
    """

    segments: tuple[UInt8Array, ...]
    segment_of: npt.NDArray[np.int32]
    slot_of: npt.NDArray[np.int64]
    missing: npt.NDArray[np.int64]
    """Rows that are in no segment, one for each image: none of what `acquire` gives."""

    def __len__(self) -> int:
        return len(self.slot_of)

    def __getitem__(self, row: int) -> UInt8Array:
        """The image (R, R, 3), read from the disk when it is accessed."""
        image: UInt8Array = self.segments[self.segment_of[row]][self.slot_of[row]]
        return image


class DecodedCache:
    """The decoded images of one size, under a folder."""

    def __init__(self, root: Path, side: int) -> None:
        self.root = root
        self.side = side
        self.folder = root / f"{side}px-{decoder_name()}"
        self.image_bytes = side * side * 3

    def num_missing(self, files: Sequence[ImageFile]) -> int:
        """How many of the images are still to be decoded. Takes no lock."""
        return len(self._located(image_keys(files)).missing)

    def acquire(
        self,
        files: Sequence[ImageFile],
        *,
        limit: int | None = None,
        processes: int | None = None,
        progress: Progress = unwatched,
        say: Callable[[str], None] = log.warning,
    ) -> CachedImages:
        """The images; missing ones are decoded first. Waits for another process that is already
        doing so.

        Args:
            limit: bytes that everything under `root` may take; None: what the disk has.
            processes: None: as many as there are cores.

        Raises:
            CacheSpaceError: they do not fit; nothing was written.
            UsageError: some of the images are broken, or the folder cannot be written to.
        """
        keys = image_keys(files)
        found = self._located(keys)
        while len(found.missing):
            with self._locked(say):
                self._settle_leftovers()
                missing = self._located(keys).missing
                if len(missing):
                    self._refuse_if_too_large(len(missing), limit)
                    size = readable_size(len(missing) * self.image_bytes)
                    say(f"decoding {len(missing):,} images once, {size}, into {self.folder}")
                    self._build([files[row] for row in missing], keys[missing], processes, progress)
            found = self._located(keys)
        return found

    def verify(self, *, say: Callable[[str], None] = log.warning) -> int:
        """Check every block against its checksum and forget the damaged ones; returns how many
        there were.
        """
        if not self.folder.is_dir():
            return 0
        with self._locked(say):
            return sum(segment.forget_damaged() for segment in self._segments())

    def _segments(self) -> list[_Segment]:
        """The finished segments, except those with a truncated pixel file: mapped, it would end the
        process.
        """
        if not self.folder.is_dir():
            return []
        found = [_Segment(path, self.side) for path in sorted(self.folder.glob("segment-*"))]
        return [segment for segment in found if segment.is_whole()]

    def _located(self, keys: npt.NDArray[np.uint8]) -> CachedImages:
        """Where every image is that a segment has, and the rows of the others, one per image."""
        segments = self._segments()
        place_of: dict[bytes, tuple[int, int]] = {}
        for number, segment in enumerate(segments):
            size, finished = segment.block_size, segment.blocks()
            for slot, key in enumerate(segment.keys()):
                if slot // size in finished:
                    place_of.setdefault(key, (number, slot))
        wanted = [key.tobytes() for key in keys]
        places = np.array([place_of.get(key, (-1, -1)) for key in wanted], dtype=np.int64)
        places = places.reshape(-1, 2)
        missing = {
            key: row for row, key in reversed(list(enumerate(wanted))) if key not in place_of
        }
        return CachedImages(
            tuple(segment.mapped() for segment in segments),
            places[:, 0].astype(np.int32),
            places[:, 1].copy(),
            np.array(sorted(missing.values()), dtype=np.int64),
        )

    def _settle_leftovers(self) -> None:
        """Turn the leftovers of killed builds into segments of their finished blocks; remove
        damaged ones.
        """
        for folder in self.folder.glob("segment-*"):
            if not _Segment(folder, self.side).is_whole():
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self.folder.glob("building-*"):
            segment = _Segment(folder, self.side)
            if segment.is_whole() and segment.blocks():
                segment.forget_damaged()
                segment.finish()
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def refuse_if_too_large(self, files: Sequence[ImageFile], limit: int | None) -> None:
        """Raise CacheSpaceError if the missing ones of these images do not fit; writes nothing."""
        try:
            self._refuse_if_too_large(len(files), limit)
        except CacheSpaceError:
            self._refuse_if_too_large(self.num_missing(files), limit)  # looks at each file

    def _refuse_if_too_large(self, num_missing: int, limit: int | None) -> None:
        needed = num_missing * self.image_bytes
        folder = next(one for one in (self.folder, *self.folder.absolute().parents) if one.exists())
        free = shutil.disk_usage(folder).free
        room = max(0, free - SPARE_BYTES)
        used = num_bytes_in(self.root)
        if limit is not None and used + needed > limit:
            why = f"data.cache_limit is {readable_size(limit)} and {readable_size(used)} are taken"
            raise CacheSpaceError(self.folder, needed, max(0, limit - used), why)
        if needed > room:
            spare = f"{readable_size(SPARE_BYTES)} must stay free for checkpoints and records"
            why = f"the disk has {readable_size(free)} free, of which {spare}"
            raise CacheSpaceError(self.folder, needed, room, why)

    def _build(
        self,
        files: Sequence[ImageFile],
        keys: npt.NDArray[np.uint8],
        processes: int | None,
        progress: Progress,
    ) -> None:
        segment = _Segment.create(self.folder, self.side, keys)
        size, num_done = segment.block_size, 0
        paths_crops = [(str(file.path), file.crop_bottom) for file in files]
        jobs = [
            {
                "pixels": str(segment.pixels),
                "side": self.side,
                "block": start // size,
                "offset": start * self.image_bytes,
                "files": paths_crops[start : start + size],
            }
            for start in range(0, len(files), size)
        ]
        broken: list[tuple[str, str]] = []
        progress(0, len(files))

        def note(job: dict[str, Any], answer: dict[str, Any]) -> None:
            nonlocal num_done
            if "failure" in answer:  # such as a full disk
                raise LmoeTuneError(
                    f"{segment.pixels}: {answer['failure']}; the images decoded so far are kept"
                )
            broken.extend((path, why) for path, why in answer["broken"])
            if not answer["broken"]:
                segment.note(job["block"], answer["checksum"])
            num_done += len(job["files"])
            progress(num_done, len(files))

        run_jobs(decode_block, jobs, note, processes=processes)
        if segment.blocks():
            segment.finish()
        else:
            shutil.rmtree(segment.folder)
        if broken:
            named = first_few((f"  {path}: {why}" for path, why in sorted(broken)), NUM_SHOWN, "\n")
            raise UsageError(
                f"{len(broken)} of the images cannot be decoded:\n{named}\n"
                f"they were whole when they were inspected: see {advice.inspect()}"
            )

    @contextmanager
    def _locked(self, say: Callable[[str], None]) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / "lock").open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"{self.folder}: is not writable ({error.strerror}); set data.cache_dir to a folder that is"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process is decoding images into {self.folder}; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True)
class _Segment:
    folder: Path
    side: int

    @classmethod
    def create(cls, parent: Path, side: int, keys: npt.NDArray[np.uint8]) -> _Segment:
        segment = cls(parent / f"building-{uuid.uuid4().hex[:12]}", side)
        segment.folder.mkdir()
        with segment.pixels.open("wb") as file:
            file.truncate(len(keys) * side * side * 3)
        segment.journal.touch()
        write_durably(segment.folder / "images", keys.tobytes())
        return segment

    @property
    def pixels(self) -> Path:
        return self.folder / "pixels"

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def image_bytes(self) -> int:
        return self.side * self.side * 3

    @property
    def block_size(self) -> int:
        """B; fixed by the side alone, so it need not be written down."""
        return min(256, max(16, BLOCK_BYTES // self.image_bytes))

    def keys(self) -> list[bytes]:
        content = (self.folder / "images").read_bytes()
        return [content[start : start + KEY_BYTES] for start in range(0, len(content), KEY_BYTES)]

    def is_whole(self) -> bool:
        try:
            num_images = (self.folder / "images").stat().st_size // KEY_BYTES
            return (
                self.pixels.stat().st_size == num_images * self.image_bytes
                and self.journal.is_file()
            )
        except FileNotFoundError:
            return False

    def blocks(self) -> dict[int, int]:
        """Checksums of the finished blocks; a line cut short by a kill is ignored."""
        return {
            int(block): int(checksum, 16)
            for block, checksum in _LINE.findall(self.journal.read_bytes())
        }

    def note(self, block: int, checksum: int) -> None:
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(f"{block} {checksum:08x}\n")

    def mapped(self) -> UInt8Array:
        return np.asarray(np.memmap(self.pixels, np.uint8, "r")).reshape(
            -1, self.side, self.side, 3
        )

    def forget_damaged(self) -> int:
        """Drop the blocks that do not match their checksums from the journal; returns how many."""
        finished, pixels = self.blocks(), self.mapped()

        def is_sound(item: tuple[int, int]) -> bool:
            start = item[0] * self.block_size
            return zlib.crc32(pixels[start : start + self.block_size].data) == item[1]

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            kept = pool.map(is_sound, finished.items())
            sound = [item for item, is_kept in zip(finished.items(), kept, strict=True) if is_kept]
        if len(sound) < len(finished):
            write_durably(
                self.journal,
                "".join(f"{block} {checksum:08x}\n" for block, checksum in sound).encode(),
            )
        return len(finished) - len(sound)

    def finish(self) -> None:
        """Rename, once all is on the disk: a segment is not checked again when it is opened."""
        for path in (self.pixels, self.journal):
            descriptor = os.open(path, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self.folder.rename(self.folder.with_name(self.folder.name.replace("building-", "segment-")))
        sync_folder(self.folder.parent)


def num_bytes_in(root: Path) -> int:
    """What the decoded images under a folder take on the disk, unfinished ones included."""
    total = 0
    for path in root.rglob("pixels"):
        with suppress(FileNotFoundError):  # another process has just finished and renamed it
            total += path.stat().st_blocks * 512
    return total


def image_keys(files: Sequence[ImageFile]) -> npt.NDArray[np.uint8]:
    """A key (N, 16) per file: with another path, size, time or crop it is another image.

    Raises:
        UsageError: a file is not there.
    """
    keys = bytearray()
    for file in files:
        try:
            status = os.stat(file.path)
        except OSError as error:
            raise UsageError(f"{file.path}: {error.strerror}; see {advice.inspect()}") from error
        text = f"{os.path.abspath(file.path)}\0{status.st_size}\0{status.st_mtime_ns}\0{file.crop_bottom}"
        keys += hashlib.blake2b(
            text.encode(errors="surrogateescape"), digest_size=KEY_BYTES
        ).digest()
    return np.frombuffer(bytes(keys), np.uint8).reshape(-1, KEY_BYTES)


# The process that decodes


def decode_block(job: dict[str, Any]) -> dict[str, Any]:
    """Decode the images of a block and write them in its place.

    Args:
        job: `pixels` is the path of the file, `side` the images' side, `offset` the block's place
            in bytes, `files` holds a path and a crop_bottom each.

    Returns:
        `checksum` is the CRC-32 of the bytes written, `broken` a path and a reason for each broken
        image; if there is one, nothing is written. `failure` says why writing failed.
    """
    side, files = job["side"], job["files"]
    block = np.empty((len(files), side, side, 3), np.uint8)
    broken: list[tuple[str, str]] = []
    for place, (path, crop_bottom) in enumerate(files):
        try:
            block[place] = decode_resized(path, crop_bottom, side)
        except CorruptImageError as error:
            broken.append((str(error.path), error.why))
    if broken:
        return {"checksum": 0, "broken": broken}
    try:
        _write(job["pixels"], job["offset"], block.data.cast("B"))
    except OSError as error:
        return {"failure": str(error.strerror)}
    return {"checksum": zlib.crc32(block.data), "broken": []}


def _write(path: str, offset: int, content: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        while content:  # one call writes 2 GB at most
            written = os.pwrite(descriptor, content, offset)
            content, offset = content[written:], offset + written
    finally:
        os.close(descriptor)


def main() -> None:
    """Run as one of the processes that decode blocks."""
    serve(decode_block)
