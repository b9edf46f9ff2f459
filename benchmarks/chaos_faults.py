"""What a driver and its surroundings can be made to suffer, and the moments for it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lmoe_tune import checkpoint
from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.lines import as_text, encode_text

MARK = "LMOE_TUNE_BENCH"  # in the environment of a driver, so also of every process that descends from it
POLL_S = 0.003
WORKERS = (
    "ray::ResourceTrainable",
    "ray::TrialWorker",
    "ray::JobWorker",
)  # what Ray calls the process of a Trainable
PROJECTOR = "lmoe_tune.sweep.delivery"


class Driver:
    """A `lmoe-tune` process and all that descends from it, found by a mark in their environments."""

    def __init__(
        self, command: list[str], folder: Path, environment: Mapping[str, str], mark: str
    ) -> None:
        self.started = time.time()
        self._mark = f"{MARK}={mark}".encode()
        self._output = folder / "output.txt"
        self._output_from = self._output.stat().st_size if self._output.exists() else 0
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lmoe_tune.cli.main", *command],
                cwd=folder,
                env={**environment, MARK: mark},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        return self._output.read_bytes()[self._output_from :].decode(errors="replace")

    def tree(self) -> dict[int, str]:
        """Pid and command line of the driver and of all its descendants, those of former runs included."""
        return {pid: command_line(pid) for pid in marked(self._mark)}

    def find(self, *names: str) -> list[int]:
        """Pids of the descendants whose command line has one of these words."""
        return sorted(
            pid for pid, line in self.tree().items() if any(name in line for name in names)
        )

    def kill(self) -> None:
        """`kill -9` of the driver alone."""
        self.process.kill()
        self.process.wait()

    def kill_tree(self) -> None:
        """`kill -9` of everything at once, as when the machine dies."""
        while pids := marked(self._mark):  # again, for what was being started meanwhile
            for pid in pids:
                send(pid, signal.SIGKILL)
            if self.process.pid in pids:
                self.process.wait()
            time.sleep(0.01)

    def wait(self, patience_s: float) -> int | None:
        """Its exit code, or None when it has not ended in time."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return None


def marked(mark: bytes) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                mark in (path / "environ").read_bytes().split(b"\0")
                and state_of(int(path.name)) != "Z"
            ):
                found.append(int(path.name))
    return found


def state_of(pid: int) -> str:
    """The kernel's letter: T stopped, Z dead but not yet waited for; Z also when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def command_line(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


def send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


# Moments


@dataclass(frozen=True)
class Moment:
    """When to act: `delay_s` after the `count`-th change of something from the start of a run on."""

    of: str
    """start, baseline, ledger, checkpoint, MLflow or end; start has no changes to wait for."""
    count: int
    delay_s: float

    def wait(self, driver: Driver, folder: SweepFolder, database: Path) -> bool:
        """True once it has come; False when the driver ended before."""
        left = 0 if self.of == "start" else self.count
        look = LOOKS.get(self.of, lambda folder, database: None)
        last = look(folder, database)
        while left and driver.running:
            time.sleep(POLL_S)
            now = look(folder, database)
            left -= now != last
            last = now
        until = time.monotonic() + self.delay_s
        while driver.running and time.monotonic() < until:
            time.sleep(POLL_S)
        return driver.running


def any_moment(rng: random.Random, *, fresh: bool) -> Moment:
    """Somewhere in a run: anywhere, or close to a write that matters; a fresh home has a baseline to train."""
    kinds = {
        "start": 5,
        "ledger": 2,
        "checkpoint": 2,
        "MLflow": 1,
        "end": 1,
        "baseline": 2 if fresh else 0,
    }
    of = rng.choices(list(kinds), list(kinds.values()))[0]
    delay_s = {"start": rng.uniform(0, 9), "end": rng.uniform(0, 1.5)}.get(
        of, rng.choice([0, rng.uniform(0, 0.3)])
    )
    return Moment(of, 1 if of == "end" else rng.randint(1, 10 if of == "ledger" else 4), delay_s)


def while_training(rng: random.Random) -> Moment:
    """After one of the first epochs of a run."""
    return Moment("checkpoint", rng.randint(1, 6), rng.uniform(0, 0.3))


def names(folder: Path, pattern: str) -> list[str]:
    try:
        return sorted(path.name for path in folder.glob(pattern))
    except FileNotFoundError:  # a folder that goes away while it is looked through
        return []


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


LOOKS: dict[str, Callable[[SweepFolder, Path], object]] = {
    "baseline": lambda folder, database: names(folder.home, "baselines/*/.epoch-*"),
    "ledger": lambda folder, database: size_of(folder.ledger),
    "checkpoint": lambda folder, database: names(folder.path / "trials", "*/checkpoints/*epoch-*"),
    "MLflow": lambda folder, database: (
        modified(database) + modified(database.with_name(f"{database.name}-journal"))
    ),
    "end": lambda folder, database: last_bytes(folder.ledger).count(b'"how":"complete"'),
}


def last_bytes(path: Path) -> bytes:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read()
    return b""


# Damage to the files of a sweep that was killed


def newest_checkpoint(folder: SweepFolder, trials: list[TrialRecord]) -> Path | None:
    """Of a trial that is to be continued; before there is one, of the baseline."""
    running = [folder.checkpoints(trial.number) for trial in trials if trial.state == "running"]
    for place in [*running, *(folder.home / "baselines").glob("*")]:
        files = checkpoint.list_newest_first(place)
        if files:
            return files[0]
    return None


def truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip_bit(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def tear(ledger: Path, rng: random.Random) -> None:
    """Add what a kill in the middle of a transaction leaves: perhaps whole records, and part of one."""
    record = {
        "op_code": 5,
        "worker_id": "torn",
        "trial_id": 0,
        "user_attr": {"torn": "x" * rng.randrange(200)},
    }
    number = ledger.read_bytes().count(b"\n")
    lines = b"".join(
        encode_text(as_text(record), number=number + place, left=3 - place) for place in range(3)
    )
    with ledger.open("ab") as file:
        file.write(lines[: rng.randrange(1, len(lines))])


@contextlib.contextmanager
def locked_database(path: Path) -> Iterator[None]:
    """Another process's exclusive lock on MLflow's SQLite file."""
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")
