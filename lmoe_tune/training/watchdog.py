"""Ends a process whose epoch hangs, so that whoever started it can start another."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")
STDERR = 2  # the descriptor: sys.stderr may be replaced by something without one


def each_within(seconds: float | None, items: Iterator[Item]) -> Iterator[Item]:
    """The items; if one takes longer than `seconds`, the process prints its stacks and exits with status 1.

    faulthandler's timer is a thread without Python in it, so a call that hangs holding the interpreter lock is
    ended too. The time that the consumer takes is not counted.
    """
    while True:
        if seconds is not None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)
        try:
            item = next(items)
        except StopIteration:
            return
        finally:
            if seconds is not None:
                faulthandler.cancel_dump_traceback_later()
        yield item
