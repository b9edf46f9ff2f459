"""Whether a run could deliver to a store, found out within seconds and without importing MLflow.

`search` asks before it makes anything, `doctor` shows the answer, and each connection starts with
the cheap part.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from lmoe_tune.durable import owner_of
from lmoe_tune.errors import TrackingAwayError, TrackingError
from lmoe_tune.tracking import http, settings
from lmoe_tune.tracking.address import is_server, scheme, shown, sqlite_path
from lmoe_tune.tracking.judge import (
    away,
    judged,
    judged_answer,
    not_mlflow,
    refusal,
    translated,
)

CONNECT_TIMEOUT_S = 4.0
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_DATABASES = ("postgresql", "mysql", "mssql")
_HOSTED = ("databricks", "databricks-uc", "uc")  # MLflow knows how to reach these
_ANY = "Default"  # an experiment that a new store has
_KINDS = "http://HOST:PORT, https://…, sqlite:///PATH, postgresql://…, mysql://…, mssql://… or databricks"
_FILE_LIBRARIES = {"s3": "boto3", "gs": "google.cloud.storage", "wasbs": "azure.storage.blob"}


def ask(uri: str, experiment: str | None = None) -> str | None:
    """Ask the store as a run would: scheme, driver, proxy, credentials, and where files would go.

    Args:
        uri: may hold credentials.
        experiment: where it exists already, its files' place is looked at.

    Returns:
        A caution: what will not arrive although the rest does, such as models.

    Raises:
        TrackingError: away, which may pass by itself, or refused, with what to fix.
    """
    refuse_unusable(uri)
    if is_server(uri):
        return _ask_server(uri, experiment)

    if (path := sqlite_path(uri)) is not None:
        _open(uri, path)
    elif scheme(uri) in _DATABASES:
        _connect(uri)
    return None


def refuse_closed(uri: str, experiment: str | None = None) -> str | None:
    """Raise if the store refuses; a store that is only unreachable is no reason not to start.
    Returns a caution.

    Raises:
        TrackingRefusedError: says what to fix.
    """
    try:
        return ask(uri, experiment)
    except TrackingAwayError:
        return None


def refuse_unusable(uri: str) -> None:
    """Fail within seconds if nobody listens, or the address is invalid: MLflow's own retries take
    100 s.

    Raises:
        TrackingError: of the kind that it is.
    """
    kind = scheme(uri)
    if kind in _HOSTED or uri in _HOSTED:
        return
    if kind == "sqlite":
        if sqlite_path(uri) is None:
            why = "it would be kept in memory, where no other process sees it"
            raise refusal(uri, why, "name a file: sqlite:///PATH")
        return
    if kind in ("", "file"):
        _refuse_files(uri)
        return
    if kind not in _PORTS:
        raise refusal(uri, f"the address has the scheme '{kind}'", f"it must be one of {_KINDS}")

    host, port = _host(uri)
    if kind in _DATABASES:
        _import_driver(uri)
    if host is not None and not _through_proxy(uri, host):
        _knock(uri, host, port)


def _open(uri: str, path: Path) -> None:
    """Begin to write into a database file, or see that one could be made."""
    if not path.exists():
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise refusal(uri, f"{nearest} is not writable", "make it writable")
        return
    for place in (path, path.absolute().parent):  # SQLite keeps its journal beside the file
        if not os.access(place, os.W_OK):
            why = f"{place} cannot be written: it belongs to {owner_of(place)}"
            raise refusal(uri, why, "ask its owner to make it writable, or set tracking.uri")

    address = f"file:{quote(str(path.absolute()))}?mode=rw"
    with translated(uri), closing(sqlite3.connect(address, uri=True, timeout=1)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        database.rollback()


def _ask_server(uri: str, experiment: str | None) -> str | None:
    with translated(uri):
        answer = _answer_about(uri, experiment)
    if answer.status in (401, 403) and http.has_other_credentials():
        with settings.held(), translated(uri):  # MLflow signs its requests in a way of its own
            from mlflow import MlflowClient

            MlflowClient(uri).search_experiments(max_results=1)
        return None
    if not answer.is_fine:
        raise judged_answer(answer, uri)
    return _about_files(answer)


def _answer_about(uri: str, experiment: str | None) -> http.Answer:
    """What the server answers about an experiment; about any, if it has none of this name.

    Raises:
        TrackingRefusedError: it is not MLflow, which describes each experiment that it finds.
    """
    answer = http.request(uri, experiment)
    if answer.is_unknown:
        return http.request(uri)
    if not answer.is_fine or answer.experiments:
        return answer

    # Where there is no experiment, MLflow answers {} to a search, and any service may answer that.
    named = answer if experiment is not None else http.request(uri, _ANY)
    if named.is_fine and not named.experiments:
        raise not_mlflow(uri)
    return answer


def _about_files(answer: http.Answer) -> str | None:
    """What to say about the place where the server has files put."""
    location = ""
    for one in answer.experiments[:1]:
        location = str(one.get("artifact_location") or "")

    kind = urlsplit(location).scheme
    without = "until then metrics arrive, but models and reports do not"
    library = _FILE_LIBRARIES.get(kind)
    if library is not None and not _is_installed(library):
        return (
            f"MLflow puts files into {shown(location)}, but {library} is not installed here; "
            f"pip install {library.replace('.', '-')}: {without}"
        )

    if location and kind in ("", "file"):
        folder = Path(unquote(urlsplit(location).path))
        nearest = next((one for one in (folder, *folder.parents) if one.exists()), folder)
        if nearest == Path("/") or not os.access(nearest, os.W_OK):
            return (
                f"MLflow puts files into {folder}, which is the server's and cannot be written from here; "
                f"start the server with --artifacts-destination: {without}"
            )
    return None


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:
        return False


def _connect(uri: str) -> None:
    """Sign in to a database."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    failed: list[Exception] = []

    def sign_in() -> None:
        try:
            create_engine(uri, poolclass=NullPool).connect().close()
        except Exception as error:
            failed.append(error)

    # Each driver has its own way to say how long to wait, and some have none.
    waiting = threading.Thread(target=sign_in, daemon=True)
    waiting.start()
    waiting.join(CONNECT_TIMEOUT_S)
    if failed:
        raise judged(failed[0], uri)
    if waiting.is_alive():
        raise away(uri, f"it has not answered within {CONNECT_TIMEOUT_S:g} s")


