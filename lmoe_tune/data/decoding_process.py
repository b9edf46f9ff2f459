"""A worker that decodes blocks of images into the pixel file of a cache; `decoded_cache` starts several."""

from __future__ import annotations

import os
import zlib
from typing import Any

import numpy as np

from lmoe_tune.data.decode import CorruptImageError, decode_resized
from lmoe_tune.data.worker_processes import serve


def decode_block(job: dict[str, Any]) -> dict[str, Any]:
    """Decode the images of a block and write them into its place.

    Args:
        job: `pixels` is the path of the file, `side` the images' side, `offset` the block's place in bytes, `files`
            holds a path and a crop_bottom each.

    Returns:
        `checksum` is the CRC-32 of the bytes written, `broken` a path and a reason for each broken image; where there
        is one, nothing is written. `failure` says why the file could not be.
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
    serve(decode_block)
