"""Optuna's side of a ledger that is written: the study that samplers look at, and what makes the
records.

Imported where a ledger is opened for writing, or where Optuna is to look at one: it takes .3 s.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from lmoe_tune.sweep.journal import JournalFile
from lmoe_tune.sweep.schema import STUDY

Direction = Literal["maximize", "minimize"]


def new_study(directions: Sequence[Direction], **options: Any) -> optuna.Study:
    """A study of Optuna's, without the line that it logs about each."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(directions=directions, **options)
    finally:
        optuna.logging.set_verbosity(before)  # the user may use Optuna, too


def read_study(path: Path) -> optuna.Study:
    """The study of a ledger's file, to look at."""
    return optuna.load_study(
        study_name=STUDY, storage=JournalStorage(JournalFileBackend(str(path)))
    )


class LedgerStorage(JournalStorage):
    """Optuna's journal storage, which does not look at all trials to find those that wait."""

    def __init__(self, backend: JournalFile, waiting: Mapping[int, Any]) -> None:
        """`waiting` has the numbers of these, in order."""
        super().__init__(backend)
        self._waiting = waiting

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        if states == (TrialState.WAITING,) and not deepcopy:
            return [
                self.get_trial(self.get_trial_id_from_study_id_trial_number(study_id, number))
                for number in self._waiting
            ]
        return super().get_all_trials(study_id, deepcopy, states)


class OptunaStudy:
    """The study of a ledger's file.

    Attributes:
        study: as Optuna has it.
        running: Optuna's objects of trials, of those that were asked for or reported to.
    """

    def __init__(
        self,
        journal: JournalFile,
        waiting: Mapping[int, Any],
        directions: Sequence[Direction] | None = None,
    ) -> None:
        """Open it.

        Args:
            waiting: numbers of the trials that wait, kept by the caller.
            directions: of a new study, which is created; None: there is one.
        """
        self._storage = LedgerStorage(journal, waiting)
        # Idle ones: each trial gets a sampler of its own, and rebuilding one must not draw.
        options: dict[str, Any] = {
            "study_name": STUDY,
            "storage": self._storage,
            "sampler": optuna.samplers.RandomSampler(seed=0),
            "pruner": optuna.pruners.NopPruner(),
        }
        if directions is None:
            self.study = optuna.load_study(**options)
        else:
            self.study = new_study(directions, **options)
        self._study_id = self._storage.get_study_id_from_name(STUDY)
        self.running: dict[int, Trial] = {}

    def set_attr(self, key: str, value: Any) -> None:
        """An attribute of the study."""
        self._storage.set_study_user_attr(self._study_id, key, value)

    def set_trial_attr(self, number: int, key: str, value: Any) -> None:
        """An attribute of a trial."""
        self._storage.set_trial_user_attr(self._id(number), key, value)

    def trial(self, number: int) -> Trial:
        """A running trial, to report to."""
        if number not in self.running:
            self.running[number] = Trial(self.study, self._id(number))
        return self.running[number]

    def _id(self, number: int) -> int:
        """What the storage calls a trial."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
