"""Every key that a ledger holds, who writes it, when, and what it is. `docs/records.md` is made
from this page.

A ledger is an Optuna study called `sweep` in a journal file. What is known of the sweep as a whole
are attributes of the study; what is known of a trial are its state, its parameters and its
attributes. To add one: a line here, and `python docs/make_records.py`. A key that is not listed
cannot be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

SCHEMA = 3
STUDY = "sweep"  # always: a sweep may be renamed

T = TypeVar("T")
Of = Literal["sweep", "trial"]


@dataclass(frozen=True)
class Key(Generic[T]):
    """One attribute.

    A name that ends in `NNNN` stands for a numbered family, counted from 0 (epochs from 1).
    """

    name: str
    of: Of
    kind: str
    written: str
    about: str

    @cached_property
    def stem(self) -> str:
        return self.name.removesuffix("NNNN")

    @cached_property
    def is_numbered(self) -> bool:
        return self.stem != self.name

    def at(self, number: int) -> str:
        """The name of one of a numbered family."""
        assert self.is_numbered, f"{self.name} is not numbered"
        return f"{self.stem}{number:04d}"

    def get(self, attrs: Mapping[str, Any]) -> T | None:
        """The value, or None."""
        found: T | None = attrs.get(self.name)
        return found

    def read(self, attrs: Mapping[str, Any]) -> T:
        """The value; it must be there."""
        found: T = attrs[self.name]
        return found

    def all(self, attrs: Mapping[str, Any]) -> dict[int, T]:
        """A numbered family, by number."""
        assert self.is_numbered, f"{self.name} is not numbered"
        numbers = sorted(
            int(name.removeprefix(self.stem))
            for name in attrs
            if name.startswith(self.stem) and name.removeprefix(self.stem).isdigit()
        )
        return {number: attrs[self.at(number)] for number in numbers}

    def holds(self, name: str) -> bool:
        """Whether an attribute of this name is this key, or one of its family."""
        if not self.is_numbered:
            return name == self.name
        return name.startswith(self.stem) and name.removeprefix(self.stem).isdigit()


# The sweep as a whole

VERSION = Key[int]("schema", "sweep", "whole number", "ledger, at the start", "This schema.")
SWEEP_ID = Key[str](
    "sweep_id", "sweep", "UUID", "ledger, at the start", "Which sweep this is, whatever its name."
)
NAME = Key[str]("name", "sweep", "text", "ledger, at the start", "Its name at the start.")
CREATED_MS = Key[int]("created_ms", "sweep", "ms", "ledger, at the start", "When it was started.")
BUDGET = Key[dict[str, Any]](
    "budget", "sweep", "{trials, time_s, gpu_hours, max_failed}", "each run",
    "What it may use over all runs; null is unlimited.",
)  # fmt: skip
SPEC_BUDGET = Key[dict[str, Any]](
    "spec_budget", "sweep", "like budget", "each run that is given a spec",
    "The budget of the spec that was given last: it holds where it differs from the one before.",
)  # fmt: skip
FINGERPRINT = Key[str]("fingerprint", "sweep", "hash", "each run", "Which data it was searched on.")
BASELINE = Key[str](
    "baseline", "sweep", "hash", "each run", "The baseline that its trials start from."
)
CODE = Key[dict[str, str]](
    "code", "sweep", "{file or package: hash or version}", "each run", "With which code."
)
WARM_START = Key[list[dict[str, Any]]](
    "warm_start", "sweep", "list of {sweep, sweep_id, digest, metric, origins, notes, seen}",
    "ledger, at the start", "What it took from other sweeps: which of their trials it tries as which of its own.",
)  # fmt: skip
IMPORT_PATH = Key[str](
    "import_path", "sweep", "path", "each run", "Where your own trainables are imported from."
)
RESUME_COMMAND = Key[str](
    "resume_command",
    "sweep",
    "text",
    "a confirmation and what it tunes",
    "What to run to continue with it.",
)
RUN = Key[dict[str, Any]](
    "run:NNNN",
    "sweep",
    "{started_ms, pid, resources}",
    "each run, when it begins",
    "A process that works on the sweep.",
)
RUN_END = Key[dict[str, Any]](
    "run_end:NNNN", "sweep", "{ended_ms, how}", "each run, when it ends; for a killed one the next run",
    "How that ended: complete, interrupted, or killed (counted to its last record).",
)  # fmt: skip
CHANGE = Key[dict[str, Any]](
    "change:NNNN", "sweep", "{time_ms, lines}", "a run with --allow-changes, by its number",
    "What was allowed to be different from the start of the sweep.",
)  # fmt: skip
TEST_OPENING = Key[dict[str, Any]](
    "test_opening:NNNN", "sweep", "{time_ms, who, command, jobs}", "a confirmation, before it begins",
    "The sealed test set was opened.",
)  # fmt: skip

# A confirmation's study

KIND = Key[str](
    "kind", "sweep", "text", "a confirmation, at its start", "`confirm`; a search has none."
)
OF_SWEEP = Key[str](
    "of_sweep", "sweep", "text", "a confirmation, at its start", "The sweep that it confirms."
)
OF_SWEEP_ID = Key[str](
    "of_sweep_id", "sweep", "UUID", "a confirmation, at its start", "The same, whatever its name."
)
CANDIDATES = Key[list[dict[str, Any]]](
    "candidates", "sweep", "list", "a confirmation, for each new row",
    "The rows of its table, and what they are trained for: `confirm`, or `reseed`.",
)  # fmt: skip
VERDICT = Key[str](
    "verdict", "sweep", "text", "a confirmation, when all jobs are done", "Its word."
)
VERDICT_SENTENCE = Key[str](
    "verdict_sentence",
    "sweep",
    "text",
    "a confirmation, when all jobs are done",
    "The same with its reasons.",
)

# A trial. Its state, parameters, distributions, value and times are Optuna's own.

EPOCH = Key[dict[str, Any]](
    "epoch:NNNN", "trial", "{metrics, misses, time_ms}", "each epoch, with the decision on it",
    "What was measured, and how far each constraint was missed (0 or less: met).",
)  # fmt: skip
FAILURE = Key[str]("failure", "trial", "text", "when it fails", "What went wrong.")
TRACEBACK = Key[str]("traceback", "trial", "text", "when it fails in Python", "Where.")
ENDED_BY = Key[str](
    "ended_by", "trial", "text", "when a budget ends it", "The budget that is used up."
)
RETRY_OF = Key[int](
    "retry_of", "trial", "number", "when it is enqueued", "The failed trial that it tries again."
)
RETRIES = Key[int](
    "retries",
    "trial",
    "number",
    "when its process dies",
    "How often that has happened, over all runs.",
)
HOST = Key[str](
    "host", "trial", "text", "when it begins on another machine", "The machine that it runs on."
)
DEVICE = Key[str]("device", "trial", "cpu|cuda", "with `host`", "What it is trained on.")
GPU = Key[str]("gpu", "trial", "text", "with `host`", "The name of its GPU.")
NOTES = Key[list[str]](
    "notes", "trial", "list of texts", "when its process warns", "A damaged checkpoint, say."
)

RECORD_KEYS = (FAILURE, TRACEBACK, ENDED_BY, RETRY_OF, RETRIES, HOST, DEVICE, GPU)
"""Keys of a trial that are fields of its record, by the same name."""

KEYS: tuple[Key[Any], ...] = tuple(value for value in globals().values() if isinstance(value, Key))

OPTUNAS = {
    "constraints:METRIC:min|max": "how far it misses a constraint in the end, by what is known when it ends",
    "fixed_params": "the parameters that it was enqueued with",
    "tpe:relative_params:N": "what TPE suggested, while the trial runs",
    "others": "notes of the sampler that wrote them",
}
"""System attributes of a trial, which Optuna writes and reads."""


def key_of(of: Of, name: str) -> Key[Any]:
    """The key of an attribute."""
    found = next((key for key in KEYS if key.of == of and key.holds(name)), None)
    assert found is not None, f"{name} is not in lmoe_tune/sweep/schema.py: add it there"
    return found