def _refuse_files(uri: str) -> None:
    """MLflow has closed its store of plain files; users who need it must tell MLflow so."""
    if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").strip().lower() in ("true", "1"):
        return

    raise refusal(
        uri,
        "this is a folder of files, which MLflow no longer writes",
        "use a database instead, such as sqlite:///mlflow.db (`mlflow migrate-filestore` moves what is there), "
        "leave MLFLOW_TRACKING_URI unset for one in the home, or set MLFLOW_ALLOW_FILE_STORE=true",
    )


def _import_driver(uri: str) -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    with translated(uri):
        try:
            make_url(uri).get_dialect().import_dbapi()
        except (ArgumentError, ValueError):
            raise _unreadable(uri) from None


def _host(uri: str) -> tuple[str | None, int]:
    """Host and port; None for a socket file, which is named in the query."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or _PORTS[scheme(uri)]
    except ValueError:
        raise _unreadable(uri) from None

    if host is None and is_server(uri):
        raise _unreadable(uri)
    return host, port


def _through_proxy(uri: str, host: str) -> bool:
    if not is_server(uri):
        return False
    import urllib.request  # 30 ms

    return scheme(uri) in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)


def _knock(uri: str, host: str, port: int) -> None:
    """Open a connection to the host itself."""
    with translated(uri):
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()


def _unreadable(uri: str) -> TrackingError:
    advice = "see its host and port, and percent-encode its user and password"
    return refusal(uri, "the address cannot be read", advice)
