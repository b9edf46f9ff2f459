"""Decoding the images of a spec before anything else starts, with a progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmoe_tune.cli.output import say
from lmoe_tune.data import PlannedData, load_search_data
from lmoe_tune.data.decoded_cache import ImageFile, Progress
from lmoe_tune.data.rows import acquire_decoded, cache_of
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import DataSpec
from lmoe_tune.wording import duration, readable_size

BAR_WIDTH = 30
SHOWN_EVERY_S = 0.2  # on a terminal, where a line replaces the last one
LOGGED_EVERY_S = 15.0


def decode_ahead(spec: DataSpec, home: Path) -> None:
    """Decode what a search will read, so that its trials need not wait for one another; embedded data need nothing."""
    data = load_search_data(spec, home)
    if isinstance(data, PlannedData):
        decode_files(data.files(), spec, home)


def decode_files(files: Sequence[ImageFile], spec: DataSpec, home: Path) -> None:
    """Decode these image files, if there are any, unless `data.cache` is off."""
    if files and spec.cache != "off":
        acquire_decoded(files, spec, home, progress=progress_bar(), say=say)


def build(spec: DataSpec, home: Path) -> dict[str, Any]:
    """Decode what is missing, check what is there against its checksums, and mend it; returns what there is then.

    Raises:
        UsageError: the data are embedded, or `data.cache` is off.
    """
    data = load_search_data(spec, home)
    if not isinstance(data, PlannedData):
        raise UsageError("data build: the embedded data need no decoding")
    if spec.cache == "off":
        raise UsageError("data build: data.cache is 'off', so nothing is kept; set it to disk")
    files, cache = data.files(), cache_of(spec, home)
    damaged = cache.verify(say=say)
    if damaged:
        say(f"{damaged} damaged blocks of images are decoded again")
    num_new = cache.num_missing(files)
    acquire_decoded(files, spec, home, progress=progress_bar(), say=say)
    return {
        "folder": str(cache.folder),
        "images": len(files),
        "decoded_now": num_new,
        "damaged_blocks": damaged,
        "bytes": len(files) * cache.image_bytes,
        "size": readable_size(len(files) * cache.image_bytes),
    }


def progress_bar() -> Progress:
    """A bar on stderr that is redrawn on a terminal, and a line now and then elsewhere."""
    live = sys.stderr.isatty()
    started = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < (SHOWN_EVERY_S if live else LOGGED_EVERY_S):
            return
        left = (
            f", {duration((now - started) / done * (total - done))} left"
            if 0 < done < total
            else ""
        )
        text = f"{done:,} of {total:,} images{left}"
        if live:
            filled = BAR_WIDTH * done // max(1, total)
            ends = "\n" if done == total else ""
            sys.stderr.write(f"\r\x1b[K[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {text}{ends}")
            sys.stderr.flush()
        elif now - last >= LOGGED_EVERY_S:
            say(text)
        last = now

    return show
