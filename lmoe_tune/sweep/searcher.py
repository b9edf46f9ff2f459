"""Ray's searcher over the ledger: first what a former run left unfinished, then new suggestions."""

from __future__ import annotations

from collections import deque
from typing import Any

from ray.tune.search import Searcher

from lmoe_tune.sweep.control import SweepControl


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """Hands out trials while the budget lasts. It keeps no state of its own: the ledger does."""

    def __init__(self, control: SweepControl) -> None:
        super().__init__()
        self._control = control
        self._unfinished = deque(control.ledger.unfinished())
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        with self._control.fatal_errors():
            if self._control.stopping:
                return str(Searcher.FINISHED)
            if self._unfinished:
                suggestion = self._unfinished.popleft()
            elif self._control.ledger.exhausted() is None:
                suggestion = self._control.ledger.ask()
            else:
                return str(Searcher.FINISHED)
            self._numbers[trial_id] = suggestion.number
            self._control.on_start(suggestion)
            return self._control.worker_config(suggestion)
        return str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:  # its process died more often than is retried; everything else is told by the scheduler
            with self._control.fatal_errors():
                self._control.on_process_lost(self._numbers[trial_id])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler records results, together with its decision."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a resume is a fresh run over the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a sweep is never restored from Ray's state")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tuner pickles its searcher; nothing would ever read that
