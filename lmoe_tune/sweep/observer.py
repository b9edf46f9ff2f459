"""Observers of a sweep: the command line's progress display, a notebook's, or one that does
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmoe_tune.arguments import refuse_other
from lmoe_tune.records import TrialRecord

if TYPE_CHECKING:
    from lmoe_tune.sweep.ledger import Ledger


class Observer:
    """Hears what happens in a sweep; override what you want to see. It must be quick: the sweep
    waits for it.

    The methods are called from the thread that runs the sweep.
    """

    def on_message(self, text: str) -> None:
        """Something that the user wants to know: one sentence, or a few lines."""

    def on_work(self, what: str, done: int, total: int) -> None:
        """The progress of something that takes a while: reading or decoding images before the first
        trial, or delivering to MLflow after the last one.
        """

    def on_begin(self, ledger: Ledger) -> None:
        """The trials begin now; `ledger` is the sweep's, to be read."""

    def on_start(self, trial: TrialRecord) -> None:
        """A trial was handed out; it already has epochs if it continues from an earlier run."""

    def on_epoch(self, trial: TrialRecord) -> None:
        """A trial has one more epoch, and continues."""

    def on_end(self, trial: TrialRecord) -> None:
        """A trial is complete, was pruned or failed."""


def hearing(observer: Observer | None) -> Observer:
    """The observer that a caller gave, or one that does nothing. Raises UsageError for anything
    else, such as a function.
    """
    refuse_other(observer, "observer", Observer, type(None))
    return Observer() if observer is None else observer
