"""Memory that a step has freed is kept for the next one.

glibc gives every tensor beyond 32 MB pages of its own and returns them when it is freed, so each
step of a larger network waits for the kernel to clear them again: a tenth of the time of a
ResNet-50 step on a CPU.
"""

from __future__ import annotations

import ctypes
import gc
from functools import lru_cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """From now on this process keeps what it frees, up to its peak. Does nothing if the C library
    is not glibc.
    """
    if (library := _glibc()) is not None:
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


WORTH_RETURNING = 64 << 20  # bytes; walking through a small heap takes longer than it is worth


def return_freed_memory() -> None:
    """Hand the memory that is free now back to the system."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def give_back_memory() -> None:
    """Hand back what an ended trial has left, for other users of this machine; cheap if it has left
    little.

    What was imported before the first call is left out of this and later collections: going through
    the objects of torch and Ray took a quarter of a second between two trials.
    """
    gc.collect(1)
    _leave_out_what_is_imported()
    if free_bytes() > WORTH_RETURNING:
        gc.collect()
        return_freed_memory()


@lru_cache
def _leave_out_what_is_imported() -> None:
    """Once in a process. (`gc.get_freeze_count` would know, but it counts object by object: 27 ms.)"""
    gc.collect()
    gc.freeze()


def free_bytes() -> int:
    """Unused bytes that the allocator holds; 0 if the C library cannot say."""
    library = _glibc()
    if library is None or not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = _MallInfo
    found: int = library.mallinfo2().fordblks
    return found


class _MallInfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


@lru_cache
def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        library.mallopt.argtypes, library.malloc_trim.argtypes = (
            (ctypes.c_int, ctypes.c_int),
            (ctypes.c_size_t,),
        )
    except (OSError, AttributeError, TypeError):
        return None
    return library
