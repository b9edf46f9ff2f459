from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import PATIENCE_S, Command

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

SEARCH = (
    "search", "digits", "--trials", "5", "--set", "train.epochs=3", "--set", "model.baseline.epochs=2",
    "--set", "search.max_concurrent=1",
)  # fmt: skip
BOUND_S = 60.0  # on a busy machine; a few seconds on an idle one


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_signal_ends_it_cleanly_and_it_is_resumed(
    command: Any, reference: Any, tracked: Callable[..., Any], number: int
) -> None:
    driver = command.start(*SEARCH)
    driver.wait_until(lambda: any(trial.epochs for trial in command.trials()))
    assert driver.end(number, BOUND_S) == 130
    assert "lmoe-tune resume digits" in driver.output()
    assert "Traceback" not in driver.output()
    found = json.loads(command.look("status", "digits", "--format", "json").stdout)
    assert found["state"] == "interrupted"
    statuses = {run.info.status for run in tracked(command).runs}
    assert "RUNNING" not in statuses
    done = command.run("resume", "digits", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "complete"
    assert command.records() == reference.records()
    tracked(command).agrees_with(command.trials())


@pytest.mark.parametrize(
    ("number", "delay_s"),
    [
        pytest.param(signal.SIGINT, 0.0, marks=pytest.mark.long),
        (signal.SIGTERM, 0.5),
        pytest.param(signal.SIGINT, 1.5, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, 2.5, marks=pytest.mark.long),
    ],
)
def test_a_signal_while_ray_starts_ends_it_with_the_same_words(
    command: Any, number: int, delay_s: float
) -> None:
    driver = command.start(*SEARCH)
    driver.wait_until(lambda: "starting the sweep" in driver.output())
    time.sleep(delay_s)
    assert driver.end(number, BOUND_S) == 130
    assert "lmoe-tune resume digits" in driver.output()
    assert "Traceback" not in driver.output()
    assert "AssertionError" not in driver.output()


def test_a_second_signal_ends_it_at_once_and_loses_nothing(command: Any) -> None:
    driver = command.start(*SEARCH)
    driver.wait_until(lambda: any(trial.epochs for trial in command.trials()))
    before = command.trials()
    driver.process.send_signal(signal.SIGTERM)
    assert driver.end(signal.SIGTERM, BOUND_S) == 130
    assert driver.output().rstrip().splitlines()[-1].startswith("interrupted; to resume: ")
    after = command.trials()
    assert [trial.params for trial in after[: len(before)]] == [trial.params for trial in before]


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        pytest.param(signal.SIGTERM, "starting the sweep", marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, "at a time", marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, "at a time", marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, "trial 4 ", marks=pytest.mark.long),  # Ray shuts down then
    ],
)
def test_a_signal_to_the_whole_process_group_ends_it_with_how_to_resume(
    command: Any, number: int, moment: str
) -> None:
    """As timeout, scancel, systemd and a terminal that closes do: Ray's own processes get it, too."""
    driver = command.start(*SEARCH)
    driver.wait_until(lambda: moment in driver.output())
    os.killpg(driver.process.pid, number)
    code = driver.process.wait(BOUND_S)
    if command.look("status", "digits", "--format", "csv").stdout.count("complete,") == 0:
        assert code == 130, driver.output()
        assert "lmoe-tune resume digits" in driver.output()
    else:
        assert code in (0, 130), driver.output()
    assert "Traceback" not in driver.output()
    assert "has died" not in driver.output()


@pytest.mark.long
def test_a_sweep_whose_output_nobody_reads_goes_on_to_its_end(command: Any) -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "lmoe_tune.cli.main", *SEARCH],
        cwd=command.cwd,
        env=command.environment(),
        stdout=writer,
        stderr=writer,
    )
    os.close(writer)
    os.read(reader, 1)  # the first of it, as `head -1` does
    os.close(reader)
    assert process.wait(PATIENCE_S) == 0
    assert [trial.state for trial in command.trials()].count("running") == 0


@pytest.mark.parametrize("length", [42, 90])
@pytest.mark.long
def test_a_temporary_folder_with_a_long_path_is_good_enough(
    command: Any, tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    """Ray's sockets in it would have longer paths than the kernel takes."""
    base = tmp_path_factory.mktemp("t")
    long = base / ("x" * length)
    long.mkdir()
    before = set(Path("/tmp").glob("lt-*"))
    done = command.run("search", "digits", "--trials", "1", *SEARCH[4:], TMPDIR=str(long))
    assert done.returncode == 0, done.stderr
    assert set(Path("/tmp").glob("lt-*")) <= before


def test_a_bad_folder_for_ray_is_refused_by_name_before_anything_is_made(tmp_path: Path) -> None:
    command = Command(tmp_path)
    for folder in (tmp_path / "nosuch", tmp_path / ("x" * 90)):
        done = command.run(*SEARCH, RAY_TMPDIR=str(folder))
        assert done.returncode == 2
        assert "RAY_TMPDIR is" in done.stderr
        assert not command.home.exists()


SIGTERM_IN_A_FORK = """
import os, signal, sys

def once():
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.endswith("ray/_private/services.py"):
        frame = frame.f_back
    if frame is not None and not sent:
        sent.append(1)
        os.kill(os.getpid(), signal.SIGTERM)

sent = []
os.register_at_fork(after_in_parent=once)  # before logging does, whose lock is held meanwhile
from lmoe_tune.cli.main import main
main()
"""


def test_a_signal_in_a_fork_of_rays_is_not_lost(tmp_path: Path) -> None:
    """Python drops an exception that is raised there, and whatever lock is held stays taken."""
    command = Command(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", SIGTERM_IN_A_FORK, *SEARCH],
        cwd=tmp_path,
        env=command.environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "lmoe-tune resume digits" in done.stderr
    assert "Exception ignored" not in done.stderr
    assert not any(trial.epochs for trial in command.trials())


SIGTERM_ALL_THE_WHILE = """
import signal
from lmoe_tune.sweep import cluster
taken = []
signal.signal(signal.SIGTERM, lambda *_: taken.append(1))
print("go", flush=True)
with cluster.started(None):
    started = len(taken)
print("ended", 0 < started < len(taken), flush=True)
"""


def test_no_signal_gets_past_python_while_ray_starts_and_shuts_down(tmp_path: Path) -> None:
    """Ray's core would end the process for it, with a stack trace."""
    with subprocess.Popen(
        [sys.executable, "-c", SIGTERM_ALL_THE_WHILE],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        os.set_blocking(process.stdout.fileno(), False)
        said = ""
        while process.poll() is None and not said:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
            said = process.stdout.readline()
    assert said == "ended True\n"
