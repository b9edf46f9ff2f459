"""The processes of this machine, from /proc: Linux only, elsewhere there seem to be none."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process; its start time tells it from a later one with the same pid."""

    pid: int
    started: str

    @property
    def command(self) -> str:
        """Its command line; empty when it is gone."""
        try:
            return (
                Path(f"/proc/{self.pid}/cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode(errors="replace")
            )
        except OSError:
            return ""

    def is_alive(self) -> bool:
        """Whether it still runs; one that died and was not waited for does not."""
        fields = _stat(self.pid)
        return fields[19:20] == [self.started] and fields[0] not in ("Z", "X")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def descendants(ancestor: int) -> list[Process]:
    """Every process that `ancestor` or its children started."""
    parents = {process: _stat(process.pid)[1:2] for process in running()}
    found: list[Process] = []
    queue = [ancestor]
    while queue:
        parent = str(queue.pop())
        children = [process for process, parent_of in parents.items() if parent_of == [parent]]
        queue.extend(child.pid for child in children)
        found.extend(children)
    return found


def running() -> Iterable[Process]:
    """All processes."""
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(path.name))
        if fields:
            yield Process(int(path.name), fields[19])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, …; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []
