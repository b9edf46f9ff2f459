"""Clusters of several machines, each a set of namespaces: what joins, leaves, or is not as it must be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import CODE, Command
from tests.end_to_end.nodes import Nodes, first_child, network, why_not

pytestmark = [
    pytest.mark.nodes,
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]
QUICK = ("--set", "model.baseline.epochs=2", "--set", "search.pruner=none")
PATIENCE_S = 240.0
MORE_THAN_CAN_END = 1000
"""Trials of a sweep that the test itself stops, however fast the machine is."""


class Lab:
    """A home, nodes that share it, and `lmoe-tune` on any of them."""

    def __init__(self, nodes: Nodes, command: Command) -> None:
        self.nodes = nodes
        self.command = command

    @property
    def home(self) -> Path:
        return self.command.home

    def start(self, *arguments: str, on: str = "head", **more: str) -> subprocess.Popen[str]:
        """Start the command on a node, with the cluster's address."""
        command = [sys.executable, "-m", "lmoe_tune.cli.main", *arguments, "--address", "auto"]
        return subprocess.Popen(
            self.nodes.command(on, command),
            cwd=self.command.cwd,
            env=self.nodes.environment(on, PYTHONPATH=str(CODE), **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def run(self, *arguments: str, on: str = "head") -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, on=on)
        output, errors = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def trials(self, name: str = "digits") -> list[dict[str, Any]]:
        """The records of the trials that have any, by number."""
        found = []
        for path in sorted((self.home / "sweeps" / name / "trials").glob("*/trial.json")):
            found.append(json.loads(path.read_text(encoding="utf-8")))
        return sorted(found, key=lambda trial: int(trial["trial"]))

    def epochs(self, name: str = "digits") -> int:
        """Epochs recorded so far."""
        paths = (self.home / "sweeps" / name / "trials").glob("*/metrics.jsonl")
        return sum(path.read_text(encoding="utf-8").count("\n") for path in paths)

    def complete(self) -> set[int]:
        """The numbers of the complete trials."""
        return {trial["trial"] for trial in self.trials() if trial["state"] == "complete"}

    def hosts(self, name: str = "digits") -> set[str]:
        """Where trials ran, by their records."""
        return {str(trial["host"]) for trial in self.trials(name)}


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        if process.poll() is not None:
            raise AssertionError(f"it ended before that: {process.communicate()}")
        assert time.monotonic() < give_up, "it never came to that"
        time.sleep(0.2)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors


def stop_and_end(lab: Lab, process: subprocess.Popen[str], name: str = "digits") -> None:
    """Stop the command as Ctrl-C does; a resume completes what it has begun, and one trial more."""
    os.kill(first_child(process.pid), signal.SIGINT)
    code, _, errors = ended(process)
    assert code == 130, errors

    num_trials = len(lab.trials(name)) + 1
    done = lab.run("resume", name, "--trials", str(num_trials))
    assert done.returncode == 0, done.stderr
    assert [trial["state"] for trial in lab.trials(name)] == ["complete"] * num_trials


@pytest.fixture
def lab(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A head without a core for trials; each test adds the nodes that it wants."""
    with network(tmp_path_factory.mktemp("n"), command.home, command.environment()) as nodes:
        nodes.start("head", cpus=0)
        yield Lab(nodes, command)


def search(trials: int, epochs: int, *more: str) -> tuple[str, ...]:
    counts = ("--trials", str(trials), "--set", f"train.epochs={epochs}")
    return ("search", "digits", *counts, *QUICK, *more)


def test_trials_run_on_every_node_once_the_baseline_is_there_and_the_records_say_where(
    lab: Lab,
) -> None:
    lab.nodes.start("one", cpus=1)
    lab.nodes.start("two", cpus=1)
    own_baseline = ("--set", "model.baseline.epochs=3")  # the home has none of so many epochs
    code, output, errors = ended(lab.start(*search(6, 25, *own_baseline), "--json"))
    assert code == 0, errors
    assert json.loads(output)["trials"]["complete"] == 6
    assert lab.hosts() == {"one", "two"}
    alone, both = errors.find("1 trial until the baseline"), errors.find("2 trials at a time")
    assert 0 < alone < both, errors


def test_half_a_core_for_a_trial_puts_two_on_a_node(lab: Lab) -> None:
    lab.nodes.start("one", cpus=1)
    code, _, errors = ended(lab.start(*search(2, 2, "--set", "resources.cpu=0.5")))
    assert code == 0, errors
    assert "2 trials at a time" in errors


def test_a_node_that_is_switched_off_and_a_cable_that_is_pulled_lose_nothing(lab: Lab) -> None:
    for name in ("one", "two", "three"):
        lab.nodes.start(name, cpus=1)
    driver = lab.start(*search(3, 25))
    wait_until(lambda: lab.epochs() >= 6, driver)
    lab.nodes.kill("one")
    lab.nodes.pull_cable("two")
    code, _, errors = ended(driver)
    assert code == 0, errors
    trials = lab.trials()
    assert [trial["state"] for trial in trials] == ["complete"] * 3
    assert lab.epochs() == 3 * 25


def test_a_node_that_joins_is_used_and_one_that_is_drained_is_missed(lab: Lab) -> None:
    lab.nodes.start("one", cpus=1)
    driver = lab.start(*search(MORE_THAN_CAN_END, 12))
    wait_until(lambda: lab.epochs() >= 1, driver)
    lab.nodes.start("late", cpus=1)
    wait_until(lambda: "late" in lab.hosts(), driver)
    lab.nodes.drain("one", deadline_s=5)
    time.sleep(5)
    lab.nodes.kill("one")
    begun = {trial["trial"] for trial in lab.trials()}
    wait_until(lambda: begun <= lab.complete(), driver)  # what ran on the drained node as well
    stop_and_end(lab, driver)


def test_a_cluster_without_any_node_is_waited_for(lab: Lab) -> None:
    driver = lab.start(*search(2, 2))
    time.sleep(15)
    assert driver.poll() is None, driver.communicate()
    lab.nodes.start("late", cpus=1)
    code, _, errors = ended(driver)
    assert code == 0, errors
    assert lab.hosts() == {"late"}
    assert errors.count("wait") <= 2, errors  # said once, not every second


def test_a_node_with_other_code_is_named_and_left_out(lab: Lab, tmp_path: Path) -> None:
    method = CODE / "lmoe_tune" / "methods" / "logit_mixoe.py"
    other = tmp_path / "other.py"
    other.write_text(method.read_text(encoding="utf-8") + "\nX = 1\n", encoding="utf-8")
    lab.nodes.start("wrong", cpus=1, before=f"mount --bind {other} {method}")
    lab.nodes.start("right", cpus=1)
    code, _, errors = ended(lab.start(*search(3, 2)))
    assert code == 0, errors
    said = [line for line in errors.splitlines() if "wrong" in line and "logit_mixoe.py" in line]
    assert len(said) == 1, errors
    assert lab.hosts() == {"right"}
    assert [trial["state"] for trial in lab.trials()] == ["complete"] * 3


def test_a_node_without_the_home_or_with_an_old_copy_of_it_is_left_out(
    lab: Lab, tmp_path: Path
) -> None:
    stale = tmp_path / "stale"
    shutil.copytree(lab.home, stale)
    lab.nodes.start("bare", cpus=1, before=f"mount -t tmpfs tmpfs {lab.home}")
    lab.nodes.start("stale", cpus=1, before=f"mount --bind {stale} {lab.home}")
    lab.nodes.start("right", cpus=1)
    code, _, errors = ended(lab.start(*search(3, 2)))
    assert code == 0, errors
    for name in ("bare", "stale"):
        assert sum(f"node {name} " in line for line in errors.splitlines()) == 1, errors
    assert lab.hosts() == {"right"}
    assert [trial["state"] for trial in lab.trials()] == ["complete"] * 3


def test_a_node_whose_clock_is_minutes_off_is_left_out(lab: Lab, tmp_path: Path) -> None:
    # Run by every Python that starts on the node.
    ahead = "import time\nreal = time.time_ns\ntime.time_ns = lambda: real() + 600 * 10**9\n"
    (tmp_path / "sitecustomize.py").write_text(ahead, encoding="utf-8")
    lab.nodes.start("ahead", cpus=1, PYTHONPATH=str(tmp_path))
    lab.nodes.start("right", cpus=1)
    code, _, errors = ended(lab.start(*search(3, 2)))
    assert code == 0, errors
    said = [line for line in errors.splitlines() if "node ahead is left out" in line]
    assert len(said) == 1 and "its clock is" in said[0], errors
    assert lab.hosts() == {"right"}
    assert [trial["state"] for trial in lab.trials()] == ["complete"] * 3


OWN_METHOD = """
from pathlib import Path

import lmoe_tune
from shared_part import WEIGHT
from trainables.outlier_exposure import OutlierExposure


class Mine(OutlierExposure):
    def objective(self, params):
        where = Path({home!r}) / "code.txt"
        with where.open("a", encoding="utf-8") as file:
            file.write(f"{{lmoe_tune.__file__}} {{__file__}} {{WEIGHT}}\\n")
        return super().objective(params)
"""


def test_code_travels_to_a_node_that_has_neither_the_package_nor_the_method(
    lab: Lab, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    method = OWN_METHOD.format(home=str(lab.home))
    (folder / "my_methods.py").write_text(method, encoding="utf-8")
    (folder / "shared_part.py").write_text("WEIGHT = 0.5\n", encoding="utf-8")
    (folder / "mine.yaml").write_text(
        "name: mine\ntrainable: my_methods:Mine\ndata: {id: {dataset: digits}}\n"
        "space: {outlier_ratio: {low: 0.5, high: 1}}\n",
        encoding="utf-8",
    )
    hidden = [folder, CODE / "lmoe_tune", CODE / "trainables"]
    before = "".join(f"mount -t tmpfs tmpfs {path}; " for path in hidden)
    lab.nodes.start("bare", cpus=1, before=before)

    counts = ("--trials", "2", "--set", "train.epochs=2", *QUICK)
    code, _, errors = ended(lab.start("search", str(folder / "mine.yaml"), *counts))
    assert code == 0, errors
    assert [trial["state"] for trial in lab.trials("mine")] == ["complete"] * 2
    used = set((lab.home / "code.txt").read_text(encoding="utf-8").split())
    assert "0.5" in used
    assert not any(name.startswith((str(CODE), str(folder))) for name in used), used


def test_doctor_names_what_each_node_lacks(lab: Lab) -> None:
    lab.nodes.start("bare", cpus=1, before=f"mount -t tmpfs tmpfs {lab.home}")
    lab.nodes.start("right", cpus=1)
    done = lab.run("doctor", "digits", "--format", "json")
    assert done.returncode == 1, done.stderr
    rows = {row["what"]: row for row in json.loads(done.stdout)}
    assert rows["node bare"]["state"] == "fail"
    assert "does not see the home" in rows["node bare"]["found"]
    assert rows["node right"]["state"] == "ok" and "1 CPUs" in rows["node right"]["found"]
    assert "too small for a trial" in rows["node head"]["found"]


def test_when_no_node_is_fit_the_search_ends_with_all_reasons(lab: Lab) -> None:
    lab.nodes.start("bare", cpus=1, before=f"mount -t tmpfs tmpfs {lab.home}")
    code, _, errors = ended(lab.start(*search(3, 2)))
    assert code == 1, errors
    assert "bare" in errors
    assert [trial for trial in lab.trials() if trial["state"] == "failed"] == []


def test_a_lost_head_ends_the_driver_and_a_new_one_resumes(lab: Lab) -> None:
    lab.nodes.start("one", cpus=1)
    driver = lab.start(*search(2, 20), on="one")
    wait_until(lambda: lab.epochs() >= 2, driver)
    lab.nodes.kill("head")
    code, _, errors = ended(driver)
    assert code == 1, errors
    assert "lmoe-tune resume digits" in errors
    lab.nodes.kill("one")

    lab.nodes.head = ""
    lab.nodes.start("second", cpus=1)
    done = lab.run("resume", "digits", on="second")
    assert done.returncode == 0, done.stderr
    assert [trial["state"] for trial in lab.trials()] == ["complete"] * 2
    assert lab.epochs() == 2 * 20


def test_a_second_driver_of_the_same_sweep_is_refused_or_waits(lab: Lab) -> None:
    lab.nodes.start("one", cpus=1)
    driver = lab.start(*search(2, 12))
    wait_until(lambda: lab.epochs() >= 1, driver)
    inner = first_child(driver.pid)
    os.kill(inner, signal.SIGSTOP)  # it holds the sweep, and does not end meanwhile
    refused = lab.run("resume", "digits")
    assert refused.returncode == 1, refused.stderr
    assert "is being worked on by" in refused.stderr
    waiting = lab.start("resume", "digits", "--wait-for-lock", "5m")
    time.sleep(3)
    os.kill(inner, signal.SIGINT)
    os.kill(inner, signal.SIGCONT)
    driver.send_signal(signal.SIGCONT)  # nsenter stops with what it waits for
    assert ended(driver)[0] == 130
    code, _, errors = ended(waiting)
    assert code == 0, errors
    assert [trial["state"] for trial in lab.trials()] == ["complete"] * 2


def test_two_sweeps_share_a_cluster(lab: Lab) -> None:
    lab.nodes.start("one", cpus=1)
    lab.nodes.start("two", cpus=1)
    first = lab.start(*search(MORE_THAN_CAN_END, 12), "--name", "first")
    wait_until(lambda: lab.epochs("first") >= 2, first)
    second = lab.start(*search(2, 4), "--name", "second")
    wait_until(lambda: lab.epochs("second") >= 1, second)
    assert first.poll() is None  # it got its share while the other one still had work
    assert ended(second)[0] == 0
    assert [trial["state"] for trial in lab.trials("second")] == ["complete"] * 2

    before = lab.epochs("first")
    wait_until(lambda: lab.epochs("first") > before, first)
    stop_and_end(lab, first, "first")
