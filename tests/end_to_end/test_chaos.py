"""A short run of `benchmarks/chaos.py`, and whether its auditor notices what it is there to notice."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from benchmarks import chaos_faults as faults
from benchmarks.chaos_audit import Problem, audit
from benchmarks.chaos_faults import any_moment, while_training
from benchmarks.chaos_runs import (
    FLIPPED,
    KILL,
    PROJECTOR_KILLED,
    TRUNCATED,
    WORKER_KILLED,
    Plan,
    Tally,
    Victim,
    run_once,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

TRIALS = 5
SEARCH = (
    *("digits", "--trials", str(TRIALS), "--set", "search.max_concurrent=1"),
    *("--set", "train.epochs=3", "--set", "model.baseline.epochs=2"),
)


@pytest.mark.long
def test_a_sweep_under_random_faults_ends_as_the_undisturbed_one(
    command: Any, reference: Any
) -> None:
    """Moments differ from machine to machine, and a fault may miss; what must hold at the end does not."""
    victim, tally, rng = Victim(command.cwd, "digits", SEARCH), Tally(), random.Random(3)
    plans = [
        Plan(
            during=((WORKER_KILLED, while_training(rng)),),
            end=(KILL, any_moment(rng, fresh=False)),
            damage=rng.choice([TRUNCATED, FLIPPED]),
        ),
        Plan(
            during=((PROJECTOR_KILLED, any_moment(rng, fresh=False)),),
            end=(KILL, any_moment(rng, fresh=False)),
        ),
    ]
    for plan in [*plans, Plan(), Plan()]:
        if not victim.is_done():
            run_once(victim, plan, tally, rng)
    assert tally.failures == []
    assert victim.is_done()
    assert (
        audit(
            victim.folder,
            victim.database,
            planned=TRIALS,
            reference=reference.folder,
            seen=victim.seen,
        )
        == []
    ), dict(tally.faults)


def cut_the_ledger(victim: Victim) -> None:
    lines = victim.folder.ledger.read_bytes().splitlines(keepends=True)
    told = next(place for place in reversed(range(len(lines))) if b'"op_code":6' in lines[place])
    first = next(place for place in reversed(range(told)) if b'"left":0,' in lines[place])
    victim.folder.ledger.write_bytes(b"".join(lines[: first + 1]))


def change_a_metric(victim: Victim) -> None:
    path = victim.folder.trial(1) / "metrics.jsonl"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"val_auroc": 0.', '"val_auroc": 7.', 1),
        encoding="utf-8",
    )


def flip_a_checkpoint(victim: Victim) -> None:
    best = next(path for path in sorted(victim.folder.path.glob("trials/*/checkpoints")))
    faults.flip_bit(max(best.glob("epoch-*.pt")), random.Random(0))


def execute(statement: str) -> Callable[[Victim], None]:
    def run(victim: Victim) -> None:
        with closing(sqlite3.connect(victim.database)) as connection, connection:
            assert connection.execute(statement).rowcount > 0

    return run


@pytest.mark.parametrize(
    ("tamper", "column"),
    [
        (cut_the_ledger, "lost"),
        (change_a_metric, "on disk"),
        (flip_a_checkpoint, "on disk"),
        (execute("UPDATE runs SET status = 'RUNNING' WHERE name = 'trial 2'"), "in MLflow"),
        (
            execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'trial 2'"),
            "in MLflow",
        ),
        (execute("DELETE FROM metrics WHERE step = 2 AND key = 'val_auroc'"), "in MLflow"),
        (execute("UPDATE logged_models SET lifecycle_stage = 'deleted'"), "in MLflow"),
    ],
    ids=[
        "cut ledger",
        "metric",
        "checkpoint",
        "running",
        "deleted run",
        "epoch in MLflow",
        "deleted models",
    ],
)
def test_the_auditor_notices(
    copy_of_reference: Any, reference: Any, tamper: Callable[[Victim], None], column: str
) -> None:
    victim = Victim(copy_of_reference.cwd, "digits", SEARCH)
    tamper(victim)
    problems = audited(victim, reference.folder)
    assert column in {problem.column for problem in problems}, problems


def test_the_auditor_finds_nothing_in_an_undisturbed_sweep(
    copy_of_reference: Any, reference: Any
) -> None:
    assert audited(Victim(copy_of_reference.cwd, "digits", SEARCH), reference.folder) == []


def test_the_auditor_notices_what_differs_from_the_undisturbed_sweep_and_from_before(
    copy_of_reference: Any, reference: Any
) -> None:
    from dataclasses import replace

    victim = Victim(copy_of_reference.cwd, "digits", SEARCH)
    first, *others = victim.trials()
    victim.seen.append([replace(first, params={**first.params, "mixing_alpha": 2.0}), *others])
    assert {problem.column for problem in audited(victim, reference.folder)} == {"differing"}


def audited(victim: Victim, reference: Any) -> list[Problem]:
    return audit(
        victim.folder, victim.database, planned=TRIALS, reference=reference, seen=victim.seen
    )
