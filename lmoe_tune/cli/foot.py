"""A few lines at the foot of a terminal that are redrawn in place; what else is written on stderr
stays above them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread

from lmoe_tune.cli.streams import PatientFile

ERASE, UP_AND_ERASE = "\r\x1b[2K", "\x1b[A\x1b[2K"
"""A row each: what erases a whole screen at once, tmux keeps in its history."""
NARROWEST, LOWEST = 20, 4  # columns and rows that are drawn for, even where there are fewer

Draw = Callable[[int, int], Sequence[str]]
"""The lines to show, from how long they may be and how many there is room for."""


class Foot:
    """Lines at the foot of a terminal.

    They end in a newline, so that what a person types (^C) spoils none of them. If the window has
    become narrower, the terminal has wrapped them: all their rows are removed.
    """

    def __init__(self, terminal: PatientFile, encoding: str, draw: Draw, every_s: float) -> None:
        self._terminal = terminal
        self._encoding = encoding
        self._draw = draw
        self._every_s = every_s
        self._lock = Lock()
        self._lines: Sequence[str] = ()
        self._num_drawn = 0  # of the lines, those that are on the screen
        self._rest = b""  # written above, and waits for the end of its line
        self._over = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Show the lines from now on, and keep them up to date."""
        if self._thread is None:
            self._terminal.instead = self.above
            self._thread = Thread(target=self._keep_drawn, name="foot", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Remove the lines."""
        if self._thread is None or self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        with self._lock:
            self._terminal.instead = None
            self._write(self._erased() + self._rest)

    def above(self, text: bytes) -> None:
        """Write text above the lines."""
        with self._lock:
            whole, newline, self._rest = (self._rest + text).rpartition(b"\n")
            if newline:
                self._write(self._erased() + whole + newline + self._drawn())

    def _keep_drawn(self) -> None:
        while True:
            columns, rows = self._size()
            lines = self._draw(columns - 1, rows - 2)  # without the lock: it may warn
            with self._lock:
                before = self._erased()
                self._lines = lines
                self._write(before + self._drawn())
            if self._over.wait(self._every_s):
                return

    def _erased(self) -> bytes:
        """The escape sequence that removes the lines on the screen."""
        columns, _ = self._size()
        drawn = self._lines[: self._num_drawn]
        num_rows = sum(max(1, -(-len(line) // columns)) for line in drawn)
        self._num_drawn = 0
        return (ERASE + UP_AND_ERASE * num_rows).encode()

    def _drawn(self) -> bytes:
        """The lines, cut to the size that the terminal has now."""
        columns, rows = self._size()
        self._lines = [line[: columns - 1] for line in self._lines[: rows - 2]]
        self._num_drawn = len(self._lines)
        text = "".join(f"{line}\n" for line in self._lines)
        return text.encode(self._encoding, errors="backslashreplace")

    def _size(self) -> tuple[int, int]:
        try:
            found = os.get_terminal_size(self._terminal.fileno())
        except OSError:
            return 80, 24
        return max(NARROWEST, found.columns or 80), max(LOWEST, found.lines or 24)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self._terminal.write_out(data) :]
