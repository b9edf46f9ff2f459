"""Ends a process whose epoch hangs, so that whoever started it can start another."""

from __future__ import annotations

import ctypes
import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
STDERR = 2  # the descriptor: sys.stderr may be replaced by something without one
GRACE_S = 1.0  # for the stacks to be printed

CLOCK_MONOTONIC = 1  # linux/time.h


def each_within(seconds: float | None, items: Iterator[Item]) -> Iterator[Item]:
    """The items; if one takes longer than `seconds`, the process prints its stacks and exits with status 1.

    faulthandler's timer is a thread without Python in it, so a call that hangs holding the interpreter lock is
    ended too. In a process that is stopped (SIGSTOP) no thread runs: that one the kernel kills, GRACE_S later.
    The time that the consumer takes is not counted.
    """
    while True:
        try:
            if seconds is None:
                item = next(items)
            else:
                with _stacks_after(seconds), _killed_after(seconds + GRACE_S):
                    item = next(items)
        except StopIteration:
            return
        yield item


@contextmanager
def _stacks_after(seconds: float) -> Iterator[None]:
    faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class _Event(ctypes.Structure):
    """struct sigevent: when the timer expires, this signal goes to the process."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),  # 0 is SIGEV_SIGNAL
        ("padding", ctypes.c_char * 48),
    )


class _Times(ctypes.Structure):
    """struct itimerspec: once, after so long."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "seconds", "nanoseconds"))


@contextmanager
def _killed_after(seconds: float) -> Iterator[None]:
    """SIGKILL from a timer of the kernel's; nothing where there is no such timer (not Linux)."""
    libc = ctypes.CDLL(None)
    timer = ctypes.c_void_p()
    event = _Event(signal=signal.SIGKILL)
    if not hasattr(libc, "timer_create") or libc.timer_create(
        CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)
    ):
        yield
        return
    times = _Times(seconds=int(seconds), nanoseconds=int(seconds % 1 * 1e9))
    libc.timer_settime(timer, 0, ctypes.byref(times), None)
    try:
        yield
    finally:
        libc.timer_delete(timer)
