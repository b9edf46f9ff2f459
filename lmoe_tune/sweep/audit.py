"""`lmoe-tune audit`: every suggestion and every pruning decision of a sweep, computed again from
its ledger.

The ledger's transactions are replayed in their order into a ledger of its own in a temporary
folder: at each one that started a trial the sampler is asked again, at each recorded epoch the
pruner. Nothing is trained. What was given (points to start from, retries, failures, the ends of
budgets) is taken as recorded.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmoe_tune.errors import UsageError
from lmoe_tune.records import TrialRecord
from lmoe_tune.spec import METRICS, identity
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.contents import COMPLETE, FAIL, PRUNED, RUNNING, WAITING, Operation
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lines import whole_prefix
from lmoe_tune.wording import shown

Transaction = list[dict[str, Any]]
ENDED = (COMPLETE, PRUNED, FAIL)


@dataclass(frozen=True)
class Audit:
    """What the audit found about the ledger.

    Attributes:
        suggestions: trials whose parameters were recomputed.
        given: trials that came with their parameters (points to start from, retries).
        decisions: epochs after which the pruner was asked again whether the trial continues.
        differences: what came out differently, a sentence each; none if the record agrees with the
            code.
        cautions: what limits the audit.
        digest: SHA-256 of spec, data, parameters, metrics and ends: one line for a paper.
    """

    sweep: str
    suggestions: int
    given: int
    decisions: int
    differences: tuple[str, ...]
    cautions: tuple[str, ...]
    digest: str


def audit(ledger: Ledger) -> Audit:
    """Recompute a sweep's decisions. Only reads, so it can run at any moment, beside a running
    driver.

    Raises:
        UsageError: the ledger was rebuilt, so the order of its decisions is not known.
    """
    content = whole_prefix(ledger.folder.ledger.read_bytes())
    with tempfile.TemporaryDirectory(prefix="lmoe-tune-audit-") as folder:
        replay = _Replay(ledger, Path(folder))
        for transaction in _transactions(content):
            replay.take_in(transaction)

    cautions = [
        f"run {number} continued with changes ({'; '.join(change['lines'])}): "
        "what was suggested before may differ for that reason"
        for number, change in schema.CHANGE.all(ledger.attrs).items()
    ]
    if replay.num_unseen:
        cautions.append(
            f"{replay.num_unseen} suggestions after the first difference were not compared, "
            "as they depend on the trials before"
        )

    return Audit(
        sweep=ledger.folder.name,
        suggestions=replay.num_suggestions,
        given=replay.num_given,
        decisions=replay.num_decisions,
        differences=tuple(replay.differences),
        cautions=tuple(cautions),
        digest=digest(ledger),
    )


def digest(ledger: Ledger) -> str:
    """The hash of everything that a sweep's result depends on; the same wherever and whenever it is
    computed.

    Times are left out, and so are retries of processes: they differ between machines and change no
    result.
    """
    document = {
        "spec": {key: value for key, value in identity(ledger.spec).items() if key != "name"},
        "data": ledger.get(schema.FINGERPRINT),
        "trials": list(map(_result, ledger.trials())),
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _result(trial: TrialRecord) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "params": trial.params,
        "epochs": [_lasting(epoch.metrics) for epoch in trial.epochs],
    }


def _lasting(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that do not measure time."""
    timed = {name for name, metric in METRICS.items() if not metric.searchable and name != "lr"}
    return {name: value for name, value in metrics.items() if name not in timed}


def _transactions(content: bytes) -> Iterator[Transaction]:
    transaction: Transaction = []
    for line in content.splitlines():
        record = json.loads(line)
        transaction.append(record)
        if record.get("left", 0) == 0:
            yield transaction
            transaction = []


class _Replay:
    """A ledger that repeats the history of another one, and decides for itself."""

    def __init__(self, recorded: Ledger, folder: Path) -> None:
        self._recorded = recorded
        own = SweepFolder(folder, "audit")
        own.path.mkdir(parents=True)
        self._own = Ledger.writing(own, recorded.spec)
        self._is_first = True
        self.num_suggestions = self.num_given = self.num_decisions = self.num_unseen = 0
        self.differences: list[str] = []
        self._strayed = False

    def take_in(self, transaction: Transaction) -> None:
        """One transaction of the recorded ledger."""
        is_first, self._is_first = self._is_first, False
        created = [record for record in transaction if record["op_code"] == Operation.CREATE_TRIAL]
        states = [record.get("state", RUNNING) for record in created]
        if any(state in ENDED for state in states):
            raise UsageError(
                "the ledger was rebuilt from the records of its trials, and these do not tell in which order "
                "things were decided: it cannot be audited"
            )

        if is_first and RUNNING not in states:
            return  # the points to start from
        waiting = [record for record in created if record.get("state") == WAITING]
        if waiting:
            self._enqueue(waiting)

        if RUNNING in states or any(
            record["op_code"] == Operation.SET_STATE and record["state"] == RUNNING
            for record in transaction
        ):
            self._ask()

        for record in transaction:
            if record["op_code"] == Operation.SET_TRIAL_ATTR:
                self._attribute(record["trial_id"], record["user_attr"], _end_of(transaction))

    def _enqueue(self, waiting: Transaction) -> None:
        if any(schema.RETRY_OF.name in record["user_attrs"] for record in waiting):
            self._own.retry_failed()
        else:
            self._own.enqueue([record["system_attrs"]["fixed_params"] for record in waiting], {})

    def _ask(self) -> None:
        is_given = bool(self._own.standing.waiting)
        found = self._own.ask()
        recorded = self._recorded.trial(found.number).params

        if is_given:
            self.num_given += 1
        elif self._strayed:
            self.num_unseen += 1
            return
        else:
            self.num_suggestions += 1

        params = found.params
        wrong = [
            name
            for name in {**recorded, **params}
            if name not in recorded or name not in params or recorded[name] != params[name]
        ]
        if wrong:
            self._strayed = True
            listed = ", ".join(
                f"{name} {shown(recorded.get(name))}, computed {shown(params.get(name))}"
                for name in wrong
            )
            self.differences.append(f"trial {found.number}: recorded {listed}")

    def _attribute(self, number: int, attrs: Mapping[str, Any], end: int | None) -> None:
        for name, value in attrs.items():
            if schema.EPOCH.holds(name):
                self._epoch(number, int(name.removeprefix(schema.EPOCH.stem)), value, end)
            elif name == schema.FAILURE.name:
                self._own.fail(number, str(value))
            elif name == schema.ENDED_BY.name and not self._own.is_finished(number):
                self._own.end_early(number, str(value))

    def _epoch(self, number: int, epoch: int, found: Mapping[str, Any], end: int | None) -> None:
        if self._own.is_finished(number):
            return  # a difference that was reported

        self.num_decisions += 1
        ends = self._own.record_judged(number, epoch, found["metrics"], found["misses"])
        if ends == (end in (COMPLETE, PRUNED)):
            return

        did, does = ("stopped", "continues") if end is not None else ("continued", "is stopped")
        self.differences.append(f"trial {number} epoch {epoch}: it {did}, but recomputed it {does}")
        if end is not None:
            self._own.end_early(number, "audit")


def _end_of(transaction: Transaction) -> int | None:
    """The state in which a transaction ends its trial."""
    states = [record["state"] for record in transaction if record["op_code"] == Operation.SET_STATE]
    return next((state for state in states if state in ENDED), None)
