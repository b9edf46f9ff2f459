"""Streams and events of a pretended GPU: who may read what, by vector clocks.

Each stream counts its operations and knows, for every other stream, up to which of its operations it has waited.
"""

from __future__ import annotations

from itertools import count


class Event:
    """A point in a stream; another stream that waits for it knows all that came before."""

    def __init__(self, *_: object, **__: object) -> None:
        self.known: dict[int, int] = {}

    def record(self, stream: Stream | None = None) -> None:
        self.known = dict((stream or Stream.current()).known)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or Stream.current()).wait_event(self)

    def synchronize(self) -> None:
        Stream.host_waits("event.synchronize")

    def query(self) -> bool:
        return True


class Stream:
    """A queue of operations. `current` and `host_waits` are set by the GPU that it belongs to."""

    numbers = count(1)

    def __init__(self, device: object = None, **_: object) -> None:
        self.number = next(self.numbers)
        self.known: dict[int, int] = {self.number: 0}

    @staticmethod
    def current() -> Stream:
        raise AssertionError("no pretended GPU is in use")

    @staticmethod
    def host_waits(what: str) -> None:
        raise AssertionError("no pretended GPU is in use")

    def next_operation(self) -> int:
        """Count one more; returns its number."""
        self.known[self.number] += 1
        return self.known[self.number]

    def has_seen(self, stream: int, operation: int) -> bool:
        """Whether what follows here comes after that operation of another stream."""
        return stream == self.number or self.known.get(stream, 0) >= operation

    def wait_event(self, event: Event) -> None:
        for stream, operation in event.known.items():
            self.known[stream] = max(self.known.get(stream, 0), operation)

    def wait_stream(self, other: Stream) -> None:
        self.wait_event(other.record_event())

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        self.host_waits("stream.synchronize")

    def query(self) -> bool:
        return True
