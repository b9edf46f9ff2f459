"""Decoding the images of a spec ahead of a search, and checking those that are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmoe_tune.data import load_search_data
from lmoe_tune.data.rows import acquire_decoded, cache_of
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import DataSpec
from lmoe_tune.sweep.observer import Observer
from lmoe_tune.wording import readable_size


def build(spec: DataSpec, home: Path, observer: Observer) -> dict[str, Any]:
    """Decode what is missing, check the rest against its checksums, and repair it; returns the
    result.

    Raises:
        UsageError: the data are embedded, or `data.cache` is off.
    """
    data = load_search_data(spec, home)
    if data.is_embedded:
        raise UsageError("data build: the embedded data need no decoding")
    if spec.cache == "off":
        raise UsageError("data build: data.cache is 'off', so nothing is kept; set it to disk")
    say = observer.on_message
    files, cache = data.files(), cache_of(spec, home)
    damaged = cache.verify(say=say)
    if damaged:
        say(f"{damaged} damaged blocks of images are decoded again")
    num_new = cache.num_missing(files)
    acquire_decoded(
        files,
        spec,
        home,
        progress=lambda done, total: observer.on_work("images decoded", done, total),
        say=say,
    )
    return {
        "folder": str(cache.folder),
        "images": len(files),
        "decoded_now": num_new,
        "damaged_blocks": damaged,
        "bytes": len(files) * cache.image_bytes,
        "size": readable_size(len(files) * cache.image_bytes),
    }
