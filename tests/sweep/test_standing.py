"""What is kept while a sweep runs is what the slow way finds, after any history."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmoe_tune.records import TrialRecord
from lmoe_tune.spec import Spec
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.ranking import Place, Ranking, costs_of
from lmoe_tune.sweep.standing import Standing

BASELINE = {"val_accuracy": 0.95}
GRID = (
    "space={mixing_alpha: {choices: [1, 2, 3]}, outlier_ratio: {choices: [0.5, 1]}}",
    "search.start_from=[{mixing_alpha: 2, outlier_ratio: 0.5}]",
)
ANY_HISTORY = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VARIANTS = [
    ("search.pruner=asha", "search.min_epochs=1"),
    ("search.pruner=hyperband", "search.min_epochs=1"),
    ("search.pruner=median", "search.min_epochs=1"),
    ("objective=[{metric: val_auroc}, {metric: val_accuracy}]", "search.pruner=none"),
    ("search.pruner=asha", "search.sampler=random", *GRID),
]
SOME = st.sampled_from([0.3, 0.5, 0.7, 0.9])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask")),
        st.tuples(st.just("epoch"), st.integers(0, 3), SOME, SOME),
        st.tuples(st.just("fail"), st.integers(0, 3)),
        st.tuples(st.just("end"), st.integers(0, 3)),
        st.tuples(st.just("retry")),
        st.tuples(st.just("died"), st.integers(0, 3)),
        st.tuples(st.just("reopen")),
    ),
    max_size=40,
)


def apply(ledger: Ledger, step: tuple[Any, ...]) -> None:
    what, *rest = step
    running = [suggestion.number for suggestion in ledger.unfinished()]
    if what == "ask":
        if ledger.exhausted() is None:
            ledger.ask()
    elif what == "retry":
        ledger.retry_failed()
    elif running:
        number = running[rest[0] % len(running)]
        if what == "epoch":
            epoch = len(ledger.trial(number).epochs) + 1
            metrics = {"val_auroc": rest[1], "val_accuracy": rest[2], "reserved_s": 0.1}
            ledger.record_epoch(number, epoch, metrics, BASELINE)
        elif what == "fail":
            ledger.fail(number, "no")
        elif what == "end":
            ledger.end_early(number, "the time is used up")
        else:
            ledger.count_retry(number)


def slow(ledger: Ledger, trials: list[TrialRecord]) -> dict[str, Any]:
    """The same from all records, one after the other."""
    directions = ledger.spec.objective.directions
    retried = {trial.retry_of for trial in trials}
    waiting = [trial for trial in ledger.study.get_trials() if trial.state.name == "WAITING"]
    retried |= {trial.user_attrs.get("retry_of") for trial in waiting}
    failed = {trial.number for trial in trials if trial.state == "failed"} - retried
    ranked = Ranking()
    for trial in trials:
        if trial.state == "complete":
            costs = costs_of(trial.values, directions)
            ranked.add(Place(trial.violation, costs, trial.number))
    points = {tuple(sorted(trial.params.items())) for trial in trials}
    epochs = [epoch for trial in trials for epoch in trial.epochs]
    return {
        "counts": {state: sum(trial.state == state for trial in trials) for state in STATES},
        "started": sum(trial.retry_of is None for trial in trials),
        "failed": failed,
        "waiting": [trial.number for trial in waiting],
        "reserved_s": round(sum(epoch.metrics["reserved_s"] for epoch in epochs), 6),
        "last_ms": max((epoch.time_ms for epoch in epochs), default=0),
        "ranked": list(ranked),
        "front": sorted(ranked.front()),
        "points": len(points) if ledger.num_points is not None else 0,
    }


STATES = ("running", "complete", "pruned", "failed")


def kept(ledger: Ledger) -> dict[str, Any]:
    standing = ledger.standing
    return {
        "counts": {state: standing.counts[state] for state in STATES},
        "started": standing.num_started,
        "failed": standing.failed,
        "waiting": sorted(standing.waiting),
        "reserved_s": standing.reserved_s,
        "last_ms": standing.last_ms,
        "ranked": list(standing.ranking),
        "front": sorted(standing.ranking.front()),
        "points": len(standing.tried),
    }


def decisions(standing: Standing) -> Any:
    """What the pruner goes by."""
    pruning = standing.pruning
    return {
        "tables": {
            key: sorted(zip(table._costs, *table._missed, strict=True))
            for key, table in pruning._tables.items()
        },
        "gains": {
            epoch: [gains.expected.tolist() for gains in found]
            for epoch, found in pruning._gains.items()
            if any(gains._near for gains in found)
        },
        "running": {number: epochs for number, epochs in pruning._running.items() if epochs},
    }


@pytest.mark.slow
@pytest.mark.parametrize("overrides", VARIANTS)
@ANY_HISTORY
@given(steps=STEPS)
def test_after_any_history_what_is_kept_is_what_all_records_say(
    spec: Callable[..., Spec], overrides: tuple[str, ...], steps: list[tuple[Any, ...]]
) -> None:
    chosen = spec(*overrides, "budget.trials=12")
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        folder = SweepFolder(Path(scratch), "small")
        folder.path.mkdir(parents=True)
        ledger = Ledger.writing(folder, chosen)
        reader = Ledger.reading(folder, chosen)
        for step in steps:
            if step == ("reopen",):
                ledger = Ledger.writing(folder, chosen)
            else:
                apply(ledger, step)
            found = kept(ledger)
            expected = slow(ledger, ledger.trials())
            assert found == expected
            assert {key: kept(reader)[key] for key in found} == found
        opened = Ledger.writing(folder, chosen)
        assert decisions(opened.standing) == decisions(ledger.standing)
        assert opened.usage() == ledger.usage()
