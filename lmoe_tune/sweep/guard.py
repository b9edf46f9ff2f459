"""Notices when Ray itself dies under a sweep: Tune's loop would wait for it forever, or Ray would
end this process.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.processes import Process

CHECK_S = 1.0
UNREACHABLE_S = (
    30.0  # the head of a cluster may be restarted in place; after 60 s Ray ends this process
)
LEAVE_S = 10.0  # for the event loop to leave by itself


class ClusterLostError(LmoeTuneError):
    """Ray has died; everything that was reported is recorded."""


class Vitals:
    """The parts of Ray that must live for a sweep to continue.

    Args:
        processes: processes of this machine, by what to call them.
        head: host and port of the head that was joined; None if its processes are known.
    """

    def __init__(
        self, processes: Mapping[str, Process], head: tuple[str, int] | None = None
    ) -> None:
        self._processes = dict(processes)
        self._head = (
            head if head is not None and _answers(head) else None
        )  # behind a proxy it never does
        self._answered = time.monotonic()
        self.lost: str | None = None

    def check(self) -> str | None:
        """What has died, or None; once something has, it stays so."""
        if self.lost is None:
            for name, process in self._processes.items():
                if not process.is_alive():
                    self.lost = f"{name} (process {process.pid} on this machine) has died"
        if self.lost is None and self._head is not None:
            if _answers(self._head):
                self._answered = time.monotonic()
            elif time.monotonic() - self._answered > UNREACHABLE_S:
                host, port = self._head
                self.lost = f"the head of the Ray cluster at {host}:{port} does not answer any more"
        return self.lost


@contextmanager
def guarded(
    vitals: Vitals, on_lost: Callable[[str], float], give_up: Callable[[], None]
) -> Iterator[None]:
    """Watches Ray in a thread for the length of the block.

    Args:
        on_lost: is told what has died, and makes the block end; gives the seconds it may take.
        give_up: ends the process if the block does not end because it waits within Ray.
    """
    left = threading.Event()

    def look() -> None:
        while not left.wait(CHECK_S):
            lost = vitals.check()
            if lost is not None:
                if not left.wait(on_lost(lost)):
                    give_up()
                return

    thread = threading.Thread(target=look, name="guard", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()


def _answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=5.0):
            return True
    except OSError:
        return False
