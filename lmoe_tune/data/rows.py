"""Images by row, kept as a spec wants them: in the decoded cache, or decoded whenever they are
asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from lmoe_tune.data.decode import UInt8Array, decode_resized
from lmoe_tune.data.decoded_cache import (
    CachedImages,
    CacheSpaceError,
    DecodedCache,
    ImageFile,
)
from lmoe_tune.data.worker_processes import Progress, unwatched
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import DataSpec
from lmoe_tune.wording import readable_size

log = logging.getLogger(__name__)


CacheMode = Literal["disk", "device", "off"]


class Rows(Protocol):
    """Images (R, R, C) by row."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> UInt8Array: ...


@dataclass(frozen=True)
class InMemory:
    """Images that are pixels already: uint8 (N, C, R, R)."""

    pixels: UInt8Array

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> UInt8Array:
        image: UInt8Array = self.pixels[row].transpose(1, 2, 0)
        return image


@dataclass(frozen=True)
class DecodedAnew:
    """Images that are decoded whenever they are asked for."""

    files: Sequence[ImageFile]
    side: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> UInt8Array:
        return decode_resized(self.files[row].path, self.files[row].crop_bottom, self.side)


def open_rows(
    files: Sequence[ImageFile],
    spec: DataSpec,
    home: Path,
    *,
    side: int | None = None,
    processes: int | None = None,
) -> Rows:
    """The images of some files, kept as `data.cache` says; those not decoded yet are decoded first.

    Args:
        side: what they are resized to; None: what the spec says.
        processes: how many may decode; None: as many as there are cores.
    """
    if spec.cache == "off":
        return DecodedAnew(files, side or spec.image_side)

    return acquire_decoded(files, spec, home, side=side, processes=processes)


def cache_of(spec: DataSpec, home: Path, side: int | None = None) -> DecodedCache:
    """Where the decoded images of a spec are kept, resized to `side` if one is given."""
    return DecodedCache(Path(spec.cache_dir or home / "cache"), side or spec.image_side)


def acquire_decoded(
    files: Sequence[ImageFile],
    spec: DataSpec,
    home: Path,
    *,
    side: int | None = None,
    processes: int | None = None,
    progress: Progress = unwatched,
    say: Callable[[str], None] = log.warning,
) -> CachedImages:
    """The files' images from the cache; those not in it are decoded first.

    Raises:
        UsageError: they do not fit, with what can be done about it, or some are broken.
    """
    cache = cache_of(spec, home, side)
    with _explained(spec, cache):
        return cache.acquire(
            files, limit=spec.cache_limit, processes=processes, progress=progress, say=say
        )


def decode_ahead(
    files: Sequence[ImageFile],
    spec: DataSpec,
    home: Path,
    *,
    work: Callable[[str, int, int], None],
    say: Callable[[str], None],
) -> None:
    """Decode these files, if there are any and a cache is kept, before the first trial: so trials
    need not wait for one another. Raises UsageError as `acquire_decoded`.

    Args:
        work: is told what is done, how much of it, and how much there is.
    """
    if files and spec.cache != "off":
        progress = partial(work, "images decoded")
        acquire_decoded(files, spec, home, progress=progress, say=say)


def refuse_no_room(files: Sequence[ImageFile], spec: DataSpec, home: Path) -> None:
    """Raise UsageError, with what can be done, if these files, decoded into the home, will not fit.

    A `data.cache_dir` may be on the disks of other machines.
    """
    if spec.cache == "off" or spec.cache_dir is not None:
        return

    cache = cache_of(spec, home)
    with _explained(spec, cache):
        cache.refuse_if_too_large(files, spec.cache_limit)


@contextmanager
def _explained(spec: DataSpec, cache: DecodedCache) -> Iterator[None]:
    """Say what can be done about images that do not fit."""
    try:
        yield
    except CacheSpaceError as error:
        num_missing = error.needed // cache.image_bytes
        raise UsageError(
            f"{error}. Choose one of\n" + "\n".join(_choices(spec, num_missing, error))
        ) from None


def _choices(spec: DataSpec, num_missing: int, error: CacheSpaceError) -> list[str]:
    choices = []
    side = int((error.available / 3 / num_missing) ** 0.5) // 32 * 32
    if side >= 32 and (spec.crop is None or side >= spec.crop):
        choices.append(f"  data.resize={side}  ({readable_size(num_missing * side * side * 3)})")
    if spec.outliers is not None:
        if spec.outliers.limit is not None:
            fewer = f", at most {spec.outliers.limit:,}"
        else:
            fewer = ""
        size = readable_size(10_000 * spec.image_side**2 * 3)
        choices.append(f"  data.outliers.limit=N  with fewer outliers{fewer} (10,000 take {size})")
    if spec.cache_limit is not None:
        choices.append(
            f"  data.cache_limit={-(-error.needed // 10**9) + spec.cache_limit // 10**9}GB  or more"
        )
    choices.append("  data.cache_dir=FOLDER  on a larger disk")
    choices.append("  data.cache=off  decodes every image in every epoch, about 50 times slower")
    choices.append(f"  deleting what is no longer needed under {error.folder.parent}")
    return choices
