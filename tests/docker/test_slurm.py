"""The logic of the Slurm script, with stand-ins for Slurm's and Ray's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "slurm" / "sweep.sh"
STAND_INS = {
    # Tells what it was asked for; knows two nodes, the first of them this machine.
    "scontrol": 'echo "scontrol $*" >> "$LOG"; [ "$1" != show ] || printf "localhost\\nnode2\\n"',
    "scancel": 'echo "scancel $*" >> "$LOG"; kill -TERM $(cat "$FOLDER/driver.pid")',
    "srun": 'while [ "${1#--n}" != "$1" ]; do shift; done; exec "$@"',
    # Like Ray's: starts, runs what stands behind `--`; its own exit code says nothing of a failed start.
    "ray": 'echo "ray $*" >> "$LOG"; env | grep ^RAY_AUTH >> "$LOG"\n'
    '[ -z "${RAY_FAILS:-}" ] || exit 0\n'
    'while [ "$1" != -- ]; do shift; done; shift; "$@"; exit 0',
    "lmoe-tune": 'echo "lmoe-tune $*" >> "$LOG"; echo $$ > "$FOLDER/driver.pid"\n'
    'trap "exit 130" TERM\n'
    'for _ in $(seq "${DRIVER_TENTHS:-0}"); do sleep 0.1 & wait $!; done; exit "${DRIVER_CODE:-0}"',
}


@dataclass
class Job:
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )

    def run(self, *arguments: str, **more: str) -> tuple[int, str]:
        process = self.start(*arguments, **more)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    @property
    def log(self) -> str:
        path = self.folder / "log.txt"
        return path.read_text(encoding="utf-8") if path.exists() else ""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in STAND_INS.items():
        path = commands / name
        path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log.txt"),
        "FOLDER": str(tmp_path),
        "LMOE_TUNE_HOME": str(home),
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "8",
    }
    return Job(tmp_path, environment)


def test_a_finished_search_ends_the_job_with_success(job: Job) -> None:
    code, output = job.run("cars", "--trials", "8")
    assert code == 0, output
    assert "lmoe-tune search cars --trials 8 --address 127.0.0.1:" in job.log
    assert "--wait-for-lock 10m" in job.log
    assert "requeue" not in job.log
    assert list((job.folder / "home").iterdir()) == []


def test_the_exit_code_is_the_searchs(job: Job) -> None:
    assert job.run("cars", DRIVER_CODE="3")[0] == 3
    assert job.run("cars", DRIVER_CODE="130")[0] == 130
    assert "requeue" not in job.log  # somebody stopped it by hand


def test_a_cluster_that_did_not_start_is_no_success(job: Job) -> None:
    code, output = job.run("cars", RAY_FAILS="1")
    assert code == 1
    assert "the driver never ended by itself" in output


def test_before_the_time_limit_the_sweep_is_stopped_and_the_job_requeued(job: Job) -> None:
    process = job.start("cars", DRIVER_TENTHS="300")
    give_up = time.monotonic() + 30
    while not (job.folder / "driver.pid").exists():
        assert time.monotonic() < give_up
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "scontrol requeue 4711" in job.log


def test_jobs_on_one_node_have_ports_and_tokens_of_their_own(job: Job) -> None:
    job.run("cars")
    job.run("cars", SLURM_JOB_ID="4712")
    lines = job.log.splitlines()
    starts = [line.split() for line in lines if line.startswith("ray symmetric-run")]
    ports = []
    for words in starts:
        address = words[words.index("--address") + 1].rpartition(":")[2]
        given = [word.rpartition("=")[2] for word in words if "-port=" in word]
        ports.append({int(port) for port in (address, *given)})
    assert len(ports) == 2
    assert not ports[0] & ports[1]
    assert max(ports[0] | ports[1]) < 65536
    tokens = {line for line in lines if line.startswith("RAY_AUTH_TOKEN=")}
    assert len(tokens) == 2
    assert all(len(token.partition("=")[2]) == 64 for token in tokens)


def test_without_a_spec_it_says_how_it_is_called(job: Job) -> None:
    code, output = job.run()
    assert code == 2
    assert "usage: sbatch sweep.sh SPEC" in output
