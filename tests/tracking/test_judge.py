"""What passes by itself is away; all else is a refusal."""

from __future__ import annotations

import socket
import sqlite3

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy import exc
from urllib3.exceptions import MaxRetryError, NameResolutionError

from lmoe_tune.errors import TrackingAwayError, TrackingError, TrackingRefusedError
from lmoe_tune.tracking.judge import judged, translated

URI = "postgresql://ann:hunter2@db/mlflow"


class DriverError(Exception):
    """What a database's driver raises."""

    def __init__(self, text: str, sqlstate: str | None = None) -> None:
        self.sqlstate = sqlstate
        super().__init__(text)


def of_database(text: str, sqlstate: str | None = None) -> Exception:
    return exc.OperationalError("SELECT 1", None, DriverError(text, sqlstate))


def of_mysql(number: int) -> Exception:
    return exc.OperationalError("SELECT 1", None, Exception(number, "said so"))


def of_sqlite(code: int) -> Exception:
    error = sqlite3.OperationalError("said so")
    error.sqlite_errorcode = code
    return exc.OperationalError("SELECT 1", None, error)


def wrapped(error: Exception) -> MlflowException:
    """As MLflow hands it on."""
    try:
        raise MlflowException("could not") from error
    except MlflowException as found:
        return found


def unknown_name(number: int) -> Exception:
    reason = NameResolutionError("db", None, socket.gaierror(number, "said so"))  # type: ignore[arg-type]
    reason.__context__ = socket.gaierror(number, "said so")
    return requests.ConnectionError(MaxRetryError(None, "/", reason))  # type: ignore[arg-type]


AWAY = [
    ConnectionRefusedError(111, "refused"),
    TimeoutError("timed out"),
    requests.ConnectionError("aborted"),
    requests.Timeout("read"),
    requests.exceptions.RetryError("too many 503 error responses"),
    RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "busy"}),
    RestException({"error_code": "INTERNAL_ERROR", "message": "the disk is full"}),
    RestException({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slowly"}),
    of_database("the server goes down", "57P01"),
    of_database("deadlock", "40P01"),
    of_database("FATAL: sorry, too many clients already"),
    of_database("FATAL: the database system is starting up"),
    of_mysql(2003),
    of_sqlite(sqlite3.SQLITE_BUSY),
    exc.TimeoutError(),
]
REFUSED = [
    RestException({"error_code": "PERMISSION_DENIED", "message": "you may not"}),
    RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "the name"}),
    MlflowException("the schema is out of date"),
    of_database('FATAL: password authentication failed for user "ann"'),
    of_database("permission denied for table runs", "42501"),
    of_database("no such database", "3D000"),
    of_mysql(1045),
    of_sqlite(sqlite3.SQLITE_READONLY),
    of_sqlite(sqlite3.SQLITE_FULL),
    exc.ArgumentError("cannot parse"),
    ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2"),
    requests.exceptions.SSLError("certificate verify failed"),
    requests.exceptions.InvalidSchema("no connection adapters"),
    PermissionError(13, "Permission denied", "/mlartifacts"),
    KeyError("run"),
    unknown_name(socket.EAI_NONAME),
]


@pytest.mark.parametrize("error", [*AWAY, unknown_name(socket.EAI_AGAIN)], ids=repr)
def test_what_passes_by_itself_is_away(error: Exception) -> None:
    for found in (judged(error, URI), judged(wrapped(error), URI)):
        assert isinstance(found, TrackingAwayError)
        assert "hunter2" not in str(found)


@pytest.mark.parametrize("error", REFUSED, ids=repr)
def test_all_else_is_a_refusal(error: Exception) -> None:
    for found in (judged(error, URI), judged(wrapped(error), URI)):
        assert isinstance(found, TrackingRefusedError)
        assert str(found).startswith("MLflow refuses: ") and "hunter2" not in str(found)


def test_a_refused_value_is_told_from_a_refused_caller() -> None:
    content = judged(RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "x"}), URI)
    caller = judged(RestException({"error_code": "PERMISSION_DENIED", "message": "x"}), URI)
    assert isinstance(content, TrackingRefusedError) and content.of_content
    assert isinstance(caller, TrackingRefusedError) and not caller.of_content


def test_a_missing_driver_says_what_to_install() -> None:
    error = ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2")
    assert "pip install 'psycopg2-binary'" in str(judged(error, URI))


def test_what_was_judged_stays() -> None:
    found = TrackingAwayError("away")
    assert judged(found, URI) is found
    with pytest.raises(TrackingError, match="^away$"), translated(URI):
        raise found
