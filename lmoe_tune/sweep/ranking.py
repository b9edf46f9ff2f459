"""Which trials are the best, kept up to date while a sweep runs.

A *cost* is an objective's value with the sign that makes less better. Of equal trials the earlier
one is better.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

Costs = tuple[float, ...]


def costs_of(values: Sequence[float], directions: Sequence[str]) -> Costs:
    """The objectives' values, less being better."""
    pairs = zip(values, directions, strict=True)
    return tuple(-value if direction == "maximize" else value for value, direction in pairs)


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """What a complete trial is ranked by, in this order."""

    violation: float
    costs: Costs
    number: int


class Ranking:
    """The numbers of all complete trials, best first; adding one costs a search, not a look at all
    of them.
    """

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._front: list[Place] = []  # sorted by their costs

    def __iter__(self) -> Iterator[int]:
        if len(self._front) == 1:  # the first of all places
            return (place.number for place in self._places)
        front = set(self._front)
        others = (place for place in self._places if place not in front)
        return (place.number for place in chain(self._front, others))

    def __len__(self) -> int:
        return len(self._places)

    def best(self, count: int) -> list[int]:
        """The numbers of the best few."""
        if count <= len(self._front):
            return [place.number for place in self._front[:count]]
        return list(islice(self, count))

    def front(self) -> list[int]:
        """The numbers of the feasible trials that no other one betters in every objective."""
        return [place.number for place in self._front]

    def add(self, place: Place) -> None:
        """Take in a trial that is complete."""
        insort(self._places, place)
        if place.violation > 0:
            return
        if len(place.costs) == 2:
            self._add_to_staircase(place)
        elif not any(_betters(other.costs, place.costs) for other in self._front):
            self._front = [other for other in self._front if not _betters(place.costs, other.costs)]
            insort(self._front, place)

    def _add_to_staircase(self, place: Place) -> None:
        """With two objectives: along the front the first cost rises, and the second one falls."""
        front = self._front
        at = bisect_left(front, place)
        if at > 0 and _betters(front[at - 1].costs, place.costs):
            return

        if at < len(front) and _betters(front[at].costs, place.costs):
            return  # the same first cost, and an earlier trial with a smaller second one

        end = at
        while end < len(front) and _betters(place.costs, front[end].costs):
            end += 1
        front[at:end] = [place]


def _betters(one: Costs, other: Costs) -> bool:
    """Whether `one` is nowhere worse, and somewhere better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
