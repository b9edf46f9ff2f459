"""What we read of a ledger is what Optuna reads of it, after any history."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from optuna.distributions import distribution_to_json
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from lmoe_tune.spec import Spec
from lmoe_tune.sweep.contents import Contents, StoredTrial
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lines import LedgerFile
from tests.sweep.test_standing import ANY_HISTORY, STEPS, VARIANTS, apply

FOREIGN = b'{"op_code":2,"worker_id":"w","study_id":0,"user_attr":{"note":1}}\n'


def stock(path: Path) -> optuna.Study:
    """The study as Optuna's own backend reads it."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name="sweep", storage=storage)


def of_optuna(trial: FrozenTrial) -> dict[str, Any]:
    def ms(moment: Any) -> int | None:
        return None if moment is None else round(moment.timestamp() * 1000)

    return {
        "number": trial.number,
        "state": int(trial.state),
        "params": trial.params,
        "distributions": {n: distribution_to_json(d) for n, d in trial.distributions.items()},
        "values": trial.values,
        "reported": trial.intermediate_values,
        "user_attrs": trial.user_attrs,
        "system_attrs": trial.system_attrs,
        "started_ms": ms(trial.datetime_start),
        "ended_ms": ms(trial.datetime_complete),
    }


def of_ours(trial: StoredTrial) -> dict[str, Any]:
    plain = ("number", "state", "params", "distributions", "values", "reported", "ended_ms")
    found = {name: getattr(trial, name) for name in plain}
    found |= {"user_attrs": trial.user_attrs, "system_attrs": trial.system_attrs}
    found["started_ms"] = None if trial.started is None else trial.started_ms
    return found


def read(path: Path) -> Contents:
    contents = Contents()
    for record in LedgerFile(path).pull():
        contents.apply(record)
    return contents


def test_nothing_was_read_of_an_empty_file(tmp_path: Path) -> None:
    assert read(tmp_path / "none").attrs is None
    assert list(read(tmp_path / "none").records()) == []


@pytest.mark.slow
@pytest.mark.parametrize("overrides", VARIANTS)
@ANY_HISTORY
@given(steps=STEPS)
def test_after_any_history_both_read_the_same(
    spec: Callable[..., Spec], overrides: tuple[str, ...], steps: list[tuple[Any, ...]]
) -> None:
    chosen = spec(*overrides, "budget.trials=12")
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        folder = SweepFolder(Path(scratch), "small")
        folder.path.mkdir(parents=True)
        ledger = Ledger.writing(folder, chosen)
        for step in steps:
            if step != ("reopen",):
                apply(ledger, step)
        expected, found = stock(folder.ledger), read(folder.ledger)
        trials = expected.get_trials()
        assert found.attrs == expected.user_attrs
        assert [of_ours(one) for one in found.trials] == [of_optuna(one) for one in trials]
        assert ledger.study.get_trials() == trials, "as it was written"
        assert Ledger.writing(folder, chosen).study.get_trials() == trials, "one record a trial"
        assert Ledger.reading(folder, chosen).study.get_trials() == trials, "as Optuna reads it"

        whole = folder.ledger.read_bytes()
        with folder.ledger.open("ab") as file:
            file.write(FOREIGN + whole[: len(whole) // 2].splitlines(keepends=True)[-1][:-9])
        assert Ledger.reading(folder, chosen).trials() == ledger.trials(), "a foreign, a torn line"


def test_whoever_only_looks_needs_neither_optuna_nor_numpy() -> None:
    code = (
        "import sys, lmoe_tune.sweep.view\n"
        "heavy = {'optuna', 'numpy', 'torch', 'ray', 'mlflow'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
