"""Ends a process whose epoch hangs, so that its parent can start another."""

from __future__ import annotations

import ctypes
import faulthandler
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")
STDERR = 2  # the descriptor: sys.stderr may be replaced by something without one
GRACE_S = 1.0  # for the stacks to be printed

FROZEN_MARGIN_S = (
    30.0  # beside the epochs: imports and readers may hold the interpreter lock for long
)
BEAT_S = 1.0

CLOCK_MONOTONIC = 1  # linux/time.h


def each_within(seconds: float | None, items: Iterator[Item]) -> Iterator[Item]:
    """The items; if one takes longer than `seconds`, the process prints its stacks and exits with
    status 1.

    faulthandler's timer is a thread that runs no Python, so a call that hangs holding the
    interpreter lock is ended too. In a stopped process (SIGSTOP) no thread runs: the kernel kills
    it, GRACE_S later. The consumer's time is not counted.
    """
    while True:
        try:
            with _ended_after(seconds):
                item = next(items)
        except StopIteration:
            return
        yield item


class _Event(ctypes.Structure):
    """struct sigevent: when the timer expires, this signal goes to the process."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),  # 0 is SIGEV_SIGNAL
        ("padding", ctypes.c_char * 48),
    )


class _Times(ctypes.Structure):
    """struct itimerspec: one expiry, after this time."""

    _fields_ = tuple(
        (name, ctypes.c_long) for name in ("interval_s", "interval_ns", "seconds", "nanoseconds")
    )


class _KillTimer:
    """SIGKILL from a kernel timer; does nothing if there is no such timer (not Linux)."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._timer = ctypes.c_void_p()
        event = _Event(signal=signal.SIGKILL)
        self._made = hasattr(self._libc, "timer_create") and not self._libc.timer_create(
            CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)
        )

    def set(self, seconds: float) -> None:
        """Kill this many seconds from now, instead of the time set before."""
        if self._made:
            times = _Times(seconds=int(seconds), nanoseconds=int(seconds % 1 * 1e9))
            self._libc.timer_settime(self._timer, 0, ctypes.byref(times), None)

    def delete(self) -> None:
        if self._made:
            self._libc.timer_delete(self._timer)


@contextmanager
def _ended_after(seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return

    faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)
    timer = _KillTimer()
    timer.set(seconds + GRACE_S)
    try:
        yield
    finally:
        timer.delete()
        faulthandler.cancel_dump_traceback_later()


@cache
def kill_when_frozen(seconds: float) -> None:
    """From now on the kernel kills this process when no Python has run in it for `seconds`.

    For a process that is stopped between its epochs or before the first: no epoch's timer runs
    then.
    """
    timer = _KillTimer()
    timer.set(seconds)  # the process may be stopped before the thread has run at all

    def beat() -> None:
        while True:
            time.sleep(BEAT_S)
            timer.set(seconds)

    threading.Thread(target=beat, daemon=True).start()
