from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

import lmoe_tune
from lmoe_tune.spec import load_spec
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import write_records
from lmoe_tune.sweep.rebuild import write_about
from lmoe_tune.sweep.trial_files import mend_records
from lmoe_tune.training.platform import resolve_platform
from tests.command_line import Done, environment
from trainables import declarations

CODE = Path(lmoe_tune.__file__).resolve().parents[1]  # also where it is not installed


@pytest.fixture
def cli_process(tmp_path: Path) -> Callable[..., Done]:
    """`lmoe-tune` in a process of its own, for what depends on that: locales, imports, how the process ends."""

    def run(*arguments: str, **more: str) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "lmoe_tune.cli.main", *arguments],
            cwd=tmp_path,
            env=environment(**more) | {"PYTHONPATH": str(CODE)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            encoding="utf-8",
        )

    return run


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Ledger]:
    """A sweep in the default home of `cli`: see `make_sweep`."""
    return partial(make_sweep, tmp_path)


def make_sweep(
    where: Path, name: str, *values: float | None, trials: int = 8, more: Sequence[str] = ()
) -> Ledger:
    """A sweep whose trials have these values; those with None still run."""
    folder = SweepFolder(where / "lmoe_runs", name)
    path = where / "unused.yaml"
    path.write_text(
        "name: digits\ntrainable: logit_mixoe\ndata: {id: {dataset: digits}}\n",
        encoding="utf-8",
    )
    overrides = [
        f"name={name}",
        f"budget.trials={trials}",
        "train.epochs=1",
        "search.pruner=none",
        *more,
    ]
    loaded = load_spec(path, overrides=overrides, declarations=declarations())
    path.unlink()
    spec = resolve_platform(loaded.spec)
    write_records(folder, spec)
    ledger = Ledger.writing(folder, spec)
    for value in values:
        number = ledger.ask().number
        if value is not None:
            metrics = {"val_auroc": value, "val_accuracy": 0.95}
            ledger.record_epoch(number, 1, metrics, {"val_accuracy": 0.95})
    write_about(ledger)
    mend_records(folder, ledger.trials())
    return ledger
