"""Who watches a sweep: the command line's progress, a notebook's, or nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmoe_tune.records import TrialRecord

if TYPE_CHECKING:
    from lmoe_tune.sweep.ledger import Ledger


class Observer:
    """Hears what happens in a sweep; override what you want to see. It must be quick: the sweep
    waits for it.

    The methods are called from the thread that runs the sweep.
    """

    def on_message(self, text: str) -> None:
        """Something that a person wants to know: one sentence, or a few lines."""

    def on_work(self, what: str, done: int, total: int) -> None:
        """So much is done of something that takes a while: reading or decoding images before the
        first trial, or delivering to MLflow after the last one.
        """

    def on_begin(self, ledger: Ledger) -> None:
        """The trials begin now; `ledger` is the sweep's, to be read."""

    def on_start(self, trial: TrialRecord) -> None:
        """A trial was handed out; it has epochs already where it goes on from a former run."""

    def on_epoch(self, trial: TrialRecord) -> None:
        """A trial has one more epoch, and goes on."""

    def on_end(self, trial: TrialRecord) -> None:
        """A trial is complete, was pruned or failed."""
