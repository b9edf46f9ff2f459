"""Whether MLflow refused or cannot be reached: the one place that judges what it and the libraries
below it raise.

*Away* is what passes by itself: refused connections, time-outs, errors inside the server (5xx, and
429), locks. Everything else is a *refusal*: waiting does not help, so it is reported at once, with
what to fix.
"""

from __future__ import annotations

import socket
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, responses
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lmoe_tune.errors import TrackingAwayError, TrackingError, TrackingRefusedError
from lmoe_tune.tracking import http
from lmoe_tune.tracking.address import is_server, shown, without_secrets

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

_PASSING_STATUS = (408, 425, 429)
_PASSING_SQLITE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
# Classes of SQLSTATE: connection, transaction rolled back, resources, locks, operator's
# intervention, ODBC time-out.
_PASSING_SQLSTATE = ("08", "40", "53", "55", "57", "HYT")
_PASSING_MYSQL = (1040, 1053, 1205, 1213, 2002, 2003, 2006, 2013)
# libpq gives a connection that fails no SQLSTATE, but only the server's sentence.
_PASSING_LIBPQ = (
    "starting up", "shutting down", "recovery mode", "too many", "connection slots", "timeout",
    "closed the connection", "terminating", "refused", "could not translate",
)  # fmt: skip
_DRIVERS = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
}
_TO_MEND = {
    301: "give the address that it leads to",
    302: "give the address that it leads to, or sign in as it requires",
    400: "see what it says",
    401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    403: "ask its administrator for the right to write, or to add this host name to its --allowed-hosts",
    404: "see whether the address lacks a path, or is another service's",
    407: "put the proxy's user and password into HTTPS_PROXY or HTTP_PROXY",
    413: "raise the limit on the size of requests in the proxy before it",
}
_OF_CONTENT = (400, 413, 422)
_OTHERWISE = "see whether this is the address of an MLflow server"


def judged(error: Exception, uri: str) -> TrackingError:
    """What an exception from MLflow says about the store at `uri`, without its credentials."""
    if isinstance(error, TrackingError):
        return error
    chain = list(_chain(error))

    # What MLflow raises mostly wraps what says more; unless the server itself has said what is
    # wrong.
    asked = [(_judged_alone, one) for one in [*filter(_is_an_answer, chain[:1]), *chain]]
    asked += [(_judged_mlflow, one) for one in chain]
    for judge, one in asked:
        found = judge(one, uri)
        if found is not None:
            return found

    return refusal(uri, without_secrets(str(error), uri) or type(error).__name__)


def away(uri: str, why: str) -> TrackingAwayError:
    """MLflow cannot be reached, for this reason."""
    return TrackingAwayError(f"MLflow at {shown(uri)} cannot be reached: {why}")


def refusal(
    uri: str, why: str, to_mend: str | None = None, *, of_content: bool = False
) -> TrackingRefusedError:
    """MLflow refuses, for this reason, which may already say what to do."""
    advice = f"; {to_mend}" if to_mend else ""
    text = f"MLflow refuses: {why}{advice} (at {shown(uri)})"
    return TrackingRefusedError(text, of_content=of_content)


def judged_status(status: int, uri: str, why: str | None = None) -> TrackingError:
    """The error for an HTTP status; `why` is the server's own sentence."""
    said = f"{status} {responses.get(status, '')}".strip()
    if why:
        said += f", {without_secrets(why, uri)}"
    if (status >= 500 and status != 501) or status in _PASSING_STATUS:
        return away(uri, f"it answers {said}")
    return refusal(
        uri,
        f"the server answers {said}",
        _TO_MEND.get(status, _OTHERWISE),
        of_content=status in _OF_CONTENT,
    )


def missing_driver(error: ImportError, uri: str) -> TrackingRefusedError:
    """A library that this kind of store needs is not installed."""
    name = (error.name or "").partition(".")[0]
    package = _DRIVERS.get(name, name.lower())
    advice = f"pip install '{package}'"
    if name == "psycopg" and find_spec("psycopg2") is not None:
        advice += ", or write postgresql+psycopg2://…"
    return refusal(uri, f"its driver {name} is not installed", advice)


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn what MLflow and the libraries below it raise into a `TrackingError` without credentials."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        if not _is_foreign(error):
            raise
        # `from None`: the libraries' own texts hold the address as it was given, password included.
        raise judged(error, uri) from None


def _judged_alone(error: BaseException, uri: str) -> TrackingError | None:
    """What one exception of a chain says by itself; None if the next one below it decides."""
    if isinstance(error, ImportError):
        return missing_driver(error, uri)
    kind = type(error).__module__.partition(".")[0]
    if _is_an_answer(error):
        return _judged_mlflow(error, uri)
    if kind == "requests":
        return _judged_requests(error, uri)
    if kind == "sqlalchemy":
        return _judged_sqlalchemy(error, uri)
    if isinstance(error, sqlite3.Error):
        return _judged_sqlite(error, uri)
    if isinstance(error, socket.gaierror):
        return _judged_name(error, uri)
    if isinstance(error, ConnectionError | TimeoutError | HTTPException):
        return away(uri, without_secrets(str(error), uri) or type(error).__name__)
    if isinstance(error, OSError) and error.filename is not None:
        return refusal(uri, f"{error.filename}: {error.strerror}")
    return None


def _is_an_answer(error: BaseException) -> bool:
    """Whether it is what a tracking server said, and not MLflow's interpretation of it."""
    return type(error).__name__ == "RestException"


