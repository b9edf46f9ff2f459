"""The finite part of a space, its points by index: no list of all points is ever made.

That is the whole space where every parameter has choices or steps, and where the method is
searched, the methods that have only such parameters, or none. A grid goes through the points in an
order that only the seed determines; every other sampler is kept from one that was tried before.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from lmoe_tune.spec import METHOD, Distribution, Spec

ROUNDS = 6


@dataclass(frozen=True)
class Axis:
    """The values of one parameter: those of a choice, or `count` steps from `low` on."""

    name: str
    choices: tuple[Any, ...] | None
    low: Decimal
    step: Decimal
    count: int
    whole: bool

    def at(self, place: int) -> Any:
        """The value at a place."""
        if self.choices is not None:
            return self.choices[place]
        value = self.low + place * self.step  # in decimal: 3 * 0.1 is 0.3, as in Optuna's ranges
        if self.whole:
            return int(value)

        return float(value)

    def place(self, value: Any) -> int | None:
        """The place of a value; None if it is not one of them."""
        if self.choices is not None:
            places = (
                place
                for place, choice in enumerate(self.choices)
                if choice == value and isinstance(choice, bool) == isinstance(value, bool)
            )
            return next(places, None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        place = round((value - float(self.low)) / float(self.step))
        near = abs(self.at(place) - value) <= 1e-9 * max(abs(value), float(self.step))
        if near and 0 <= place < self.count:
            return place

        return None


@dataclass(frozen=True)
class Points:
    """The points of the finite part of a space, numbered from 0; where the method is searched,
    method by method.

    Attributes:
        endless: the other methods; `None` is the one of a space where it is not searched.
    """

    blocks: tuple[tuple[str | None, tuple[Axis, ...]], ...]
    endless: tuple[str | None, ...]
    seed: int

    @classmethod
    def of(cls, spec: Spec) -> Points:
        """Those of a spec's space."""
        axes = {name: _axis(name, entry) for name, entry in spec.space.items() if name != METHOD}
        methods: tuple[Any, ...] = (None,)
        if METHOD in spec.space:
            methods = spec.space[METHOD].choices or ()

        blocks, endless = [], []
        for method in methods:
            own = [axes[name] for name in names_for(spec, method)]
            finite = tuple(axis for axis in own if axis is not None)
            if len(finite) == len(own):
                blocks.append((method, finite))
            else:
                endless.append(method)
        return cls(tuple(blocks), tuple(endless), spec.search.seed)

    @cached_property
    def size(self) -> int:
        """How many there are; more than `len` could say."""
        return sum(_size(axes) for _, axes in self.blocks)

    @property
    def in_all(self) -> int | None:
        """How many points the space has; None if a part of it is continuous."""
        return None if self.endless else self.size

    def at(self, index: int) -> dict[str, Any]:
        """The point of a number."""
        for method, axes in self.blocks:
            if index < _size(axes):
                return ({} if method is None else {METHOD: method}) | _point(axes, index)
            index -= _size(axes)
        raise IndexError(f"the space has {self.size} points")

    def index(self, point: Mapping[str, Any]) -> int | None:
        """The number of a point; None if it is not one of the space."""
        start = 0
        for method, axes in self.blocks:
            if method is None or point.get(METHOD) == method:
                index = _index(axes, point)
                if index is None:
                    return None

                return start + index
            start += _size(axes)
        return None

    def shuffled(self, place: int) -> int:
        """The number of the point at this place in the shuffled order.

        A Feistel network over the next power of four, walked until it falls within the space.
        """
        half = max(1, ((self.size - 1).bit_length() + 1) // 2)
        mask = (1 << half) - 1
        while True:
            left, right = place >> half, place & mask
            for turn in range(ROUNDS):
                left, right = right, left ^ (_hashed(self.seed, turn, right) & mask)
            place = left << half | right
            if place < self.size:
                return place


class Tried:
    """Which points were tried, and the next one that was not."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self._indices: set[int] = set()
        self._place = 0

    def __len__(self) -> int:
        return len(self._indices)

    def __contains__(self, point: Mapping[str, Any]) -> bool:
        return self.points.index(point) in self._indices

    def add(self, point: Mapping[str, Any]) -> None:
        """Take in a point; one that is not of the space is left out."""
        index = self.points.index(point)
        if index is not None:
            self._indices.add(index)

    def next(self) -> dict[str, Any] | None:
        """The first point of the shuffled order that was not tried; None if there is none left."""
        while self._place < self.points.size:
            index = self.points.shuffled(self._place)
            if index not in self._indices:
                return self.points.at(index)
            self._place += 1  # tried once, it stays so
        return None


def num_points(spec: Spec) -> int | None:
    """How many different trials a spec's space has; None if a part of it is continuous."""
    return Points.of(spec).in_all


def names_for(spec: Spec, method: Any) -> list[str]:
    """The parameters, besides the method, of a trial with this method."""
    return [
        name
        for name, entry in spec.space.items()
        if name != METHOD and (entry.only_for is None or method in entry.only_for)
    ]


def _hashed(*parts: int) -> int:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return int.from_bytes(digest, "big")


def _axis(name: str, entry: Distribution) -> Axis | None:
    if entry.choices is not None:
        zero = Decimal(0)
        return Axis(name, entry.choices, zero, zero, len(entry.choices), whole=False)
    assert entry.low is not None and entry.high is not None, "a range without its ends"
    step = entry.step or (1 if entry.int_ or entry.low == entry.high else None)
    if step is None:
        return None
    low, high = Decimal(str(entry.low)), Decimal(str(entry.high))
    count = int((high - low) // Decimal(str(step))) + 1
    return Axis(name, None, low, Decimal(str(step)), count, whole=entry.int_)


def _size(axes: Sequence[Axis]) -> int:
    return math.prod(axis.count for axis in axes)


def _point(axes: Sequence[Axis], index: int) -> dict[str, Any]:
    point = {}
    for axis in reversed(axes):
        index, place = divmod(index, axis.count)
        point[axis.name] = axis.at(place)
    return point


def _index(axes: Sequence[Axis], point: Mapping[str, Any]) -> int | None:
    index = 0
    for axis in axes:
        place = axis.place(point.get(axis.name))
        if place is None:
            return None
        index = index * axis.count + place
    return index
