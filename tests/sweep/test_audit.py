from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.sweep import pruning
from lmoe_tune.sweep.audit import audit, digest
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger

PRUNERS = ["asha", "hyperband", "median", "none"]
SAMPLERS = ["tpe", "random", "qmc", "nsga2"]


@pytest.fixture
def sweep(
    ledger: Callable[..., Ledger], metrics: Callable[..., dict[str, float]], baseline: Any
) -> Callable[..., Ledger]:
    """A sweep of trials that run three at a time, with a failure that is retried."""

    def make(*overrides: str, trials: int = 12) -> Ledger:
        own = ledger("train.epochs=9", f"budget.trials={trials}", *overrides)
        running: dict[int, int] = {}
        while len(own.trials()) < trials or running:
            while len(running) < 3 and len(own.trials()) < trials:
                running[own.ask().number] = 0
            for number in list(running):
                running[number] += 1
                if number == 4 and running[number] == 2:
                    own.fail(number, "diverged")
                    own.retry_failed()
                    del running[number]
                    continue
                found = metrics(own.trial(number).params, running[number])
                if own.record_epoch(number, running[number], found, baseline):
                    del running[number]
        return own

    return make


@pytest.mark.parametrize("pruner", PRUNERS)
def test_what_a_sweep_decided_is_computed_again(sweep: Callable[..., Ledger], pruner: str) -> None:
    own = sweep(f"search.pruner={pruner}")
    found = audit(Ledger.reading(own.folder, own.spec))

    assert found.differences == ()
    assert found.cautions == ()
    assert (found.suggestions, found.given) == (10, 2), "the defaults and a retry were given"
    assert found.decisions == sum(len(trial.epochs) for trial in own.trials())
    pruned = sum(trial.state == "pruned" for trial in own.trials())
    assert (pruned > 0) == (pruner != "none")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_samplers_suggestions_are_computed_again(
    sweep: Callable[..., Ledger], sampler: str
) -> None:
    assert audit(sweep(f"search.sampler={sampler}")).differences == ()


def test_points_that_are_asked_for_later_and_ends_of_budgets_are_taken_as_recorded(
    sweep: Callable[..., Ledger],
) -> None:
    own = sweep("search.pruner=none")
    own.enqueue([{"mixing_alpha": 3.0, "consistency_weight": 2.0, "outlier_ratio": 0.5}], {})
    own.ask()
    own.end_early(own.ask().number, "time used up")

    found = audit(own)

    assert found.differences == ()
    assert found.given == 3


def test_a_value_that_was_changed_in_the_ledger_is_found(sweep: Callable[..., Ledger]) -> None:
    own = sweep("search.pruner=none", "search.sampler=random")
    trial = own.trials()[2]
    lines = own.folder.ledger.read_bytes().splitlines(keepends=True)
    place = next(
        i for i, line in enumerate(lines) if b'"op_code":5' in line and b'"trial_id":2' in line
    )
    changed = json.loads(lines[place])
    changed["param_value_internal"] *= 0.5
    lines[place] = json.dumps(changed).encode() + b"\n"
    untouched = audit(own).digest
    from lmoe_tune.sweep.lines import as_text, encode_text

    left, number = changed.pop("left"), changed.pop("n")
    changed.pop("crc")
    lines[place] = encode_text(as_text(changed), number=number, left=left)
    own.folder.ledger.write_bytes(b"".join(lines))

    found = audit(Ledger.reading(own.folder, own.spec))

    assert len(found.differences) == 1
    assert found.differences[0].startswith("trial 2: recorded ")
    assert str(trial.number) in found.differences[0]
    assert "were not compared" in found.cautions[0]
    assert found.digest != untouched


def test_another_rule_for_pruning_is_found(
    sweep: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = sweep("search.pruner=asha")
    pruned = [trial for trial in own.trials() if trial.state == "pruned"]
    monkeypatch.setattr(pruning.Pruning, "decides_against", lambda self, number: False)

    found = audit(own)

    stopped = [
        line for line in found.differences if "it stopped, but recomputed it continues" in line
    ]
    assert len(stopped) == len(pruned) > 0
    assert f"trial {pruned[0].number} epoch {len(pruned[0].epochs)}" in found.differences[0]


def test_the_hash_is_of_what_was_found_and_not_of_when_or_under_what_name(
    sweep: Callable[..., Ledger], folder: SweepFolder
) -> None:
    own = sweep("search.pruner=none")
    renamed = folder.path.with_name("other")
    folder.path.rename(renamed)
    other = SweepFolder(folder.home, "other")
    spec = own.spec.model_copy(update={"name": "other"})

    assert digest(Ledger.reading(other, spec)) == digest(own)
    assert len(digest(own)) == 64


def test_a_ledger_that_was_rebuilt_cannot_be_audited(sweep: Callable[..., Ledger]) -> None:
    from lmoe_tune.sweep.rebuild import rebuild, write_about
    from lmoe_tune.sweep.trial_files import mend_records

    own = sweep("search.pruner=none")
    write_about(own)
    mend_records(own.folder, own.trials())
    rebuild(own.folder, own.spec)

    with pytest.raises(UsageError, match="rebuilt"):
        audit(Ledger.reading(own.folder, own.spec))
