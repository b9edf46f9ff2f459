"""Ray's searcher over the ledger: first what earlier runs left unfinished, then new suggestions."""

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
        self._live: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        with self._control.fatal_errors():
            if self._control.stopping:
                return str(Searcher.FINISHED)
            if self._live and len(self._live) >= self._control.slots:
                return None
            self._take_back()
            if self._control.waits_for_gpu:
                return None  # else the others would take each half of a GPU that becomes free
            if self._unfinished:
                suggestion = self._unfinished.popleft()
            elif self._control.ledger.exhausted() is None:
                suggestion = self._control.ledger.ask()
            elif self._control.ledger.unfinished():
                return None  # one that runs may have to be handed out again, and FINISHED is final
            else:
                return str(Searcher.FINISHED)
            self._control.waits_for_gpu = suggestion.number in self._control.alone
            self._numbers[trial_id] = suggestion.number
            self._live.add(trial_id)
            self._control.on_start(suggestion)
            return self._control.worker_config(suggestion)
        return str(Searcher.FINISHED)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tune gives up a trial: the ledger knows whether it died too often; if not, it is handed
        out again.

        Tune also gives up when a process dies while it is reset from one trial to the next: it then
        hears of it twice, and the second time the trial already waits for another process
        (`_process_trial_failure`).
        """
        self._live.discard(trial_id)
        if error:
            self._control.handed_back.append(self._numbers[trial_id])

    def _take_back(self) -> None:
        """What came back is handed out again, before anything else."""
        waiting = self._control.handed_back
        numbers = {waiting.popleft() for _ in range(len(waiting))}
        if numbers:
            unfinished = self._control.ledger.unfinished()
            self._unfinished.extendleft(one for one in unfinished if one.number in numbers)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler records results, together with its decision."""

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Any, **spec: Any
    ) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a resume is a fresh run over the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a sweep is never restored from Ray's state")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tuner pickles its searcher; nothing would ever read that
