"""What goes wrong in a way that the user can act on.

The command line prints the message of an `LmoeTuneError` and exits with its `exit_code`; a broken
invariant is an `assert`, and its traceback is for the developers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class LmoeTuneError(Exception):
    """Base of all errors a user can act on."""

    exit_code = 1


class UsageError(LmoeTuneError):
    """The command, the spec or the data are not as they must be; nothing was started."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a spec: `where` is file:line:column, `key` the dotted path of the
    setting.
    """

    where: str
    key: str
    what: str

    def __str__(self) -> str:
        if self.key:
            return f"{self.where} {self.key}: {self.what}"

        return f"{self.where} {self.what}"


class SpecError(UsageError):
    """A spec with problems: all of them, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        assert problems, "a SpecError without a problem"
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class TrackingError(LmoeTuneError):
    """Something is not in MLflow; the ledger holds everything, `sync` delivers it later."""


class TrackingAwayError(TrackingError):
    """MLflow cannot be reached now: a refused connection, a time-out, an error of the server's, a
    lock.
    """


class TrackingRefusedError(TrackingError):
    """MLflow, or what answers in its place, refuses, and will refuse again until something is fixed.

    Attributes:
        of_content: it is what was sent that is refused, a name or a value, and not the sender.
    """

    exit_code = 2

    def __init__(self, text: str, *, of_content: bool = False) -> None:
        self.of_content = of_content
        super().__init__(text)


class StorageError(LmoeTuneError):
    """A file cannot be written: the disk is full, read-only or broken. What was there before is
    unharmed.
    """


class TrainingError(LmoeTuneError):
    """A training run that cannot continue. The message names the epoch and the term."""


class DivergedError(TrainingError):
    """A training whose loss or logits are no longer finite."""


class DeviceMemoryError(TrainingError):
    """The GPU's memory does not suffice: the message has the numbers, and what to set."""


class BaselineError(TrainingError):
    """The baseline cannot be trained, so no trial of the sweep can."""
