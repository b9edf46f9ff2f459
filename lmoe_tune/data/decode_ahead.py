"""Decoding the images of a spec before the first trial, so that trials need not wait for one
another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lmoe_tune.data import rows
from lmoe_tune.data.decoded_cache import ImageFile, Progress
from lmoe_tune.data.search_data import load_search_data
from lmoe_tune.spec import DataSpec


def decode_ahead(
    spec: DataSpec, home: Path, *, progress: Progress, say: Callable[[str], None]
) -> None:
    """Decode the images that a search will read; embedded data need no decoding.

    Raises:
        UsageError: the images do not fit on the disk, or some are broken.
    """
    decode_files(load_search_data(spec, home).files(), spec, home, progress=progress, say=say)


def refuse_no_room(spec: DataSpec, home: Path) -> None:
    """Raise UsageError if the images of a search, decoded into its home, will not fit on the disk.

    A `data.cache_dir` may be on the disks of other machines.
    """
    if spec.cache != "off" and spec.cache_dir is None:
        rows.refuse_no_room(load_search_data(spec, home).files(), spec, home)


def decode_files(
    files: Sequence[ImageFile],
    spec: DataSpec,
    home: Path,
    *,
    progress: Progress,
    say: Callable[[str], None],
) -> None:
    """Decode these image files, if there are any, unless `data.cache` is off."""
    if files and spec.cache != "off":
        rows.acquire_decoded(files, spec, home, progress=progress, say=say)
