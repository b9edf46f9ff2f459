"""The nodes that a sweep runs on: how many trials fit on those there are now, and which of them are
left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from lmoe_tune import advice
from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.spec import Resources


@dataclass(frozen=True)
class Capacity:
    """What one node has in all."""

    cpus: float
    gpus: float

    def slots(self, resources: Resources) -> int:
        """How many trials fit on it at a time."""
        slots = int(self.cpus / resources.cpu + 1e-9)
        share = resources.gpu
        if share >= 1:
            slots = min(slots, int(self.gpus / share))
        elif share > 0:
            slots = min(slots, int(self.gpus) * int(1 / share + 1e-9))
        return slots


def slots_of(
    capacities: Iterable[Capacity], resources: Resources, max_concurrent: int | None
) -> int:
    """How many trials fit on these nodes at a time; each runs on one of them."""
    slots = sum(capacity.slots(resources) for capacity in capacities)
    return min(slots, max_concurrent or slots)


def refuse_too_large(capacities: Collection[Capacity], resources: Resources) -> None:
    """Raises UsageError if not even one trial fits."""
    if any(capacity.slots(resources) for capacity in capacities):
        return
    cpus = sum(capacity.cpus for capacity in capacities)
    gpus = sum(capacity.gpus for capacity in capacities)
    raise UsageError(
        f"resources: a trial asks for cpu {resources.cpu:g} and gpu {resources.gpu:g}, but there are "
        f"{cpus:g} CPUs and {gpus:g} GPUs in all; lower it with {advice.setting('resources.cpu', '…')} or "
        f"{advice.setting('resources.gpu', '…')}"
    )


class Nodes:
    """What a run has learnt about nodes."""

    def __init__(self) -> None:
        self._left_out: dict[str, str] = {}
        self._said: set[tuple[str, str]] = set()
        self.gpus: list[str] = []

    @property
    def left_out(self) -> Collection[str]:
        """Ray's ids of the nodes that no trial goes to any more."""
        return self._left_out.keys()

    def leave_out(self, node: str, host: str, faults: Sequence[str]) -> bool:
        """Send no trial there from now on; False if this was known already."""
        reason = f"node {host}: {'; '.join(faults)}"
        is_news = (host, reason) not in self._said
        self._said.add((host, reason))
        self._left_out[node] = reason
        return is_news

    def is_another_gpu(self, name: str) -> bool:
        """Whether this is a GPU of another kind than those before it; once for each kind."""
        is_new = name not in self.gpus
        if is_new:
            self.gpus.append(name)
        return is_new and len(self.gpus) > 1

    def refuse_none_left(self, alive: Collection[str], resume_command: str) -> None:
        """Raises LmoeTuneError with all reasons if every node that trials could run on is left out.

        Args:
            alive: Ray's ids of the nodes that there are now, and that are large enough.
            resume_command: what to type once that is fixed.
        """
        if not alive or not self._left_out.keys() >= set(alive):
            return
        reasons = dict.fromkeys(self._left_out[node] for node in alive)
        listed = "\n".join(f"  {reason}" for reason in reasons)
        raise LmoeTuneError(
            f"no node is fit to run trials:\n{listed}\nonce that is fixed: {resume_command}"
        )
