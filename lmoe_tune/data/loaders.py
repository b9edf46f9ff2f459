"""Where the pixels of image files come from: a cache on the disk, the device's memory, or the files
themselves.

All three give the same pixels. N images, R side that they are resized to, H = W side of the crop.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from lmoe_tune.data.decode import UInt8Array
from lmoe_tune.data.rows import CacheMode, DecodedAnew, Rows
from lmoe_tune.data.splits import IntArray
from lmoe_tune.data.streams import uploaded
from lmoe_tune.errors import UsageError
from lmoe_tune.wording import readable_size

COPYING_THREADS = (
    4  # of a GPU's batches: one thread copies about 5 GB/s, and waits while a page is read
)
UPLOAD_BYTES = 64 << 20  # of images that go to a device's memory at once
AHEAD = 2  # batches that are ready or being made while one is used

Item = TypeVar("Item")
Made = TypeVar("Made")


class Crops(NamedTuple):
    """Which images (N,) of a set to read, and the upper left corner of the crop in each, in pixels."""

    rows: IntArray
    tops: IntArray
    lefts: IntArray

    @classmethod
    def at(cls, corner: tuple[int, int], rows: IntArray) -> Crops:
        """The same corner (top, left) of every one of these images."""
        top, left = corner
        return cls(rows, np.full(len(rows), top), np.full(len(rows), left))

    @classmethod
    def chunks(cls, corner: tuple[int, int], rows: IntArray, size: int) -> Iterator[Crops]:
        """The same for at most `size` of these images at a time."""
        for start in range(0, len(rows), size):
            yield cls.at(corner, rows[start : start + size])


class HostLoader:
    """Reads in the background while the previous batch is used; on CUDA through pinned memory and a
    stream of its own.

    The pixels do not depend on how far ahead it reads: everything random is in the given crops.
    """

    def __init__(self, rows: Rows, device: torch.device, *, threads: int) -> None:
        self._rows = rows
        self._device = device
        self._threads = threads
        self._spare = _SpareMemory()
        # One for the loader's life: memory used on one stream cannot be reused on another.
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's own

    def read(self, batches: Iterable[Crops], crop: int) -> Iterator[Tensor]:
        with ThreadPoolExecutor(self._threads) as copying:

            def load(crops: Crops) -> tuple[Tensor, torch.cuda.Event | None]:
                shape = (len(crops.rows), crop, crop, 3)
                if self._stream is None:
                    pixels = self._spare.get(shape)
                    self._fill(pixels.numpy(), crops, copying)
                    return pixels, None

                pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
                self._fill(pixels.numpy(), crops, copying)
                with torch.cuda.stream(self._stream):
                    moved = pixels.to(self._device, non_blocking=True)
                    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
                    arrived.record(self._stream)
                return moved, arrived

            for pixels, arrived in made_ahead(load, batches):
                if arrived is not None:
                    current = torch.cuda.current_stream(self._device)
                    current.wait_event(arrived)
                    pixels.record_stream(current)  # its memory was reserved on the other stream
                yield pixels

    def _fill(self, out: UInt8Array, crops: Crops, copying: ThreadPoolExecutor) -> None:
        size = out.shape[1]
        rows, tops, lefts = (values.tolist() for values in crops)

        def fill(start: int) -> None:
            for place in range(start, len(rows), self._threads):
                top, left = tops[place], lefts[place]
                out[place] = self._rows[rows[place]][top : top + size, left : left + size]

        if self._threads == 1:
            fill(0)
        else:
            list(copying.map(fill, range(self._threads)))


class _SpareMemory:
    """Tensors in the memory of earlier ones: getting new pages from the kernel takes longer than
    filling a batch.

    Memory is reused once nothing refers to the tensor that had it, nor to a view of it.
    """

    def __init__(self) -> None:
        self._free: deque[UInt8Array] = deque(maxlen=AHEAD + 2)

    def get(self, shape: tuple[int, ...]) -> Tensor:
        """An uninitialised uint8 tensor."""
        size = math.prod(shape)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(0, np.uint8)
        if len(memory) < size:
            memory = np.empty(size, np.uint8)
        given = memory[:size].reshape(shape)
        weakref.finalize(
            given, self._free.append, memory
        ).atexit = False  # the tensor's storage refers to it
        return torch.from_numpy(given)


class DeviceLoader:
    """All images in the device's memory: an epoch moves only the indices of its batches."""

    def __init__(self, rows: Rows, device: torch.device) -> None:
        """Move the images there, some at a time.

        Raises:
            UsageError: they take more than half of the memory that a GPU has free.
        """
        shape = rows[0].shape
        _refuse_too_large(len(rows) * math.prod(shape), device)
        self._pixels = torch.empty((len(rows), *shape), dtype=torch.uint8, device=device)
        at_once = max(1, UPLOAD_BYTES // math.prod(shape))
        for start in range(0, len(rows), at_once):
            stop = min(start + at_once, len(rows))
            some = torch.empty(
                (stop - start, *shape), dtype=torch.uint8, pin_memory=device.type == "cuda"
            )
            for row in range(start, stop):
                some.numpy()[row - start] = rows[row]
            self._pixels[start:stop].copy_(some, non_blocking=True)

    def read(self, batches: Iterable[Crops], crop: int) -> Iterator[Tensor]:
        device = self._pixels.device
        asked = list(batches)
        if not asked:
            return

        together = [np.concatenate(parts) for parts in zip(*asked, strict=True)]
        of_all = uploaded(torch.from_numpy(np.stack(together)), device)
        within = torch.arange(crop, device=device)
        start = 0
        for crops in asked:
            rows, tops, lefts = of_all[:, start : start + len(crops.rows)]
            start += len(crops.rows)
            if crop == self._pixels.shape[1]:
                yield self._pixels[rows]
            else:
                down = (tops[:, None] + within)[:, :, None]
                right = (lefts[:, None] + within)[:, None, :]
                yield self._pixels[rows[:, None, None], down, right]


Loader = HostLoader | DeviceLoader
"""Gives the crops batch by batch, in the given order, as uint8 (N, H, W, 3) on the device."""


def _refuse_too_large(needed: int, device: torch.device) -> None:
    if device.type != "cuda":
        return

    free = torch.cuda.mem_get_info(device)[0]
    if needed > free // 2:  # the other half is for the model and what it computes
        raise UsageError(
            f"data.cache is 'device', but {readable_size(needed)} of images are more than half of the "
            f"{readable_size(free)} that the GPU has free; set data.cache: disk, a smaller data.resize or "
            "data.outliers.limit, or give each trial a whole GPU"
        )


def made_ahead(
    make: Callable[[Item], Made], items: Iterable[Item], *, ahead: int = AHEAD
) -> Iterator[Made]:
    """`make` of every item, in order, made in a separate thread up to `ahead` items before it is
    asked for.
    """
    pending: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(1)
    try:
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # even if nobody asks for the rest


def open_loader(rows: Rows, cache: CacheMode, device: torch.device, *, threads: int) -> Loader:
    """A loader of image files for a device.

    Args:
        threads: how many a trial may use; copying from a cache takes `COPYING_THREADS` at most.
    """
    if cache == "device":
        return DeviceLoader(rows, device)

    if isinstance(rows, DecodedAnew):
        return HostLoader(rows, device, threads=threads)

    copying = 1
    if device.type == "cuda":
        copying = max(1, min(COPYING_THREADS, threads))
    return HostLoader(rows, device, threads=copying)


def channel_statistics(rows: Rows, chosen: IntArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the red, green and blue values (0-255) of some images."""
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for row in chosen.tolist():
        pixels = rows[row].reshape(-1, 3).astype(np.float64)
        count += len(pixels)
        total += pixels.sum(axis=0)
        squares += (pixels**2).sum(axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))
    return tuple(mean.tolist()), tuple(std.tolist())
