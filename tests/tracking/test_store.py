from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lmoe_tune.errors import TrackingError
from lmoe_tune.snapshot import SweepSnapshot
from lmoe_tune.tracking import Projection
from lmoe_tune.tracking.judge import translated
from lmoe_tune.tracking.store import connect

pytestmark = pytest.mark.timeout(120)


def test_importing_the_package_does_not_import_mlflow() -> None:
    code = "import sys, lmoe_tune.tracking; sys.exit(any(m in sys.modules for m in ('mlflow', 'torch', 'ray')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_new_store_is_made_whole_and_nothing_else_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "a home with 100% blanks"
    (home / "sub").mkdir(parents=True)
    (home / "sub" / ".mlflow.db.new").write_bytes(b"half of a database, left by a kill")
    before = os.umask(0o002)
    try:
        client = connect(f"sqlite:///{home}/sub/mlflow.db")
    finally:
        os.umask(before)
    assert client.get_experiment_by_name("Default") is not None
    assert sorted(path.name for path in (home / "sub").iterdir()) == [
        ".mlflow.db.lock",
        "mlflow.db",
    ]
    assert [path.name for path in tmp_path.iterdir()] == [home.name]
    rights = stat.S_IMODE((home / "sub" / "mlflow.db").stat().st_mode)
    assert rights == 0o664, "a group that shares a home writes into its database"


@pytest.mark.slow
def test_several_may_start_on_a_new_store_at_once(tmp_path: Path) -> None:
    code = (
        f"from lmoe_tune.tracking.store import connect; connect('sqlite:///{tmp_path}/mlflow.db')"
    )
    starters = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [starter.wait() for starter in starters] == [0, 0, 0]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("SELECT count(*) FROM experiments").fetchone() == (1,)


def test_a_server_that_is_away_is_said_within_seconds_and_without_the_password(
    sweep: Callable[..., SweepSnapshot],
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://bob:hunter2@127.0.0.1:{unused.getsockname()[1]}/mlflow"
    with pytest.raises(TrackingError, match="MLflow at http://127.0.0.1:.*refused") as caught:
        Projection(uri).project(sweep())
    assert "hunter2" not in str(caught.value)
    assert "bob" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_server_that_refuses_the_password_does_not_get_it_printed(
    sweep: Callable[..., SweepSnapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        uri = f"http://ann:hunter2@127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(TrackingError) as caught:
            Projection(uri).project(sweep())
    assert "hunter2" not in str(caught.value)


def test_a_password_that_breaks_the_address_is_explained(
    sweep: Callable[..., SweepSnapshot],
) -> None:
    with pytest.raises(TrackingError, match="percent-encode") as caught:
        Projection("postgresql://ann:hun/ter2@db/mlflow").project(sweep())
    assert "hun" not in str(caught.value)


def test_a_file_that_is_no_database_is_a_tracking_error(
    tmp_path: Path, sweep: Callable[..., SweepSnapshot]
) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database " * 100)
    with pytest.raises(TrackingError, match="MLflow refuses: its database: file is not"):
        Projection(f"sqlite:///{tmp_path}/mlflow.db").project(sweep())


def test_errors_of_our_own_are_not_blamed_on_mlflow() -> None:
    with pytest.raises(ZeroDivisionError), translated("sqlite:///x.db"):
        1 / 0  # noqa: B018


def test_a_store_that_vanished_comes_back(
    tmp_path: Path, uri: str, sweep: Callable[..., SweepSnapshot]
) -> None:
    projection = Projection(uri)
    projection.project(sweep())
    shutil.move(tmp_path / "mlflow.db", tmp_path / "away.db")
    with pytest.raises(TrackingError):
        projection.project(sweep(state="complete"))


def test_a_home_that_was_copied_keeps_its_artifacts_to_itself(
    tmp_path: Path, sweep: Callable[..., SweepSnapshot]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new home"
    old.mkdir()
    first = Projection(f"sqlite:///{old / 'mlflow.db'}").project(sweep())
    shutil.copytree(old, new)
    second = Projection(f"sqlite:///{new / 'mlflow.db'}").project(sweep())
    assert second == first
    for home in (old, new):
        client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
        assert (
            client.get_experiment(first.experiment_id).artifact_location
            == (home / "mlartifacts").as_uri()
        )
        run = client.get_run(first.parent_run_id)
        assert run.info.artifact_uri.startswith(f"{(home / 'mlartifacts').as_uri()}/")