def _judged_mlflow(error: BaseException, uri: str) -> TrackingError | None:
    if type(error).__module__.partition(".")[0] != "mlflow":
        return None

    from mlflow.exceptions import MlflowException, RestException
    from requests import RequestException

    if not isinstance(error, MlflowException):
        return None

    answer = _answer_to(error)
    if answer is not None and answer.status != 200:
        return judged_status(answer.status, uri, answer.message)

    status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
    if isinstance(error, RestException):
        return judged_status(status, uri, str(error.json.get("message") or ""))
    if not is_server(uri):
        return refusal(uri, without_secrets(str(error), uri), of_content=status in _OF_CONTENT)
    if status != 500:
        return judged_status(status, uri)

    # A page that is no JSON: one among good answers passes.
    with suppress(RequestException):
        answer = http.request(uri)
        if not answer.is_fine:
            return judged_answer(answer, uri)
    return away(uri, without_secrets(str(error), uri))


def _answer_to(error: MlflowException) -> http.Answer | None:
    """The answer that MLflow raised this at.

    MLflow's exception keeps no status, but makes one up from the words of the body: 500 if it does
    not know them. The answer itself is in the frames that raised it.
    """
    from requests import Response

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        response = frame.f_locals.get("response")
        if isinstance(response, Response):
            return http.Answer.of(response)
    return None


def judged_answer(answer: http.Answer, uri: str) -> TrackingError:
    """What an answer says that is not MLflow's."""
    if answer.status == 200:
        return not_mlflow(uri)
    return judged_status(answer.status, uri, answer.message)


def not_mlflow(uri: str) -> TrackingRefusedError:
    """What answers there is not MLflow."""
    why = "a web page, or another service, answers instead of MLflow's API"
    return refusal(uri, why, "see whether the address is right, and who must sign in there")


def _judged_requests(error: BaseException, uri: str) -> TrackingError | None:
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return judged_status(error.response.status_code, uri)
    if isinstance(error, exceptions.SSLError):
        why = f"no safe connection can be made ({_innermost(error, uri)})"
        return refusal(uri, why, "see whether it is https, or name its certificate in "
                       "MLFLOW_TRACKING_SERVER_CERT_PATH")  # fmt: skip
    if isinstance(error, exceptions.ProxyError):
        below = ConnectionError | TimeoutError | socket.gaierror
        why = f"the proxy: {_innermost(error, uri)}"
        if any(isinstance(one, below) for one in _chain(error)):
            return away(uri, why)
        return refusal(uri, why, _TO_MEND[407])
    passing = (
        exceptions.ChunkedEncodingError,
        exceptions.ConnectionError,
        exceptions.ContentDecodingError,
        exceptions.RetryError,
        exceptions.Timeout,
    )
    if not isinstance(error, passing):
        return refusal(uri, without_secrets(str(error), uri))
    for one in _chain(error):
        if isinstance(one, socket.gaierror):
            return _judged_name(one, uri)
    return away(uri, _innermost(error, uri))


def _judged_name(error: socket.gaierror, uri: str) -> TrackingError:
    if error.errno == socket.EAI_AGAIN:
        return away(uri, f"its name cannot be looked up now ({error.strerror})")
    return refusal(uri, "no machine has this name", "see whether the address is right")


def _judged_sqlalchemy(error: BaseException, uri: str) -> TrackingError | None:
    from sqlalchemy import exc

    if isinstance(error, exc.TimeoutError):
        return away(uri, "all connections to the database are in use")
    if isinstance(error, exc.NoSuchModuleError):
        why = f"SQLAlchemy knows no database of this kind: {without_secrets(str(error), uri)}"
        return refusal(uri, why)
    if not isinstance(error, exc.DBAPIError) or error.orig is None:
        return refusal(uri, without_secrets(str(error), uri))
    if error.connection_invalidated:
        return away(uri, without_secrets(str(error.orig), uri))
    if isinstance(error.orig, sqlite3.Error):
        return _judged_sqlite(error.orig, uri)
    return _judged_database(error.orig, uri)


def _judged_sqlite(error: sqlite3.Error, uri: str) -> TrackingError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING_SQLITE:
        return away(uri, str(error))
    return refusal(uri, f"its database: {error}")


def _judged_database(error: BaseException, uri: str) -> TrackingError:
    """What a database server's driver raised, judged by its SQLSTATE or number, if it has one."""
    text = without_secrets(str(error), uri)
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    number = error.args[0] if error.args else None
    if state is None and isinstance(number, str) and len(number) == 5:  # ODBC's
        state = number
    if isinstance(state, str):
        passing = state.startswith(_PASSING_SQLSTATE)
    elif isinstance(number, int):
        passing = number in _PASSING_MYSQL
    else:
        passing = any(words in text.lower() for words in _PASSING_LIBPQ)
    if passing:
        return away(uri, text)
    return refusal(uri, f"the database says {text}", "see its user, password, name and rights")


def _innermost(error: BaseException, uri: str) -> str:
    return without_secrets(str(list(_chain(error))[-1]), uri)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that led to it."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = next(iter(_below(found)), None)


def _below(error: BaseException) -> list[BaseException]:
    reason = getattr(error, "reason", None)  # urllib3's
    candidates = [error.__cause__, error.__context__, reason, *error.args]
    return [one for one in candidates if isinstance(one, BaseException)]


def _is_foreign(error: Exception) -> bool:
    """Raised by MLflow or below it: it stumbles over a strange answer with a KeyError or an
    AttributeError.

    OSError includes what requests raises; ImportError is a database driver that is not installed.
    """
    if isinstance(error, OSError | ImportError):
        return True

    modules = [type(error).__module__]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        modules.append(frame.f_globals.get("__name__", ""))
    return any(
        module.partition(".")[0] in ("mlflow", "sqlalchemy", "sqlite3") for module in modules
    )
