"""Users whom the system does not know: a container that is started under any uid, a HOME that is not there."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import lmoe_tune
from tests.end_to_end.test_security import small_sweep

UID = "12345"
CODE = Path(lmoe_tune.__file__).resolve().parents[1]
SMALL = ("--set", "train.epochs=1", "--set", "model.baseline.epochs=1")
AS_USER = """
mount --bind "$BASE" "$PLACE/python"
cd "$PLACE/work"
exec setpriv --reuid $WHO --regid $WHO --clear-groups "$PLACE/python/bin/$NAME" "$@"
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def as_user() -> Iterator[Run]:
    """Runs Python with a HOME under a uid without a name; where root's Python lies is of no matter."""
    place = Path(tempfile.mkdtemp(prefix="lt-user-", dir="/tmp"))
    place.chmod(0o755)
    (place / "python").mkdir()
    (place / "work").mkdir()
    (place / "work").chmod(0o777)
    interpreter = Path(os.path.realpath(sys.executable))

    def run(home: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
        drop = ("MLFLOW_", "LMOE_TUNE_", "RAY_", "TUNE_", "HOME", "USER", "LOGNAME", "TMPDIR")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
        searched = [str(CODE), *(path for path in sys.path if "site-packages" in path)]
        own = {
            "BASE": sys.base_prefix,
            "PLACE": str(place),
            "WHO": UID,
            "NAME": interpreter.name,
            "PYTHONHOME": str(place / "python"),
            "LD_LIBRARY_PATH": str(place / "python" / "lib"),  # of libpython
            "PYTHONPATH": os.pathsep.join(searched),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(
            ["unshare", "--mount", "sh", "-ec", AS_USER, "sh", *arguments],
            env=kept | own | ({} if home is None else {"HOME": home}),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            encoding="utf-8",
        )

    if os.getuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("another user can be taken by root only")
    tried = run("/", "-c", "import os, lmoe_tune.spec, torch; print(os.getuid())")
    if tried.stdout.strip() != UID:
        pytest.skip(f"another user cannot run this Python: {tried.stderr.strip()[-200:]}")

    yield run
    shutil.rmtree(place)
    shutil.rmtree(f"/tmp/torchinductor_uid_{UID}", ignore_errors=True)
    shutil.rmtree(f"/tmp/lmoe-tune-home-{UID}", ignore_errors=True)
    shutil.rmtree(f"/tmp/lmoe-tune-{UID}", ignore_errors=True)


def test_commands_answer_and_doctor_says_what_is_used_instead_of_a_home(as_user: Run) -> None:
    for home, said in (
        (None, "there is none, so"),
        ("/nonexistent", "'/nonexistent' is not a folder"),
    ):
        looked = as_user(home, "-m", "lmoe_tune.cli.main", "list")
        assert looked.returncode == 0, looked.stderr

        examined = as_user(home, "-m", "lmoe_tune.cli.main", "doctor", "--format", "json")
        found = {row["what"]: row for row in json.loads(examined.stdout)}
        assert found["HOME"]["state"] == "warn" and said in found["HOME"]["found"]
        assert "set HOME to a folder that you can write in" in found["HOME"]["advice"]


def test_a_folder_that_is_not_the_users_is_refused_by_name(as_user: Run) -> None:
    for command in (("search", "digits"), ("train", "digits")):
        done = as_user("/", "-m", "lmoe_tune.cli.main", *command, "--home", "/root-only/runs")

        assert done.returncode == 2, done.stderr
        assert "/root-only" in done.stderr and "--home" in done.stderr
        assert "Traceback" not in done.stderr


def test_another_users_sweep_that_cannot_be_read_keeps_nothing_else_from_being_read(
    as_user: Run,
) -> None:
    base = Path(tempfile.mkdtemp(prefix="lt-shared-", dir="/tmp"))
    home = str(base)
    try:
        base.chmod(0o755)
        for name in ("closed", "open"):
            small_sweep(base).folder.path.rename(base / "sweeps" / name)
        (base / "sweeps" / "closed").chmod(0o700)
        with closing(sqlite3.connect(base / "mlflow.db")) as database:
            database.execute("CREATE TABLE experiments (experiment_id INTEGER)")

        def command(*arguments: str) -> subprocess.CompletedProcess[str]:
            return as_user("/", "-m", "lmoe_tune.cli.main", *arguments, "--home", home)

        listed = command("list", "--format", "json")
        assert listed.returncode == 0, listed.stderr
        states = {row["sweep"]: row["state"] for row in json.loads(listed.stdout)}
        assert states == {"open": "complete", "closed": "unreadable"}
        assert "closed: " in listed.stderr and "cannot be read: it belongs to root" in listed.stderr

        assert command("status", "open").returncode == 0
        found = {
            one["what"]: one for one in json.loads(command("doctor", "--format", "json").stdout)
        }
        assert found["sweep open"]["state"] == "ok"
        assert "belongs to root" in found["sweep closed"]["found"]
        assert "mlflow.db cannot be written: it belongs to root" in found["MLflow"]["found"]

        refused = command("status", "closed")
        assert refused.returncode == 2 and "cannot be read: it belongs to root" in refused.stderr
    finally:
        shutil.rmtree(base)


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize("home", [pytest.param(None, marks=pytest.mark.long), "/"])
def test_a_search_runs_as_a_user_without_a_home(as_user: Run, home: str | None) -> None:
    done = as_user(
        home, "-m", "lmoe_tune.cli.main", "search", "digits", "--trials", "1", *SMALL, "--json"
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["state"] == "complete" and found["trials"]["complete"] == 1
    assert "Permission" not in done.stderr and "Traceback" not in done.stderr
