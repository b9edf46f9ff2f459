from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import PATIENCE_S

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
    found = json.loads(command.run("status", "digits", "--format", "json").stdout)
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
        (signal.SIGINT, 0.0),
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
    after = command.trials()
    assert [trial.params for trial in after[: len(before)]] == [trial.params for trial in before]


SIGTERM_AFTER_RAY = """
import os, signal, sys
from lmoe_tune.sweep import cluster
with cluster.started(None):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(77))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_when_ray_has_shut_down_a_signal_is_still_handled(tmp_path: Path) -> None:
    """Ray leaves SIGTERM to end the process at once, and what delivers the rest comes after it."""
    done = subprocess.run(
        [sys.executable, "-c", SIGTERM_AFTER_RAY], cwd=tmp_path, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 77
