"""A disk that is full or read-only, and a home that is moved."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import PATIENCE_S, Command

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SMALL = (
    "--trials",
    "5",
    "--set",
    "train.epochs=3",
    "--set",
    "model.baseline.epochs=2",
    "--set",
    "search.max_concurrent=1",
)
SEARCH = ("search", "digits", *SMALL)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a small file system at `lmoe_runs`, or changes the one that is there."""
    place = tmp_path / "lmoe_runs"
    place.mkdir(exist_ok=True)

    def mount(options: str) -> Path:
        how = f"remount,{options}" if os.path.ismount(place) else options
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)],
            capture_output=True,
            text=True,
            check=False,
            encoding="utf-8",
        )
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return place

    yield mount
    if os.path.ismount(place):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path: Path) -> None:
    """Take all the space that is left on a disk."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass


@pytest.mark.long
def test_a_full_disk_stops_the_sweep_which_goes_on_when_there_is_room(
    reference: Any, disk: Callable[..., Path], tmp_path: Path
) -> None:
    home = disk("size=60m")
    command = Command(tmp_path)
    shutil.copytree(reference.home / "baselines", home / "baselines")
    driver = command.start(*SEARCH)
    driver.wait_until(lambda: any(trial.epochs for trial in command.trials()))
    fill(home / "filler")
    code, said = driver.process.wait(PATIENCE_S), driver.output()
    assert code == 1, (code, said)
    assert "make room" in said or "free some space" in said
    assert "Traceback" not in said
    assert "failed" not in {trial.state for trial in command.trials()}
    (home / "filler").unlink()
    done = command.run(*SEARCH, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "complete"
    assert command.records() == reference.records()


@pytest.mark.long
def test_a_read_only_home_can_be_looked_at_and_not_worked_in(
    reference: Any, disk: Callable[..., Path], tmp_path: Path
) -> None:
    home = disk("size=200m")
    shutil.copytree(reference.home, home, dirs_exist_ok=True)
    disk("ro")
    command = Command(tmp_path)
    for arguments in (SEARCH, ("resume", "digits", "--trials", "+1")):
        done = command.run(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert str(home) in done.stderr
        assert len(done.stderr.strip().splitlines()) <= 3, done.stderr
    for arguments in (
        ("status", "digits"),
        ("leaderboard", "digits"),
        ("best", "digits"),
        ("list",),
    ):
        done = command.run(*arguments, "--format", "json")
        assert done.returncode == 0, (arguments, done.stderr)
    assert command.records() == reference.records()


@pytest.mark.long
def test_a_home_that_was_moved_is_resumed_where_it_is_now(
    command: Any,
    reference: Any,
    tmp_path_factory: pytest.TempPathFactory,
    tracked: Callable[..., Any],
) -> None:
    driver = command.start(*SEARCH)
    driver.wait_until(lambda: any(trial.epochs for trial in command.trials()))
    driver.end(signal.SIGTERM, 60.0)
    moved = Command(tmp_path_factory.mktemp("elsewhere"))
    command.home.rename(moved.home)
    done = moved.run("resume", "digits", "--json")
    assert done.returncode == 0, done.stderr
    assert moved.records() == reference.records()
    assert not command.home.exists()
    best = json.loads(done.stdout)["best"]
    assert Path(best["checkpoint"]).is_relative_to(moved.home)
    tracked(moved).agrees_with(moved.trials())


@pytest.mark.long
def test_damaged_checkpoints_are_said_and_trained_again_to_the_same_values(
    command: Any, reference: Any, tracked: Callable[..., Any]
) -> None:
    driver = command.start(*SEARCH)
    driver.wait_until(lambda: any(trial.epochs for trial in command.trials()))
    driver.kill()
    unfinished = {trial.number for trial in command.trials() if trial.state == "running"}
    baselines = list((command.home / "baselines").rglob("epoch-*.pt"))
    trained = {
        number: list(command.folder.checkpoints(number).glob("epoch-*.pt")) for number in unfinished
    }
    for path in [*baselines, *(path for paths in trained.values() for path in paths)]:
        path.write_bytes(os.urandom(path.stat().st_size))
    done = command.run("resume", "digits", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "complete"
    assert command.records() == reference.records()
    for path in baselines:
        assert f"{path}: damaged" in done.stderr
    for number, paths in trained.items():
        record = json.loads(
            (command.folder.trial(number) / "trial.json").read_text(encoding="utf-8")
        )
        assert all(f"{path}: damaged" in " ".join(record["notes"]) for path in paths)
    tracked(command).agrees_with(command.trials())
