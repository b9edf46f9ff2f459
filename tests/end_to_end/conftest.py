"""Whole sweeps through the command line, in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lmoe_tune
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.view import read_sweep
from tests.command_line import run_in

TRIALS, EPOCHS = 5, 3
SMALL = (
    "--trials",
    str(TRIALS),
    "--set",
    f"train.epochs={EPOCHS}",
    "--set",
    "model.baseline.epochs=2",
)
ONE_SLOT = ("--set", "search.max_concurrent=1")
TIMING = ("epoch_s", "images_per_s", "reserved_s")
WORKERS = (
    "ray::ResourceTrainable",
    "ray::TrialWorker",
    "ray::JobWorker",
)  # what Ray calls the process of a Trainable
PATIENCE_S = 300.0  # on a busy machine; far less on an idle one
CODE = Path(lmoe_tune.__file__).resolve().parents[1]  # also where it is not installed


@dataclass(frozen=True)
class Command:
    """`lmoe-tune` in a folder of its own, with a home in it."""

    cwd: Path

    @property
    def home(self) -> Path:
        return self.cwd / "lmoe_runs"

    @property
    def folder(self) -> SweepFolder:
        return SweepFolder(self.home, "digits")

    def environment(self, **more: str) -> dict[str, str]:
        drop = ("MLFLOW_", "LMOE_TUNE_", "RAY_", "TUNE_", "COLUMNS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
        return (
            kept
            | {"PYTHONPATH": os.pathsep.join([str(CODE), *filter(None, [kept.get("PYTHONPATH")])])}
            | more
        )

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [sys.executable, "-m", "lmoe_tune.cli.main", *arguments],
            cwd=self.cwd,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            encoding="utf-8",
        )

    def look(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same for a command that does not start Ray: in this process, which takes seconds less."""
        return run_in(self.cwd, *arguments)

    def start(self, *arguments: str, **more: str) -> Driver:
        """Start it, and return while it works."""
        output = (self.cwd / "output.txt").open("ab")
        with output:
            process = subprocess.Popen(
                [sys.executable, "-m", "lmoe_tune.cli.main", *arguments],
                cwd=self.cwd,
                env=self.environment(**more),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return Driver(self, process)

    def trials(self) -> list[TrialRecord]:
        """What the ledger says now; nothing before there is one."""
        try:
            return read_sweep(self.folder).trials()
        except (LmoeTuneError, FileNotFoundError):
            return []

    def records(self) -> list[Any]:
        """All that a sweep determines: parameters, states and every epoch's metrics but the timing."""
        return [
            (
                trial.number,
                trial.state,
                trial.params,
                trial.value,
                trial.violation,
                [
                    {name: value for name, value in epoch.metrics.items() if name not in TIMING}
                    for epoch in trial.epochs
                ],
            )
            for trial in self.trials()
        ]


@dataclass
class Driver:
    """A running `lmoe-tune`."""

    command: Command
    process: subprocess.Popen[bytes]

    def wait_until(self, what: Callable[[], bool]) -> None:
        """Wait for a moment to come; fails when the process ends before."""
        give_up = time.monotonic() + PATIENCE_S
        while not what():
            assert self.process.poll() is None, f"it ended before that:\n{self.output()}"
            assert time.monotonic() < give_up, f"it never came to that:\n{self.output()}"
            time.sleep(0.02)

    def output(self) -> str:
        return (self.command.cwd / "output.txt").read_text(encoding="utf-8")

    def descendants(self) -> dict[int, str]:
        """Pid and command line of all that it and its children started."""
        return descendants_of(self.process.pid)

    def workers(self) -> list[int]:
        """Pids of the processes that train."""
        return [pid for pid, name in self.descendants().items() if name.startswith(WORKERS)]

    def kill(self) -> None:
        """`kill -9`; no process of its own trains on."""
        workers = self.workers()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        give_up = time.monotonic() + 5
        while alive := still_working(workers):
            assert time.monotonic() < give_up, f"workers {alive} outlive their driver"
            time.sleep(0.05)

    def end(self, number: int, within_s: float) -> int:
        """Send a signal, and return the exit code that it ends with in time; no process trains on."""
        workers = self.workers()
        self.process.send_signal(number)
        code = self.process.wait(within_s)
        assert not still_working(workers)
        return code


def still_working(workers: list[int]) -> list[int]:
    return [pid for pid in workers if command_line(pid).startswith(WORKERS)]


def command_line(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


def descendants_of(pid: int) -> dict[int, str]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, queue = {}, [pid]
    while queue:
        for child in children.get(queue.pop(), []):
            found[child] = command_line(child)
            queue.append(child)
    return found


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A sweep that nobody interrupted, one trial at a time; tests look at it or copy it."""
    command = Command(tmp_path_factory.mktemp("reference"))
    done = command.run("search", "digits", *SMALL, *ONE_SLOT, "--json")
    assert done.returncode == 0, done.stderr
    (command.cwd / "stdout.json").write_text(done.stdout, encoding="utf-8")
    return command


@pytest.fixture
def command(reference: Command, tmp_path: Path) -> Iterator[Command]:
    """An empty folder whose home has the baseline already; what was started in it is ended."""
    made = Command(tmp_path)
    shutil.copytree(reference.home / "baselines", made.home / "baselines")
    yield made
    if made.folder.is_running():
        holder = json.loads((made.folder.path / "lock").read_text(encoding="utf-8"))["pid"]
        if str(holder) in {path.name for path in Path("/proc").glob("[0-9]*")}:
            os.kill(holder, signal.SIGKILL)


@pytest.fixture
def copy_of_reference(reference: Command, tmp_path: Path) -> Command:
    """The finished sweep, to be extended or looked at."""
    made = Command(tmp_path)
    shutil.copytree(reference.home, made.home)
    return made


class Tracked:
    """What an MLflow store holds of the one sweep in it."""

    def __init__(self, home: Path) -> None:
        from mlflow import MlflowClient

        self.uri = f"sqlite:///{home / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=self.uri)
        experiment = self.client.get_experiment_by_name("digits")
        assert experiment is not None
        self.experiment_id = experiment.experiment_id
        self.runs = list(self.client.search_runs([self.experiment_id], max_results=1000))
        self.trials = {
            int(run.data.tags["lmoe_tune.trial"]): run
            for run in self.runs
            if "lmoe_tune.trial" in run.data.tags
        }
        self.parents = [run for run in self.runs if run.data.tags.get("lmoe_tune.kind") == "sweep"]

    def agrees_with(self, trials: list[TrialRecord]) -> None:
        """One run for a trial, with its state, parameters and every epoch once; none left RUNNING."""
        numbered = [run for run in self.runs if "lmoe_tune.trial" in run.data.tags]
        assert sorted(int(run.data.tags["lmoe_tune.trial"]) for run in numbered) == [
            trial.number for trial in trials
        ]
        assert len(self.parents) == 1
        status = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
        for trial in trials:
            run = self.trials[trial.number]
            assert run.data.tags["mlflow.parentRunId"] == self.parents[0].info.run_id
            assert run.data.tags["lmoe_tune.state"] == trial.state
            assert run.info.status == status[trial.state]
            assert run.data.params == {name: str(value) for name, value in trial.params.items()}
            for name in trial.metrics:
                history = self.client.get_metric_history(run.info.run_id, name)
                recorded = [(epoch.epoch, epoch.metrics[name]) for epoch in trial.epochs]
                assert [(metric.step, metric.value) for metric in history] == recorded, name
        assert "RUNNING" not in {run.info.status for run in self.runs}


@pytest.fixture
def tracked() -> Callable[[Command], Tracked]:
    return lambda command: Tracked(command.home)
