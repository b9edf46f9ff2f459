"""The settings of a run, whatever it searches: what `search`, `resume` and `confirm` all take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event

from lmoe_tune.arguments import refuse_other
from lmoe_tune.sweep.observer import Observer

Leave = Callable[[int, str], object]
"""Ends the process at once, with this exit status, after telling the user why. It may be called in a
signal handler, so it must take no lock."""


@dataclass(frozen=True)
class RunSettings:
    """The settings of one run; none of them is kept with the sweep."""

    observer: Observer = field(default_factory=Observer)
    """Hears what happens."""
    allow_changes: bool = False
    """Continue although spec, code or data changed; the sweep records it."""
    address: str | None = None
    """Of a Ray cluster to join; None: RAY_ADDRESS, else this machine."""
    wait_s: float | None = None
    """How long to wait for another process that works on the sweep."""
    stop: Event | None = None
    """Set from another thread, it stops the run cleanly."""
    leave: Leave | None = None
    """Ends the process at a second signal, or if Ray is dead and the run waits for it."""

    def __post_init__(self) -> None:
        refuse_other(self.address, "address", str, type(None))
        refuse_other(self.stop, "stop", Event, type(None))
        refuse_other(self.leave, "leave", Callable, type(None))
