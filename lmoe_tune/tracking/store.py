"""The way to the tracking store, and a new SQLite store's schema.

Imports MLflow only inside functions: 1.3 s of CPU with its SQL store.
"""

from __future__ import annotations

import fcntl
import sqlite3
import uuid
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lmoe_tune.garbage import uncollected
from lmoe_tune.tracking.address import sqlite_path
from lmoe_tune.tracking.probe import refuse_unusable

if TYPE_CHECKING:
    from mlflow import MlflowClient


def mlflows_variables() -> tuple[str, ...]:
    """The environment's variables that MLflow reads; none where it does not say which."""
    try:
        from mlflow import environment_variables
    except ImportError:
        return ()

    public = [name for name in dir(environment_variables) if name.startswith("MLFLOW_")]
    return (*public, "MLFLOW_TRACKING_TOKEN")


def connect(uri: str) -> MlflowClient:
    """A client of the store, whose schema is made if it is a new SQLite file.

    It is used within `settings.held`. Safe to be called by several processes at once.

    Raises:
        TrackingError: nobody listens there, or MLflow refuses the address.
    """
    refuse_unusable(uri)
    path = sqlite_path(uri)
    with uncollected():
        from mlflow import MlflowClient

        if path is None:
            return MlflowClient(uri)
        with _locked(path):
            if not path.exists() or path.stat().st_size == 0:
                _create_sqlite(path)
            return MlflowClient(uri)  # inside the lock: it writes the experiment called Default


def follow_home(uri: str, artifact_root: Path, tag: str) -> None:
    """Let a SQLite store that lies beside its artifacts point to them where they are now.

    MLflow keeps absolute addresses, so a home that was moved or copied would still write into the
    old one.

    Args:
        artifact_root: where the artifacts are now.
        tag: of the experiments whose artifacts these are.
    """
    path = sqlite_path(uri)
    if path is None or not path.exists() or path.stat().st_size == 0:
        return
    if path.resolve().parent != artifact_root.parent:
        return
    new = artifact_root.as_uri()
    places = (
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
    )
    of_ours = (
        "SELECT DISTINCT artifact_location FROM experiments JOIN experiment_tags USING (experiment_id) "
        "WHERE key = ? AND artifact_location LIKE 'file:///%/' || ? AND artifact_location != ?"
    )
    with _locked(path), closing(sqlite3.connect(path, timeout=30)) as database, database:
        for (old,) in database.execute(of_ours, (tag, artifact_root.name, new)).fetchall():
            for table, column in places:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )


def _create_sqlite(path: Path) -> None:
    """Have MLflow make its tables in memory, copy them to a file aside, and rename that.

    On the disk its 67 migrations cost twice the CPU and wait for hundreds of syncs, and a kill
    between two of them leaves a database that MLflow can neither use nor repair.
    """
    from mlflow.db import upgrade  # the command `mlflow db upgrade`

    memory = f"file:{uuid.uuid4()}?mode=memory&cache=shared"
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    with closing(sqlite3.connect(memory, uri=True)) as held:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's, of SQLAlchemy
            upgrade.main([f"sqlite:///{memory}&uri=true"], standalone_mode=False)
        aside.touch()  # with the rights that the umask gives: SQLite lets only its owner write
        with closing(sqlite3.connect(aside)) as copy:
            held.backup(copy)
    aside.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
