"""An observer that keeps what it hears."""

from __future__ import annotations

from lmoe_tune.sweep.observer import Observer


class Hearing(Observer):
    """Keeps what it is told of messages and of work: how much of how much is done."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.work: list[tuple[int, int]] = []

    def on_message(self, text: str) -> None:
        self.said.append(text)

    def on_work(self, what: str, done: int, total: int) -> None:
        self.work.append((done, total))
