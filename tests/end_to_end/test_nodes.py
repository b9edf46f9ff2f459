"""Ray itself dies, or a node of a cluster does, while trials run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import PATIENCE_S, Command, descendants_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SEARCH = (
    "search", "digits", "--trials", "5", "--set", "train.epochs=3", "--set", "model.baseline.epochs=2",
    "--set", "search.max_concurrent=1",
)  # fmt: skip


@pytest.mark.long
def test_when_rays_own_process_dies_the_sweep_ends_with_how_to_resume(
    command: Any, reference: Any
) -> None:
    driver = command.start(*SEARCH)
    driver.wait_until(lambda: any(trial.epochs for trial in command.trials()))
    raylets = [
        pid for pid, line in driver.descendants().items() if line.split(" ")[0].endswith("/raylet")
    ]
    for raylet in raylets:
        os.kill(raylet, signal.SIGKILL)
    code = driver.process.wait(PATIENCE_S)
    assert "Traceback" not in driver.output()
    if code != 0:  # else it was complete before it noticed
        assert code == 1, driver.output()
        assert "has died" in driver.output()
        assert "lmoe-tune resume digits" in driver.output()
    done = command.run("resume", "digits", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "complete"
    assert command.records() == reference.records()


class Cluster:
    """A head without CPUs and nodes of one CPU each, all on this machine and on loopback."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment | {
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(folder),
        }
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self._nodes: list[subprocess.Popen[bytes]] = []
        port = self.address.rpartition(":")[2]
        self._start(
            "--head",
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            "--include-dashboard=false",
            cpus=0,
        )
        for _ in range(2):
            self._start(f"--address={self.address}", "--node-ip-address=127.0.0.1", cpus=1)

    def _start(self, *arguments: str, cpus: int) -> None:
        said = self._folder / f"node{len(self._nodes)}.txt"
        with said.open("wb") as output:
            node = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("ray")), "start", "--block", f"--num-cpus={cpus}",
                    "--num-gpus=0", "--object-store-memory=80000000", *arguments,
                ],
                env=self._environment, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self._nodes.append(node)
        give_up = time.monotonic() + PATIENCE_S
        while "runtime started" not in said.read_text(encoding="utf-8"):
            assert node.poll() is None and time.monotonic() < give_up, said.read_text(
                encoding="utf-8"
            )
            time.sleep(0.1)

    def kill_node(self, number: int) -> None:
        raylets = [
            pid
            for pid, line in descendants_of(self._nodes[number].pid).items()
            if line.split(" ")[0].endswith("/raylet")
        ]
        for raylet in raylets:
            os.kill(raylet, signal.SIGKILL)

    def stop(self) -> None:
        for node in self._nodes:
            for pid in [*descendants_of(node.pid), node.pid]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            node.wait()


@pytest.fixture
def cluster(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("r")  # its sockets' paths must be short
    made = Cluster(folder, command.environment())
    yield made
    made.stop()


@pytest.mark.long
def test_the_trials_of_a_node_that_dies_go_on_elsewhere(
    command: Any, cluster: Cluster, tracked: Any
) -> None:
    arguments = ("--trials", "3", "--set", "train.epochs=12", "--set", "search.pruner=none")
    baseline = ("--set", "model.baseline.epochs=2", "--address", cluster.address)
    driver = command.start("search", "digits", *arguments, *baseline, RAY_AUTH_MODE="disabled")
    driver.wait_until(lambda: sum(len(trial.epochs) >= 2 for trial in command.trials()) == 2)
    before = command.trials()
    cluster.kill_node(1)
    assert driver.process.wait(200) == 0, driver.output()
    trials = command.trials()
    assert [(trial.number, trial.state, len(trial.epochs)) for trial in trials] == [
        (number, "complete", 12) for number in range(3)
    ]
    for old, new in zip(before, trials, strict=False):
        assert new.epochs[: len(old.epochs)] == old.epochs
    tracked(command).agrees_with(trials)
