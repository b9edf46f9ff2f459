"""Where the tracking store is, and how that is shown without its secrets.

An address is made from a path here and nowhere else (`sqlite_uri`), and a path from an address
(`sqlite_path`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from lmoe_tune.wording import is_secret

_SECRET_VARIABLE = re.compile(
    r"TOKEN|PASSWORD|PASSWD|SECRET|API_?KEY|ACCESS_?KEY|CREDENTIAL", re.IGNORECASE
)
_MIN_SECRET_CHARS = 6  # of a variable that may be something else: `true` is not a secret
_LOCAL_SCHEMES = ("sqlite", "file")


def default_uri(home: Path) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else the SQLite file `HOME/mlflow.db`."""
    return from_environment() or sqlite_uri(home.expanduser().resolve() / "mlflow.db")


def from_environment() -> str | None:
    """`MLFLOW_TRACKING_URI`, as it was given."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip() or None


def absolute(uri: str, folder: Path) -> str:
    """The address with a relative path of an SQLite file taken from `folder`; any other one as it
    is.
    """
    path = sqlite_path(uri)
    if path is None or path.is_absolute():
        return uri

    _, mark, query = uri.partition("?")
    return sqlite_uri(folder.resolve() / path) + mark + query


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite file, whatever characters its path has."""
    if not set("%?") & set(str(path)):
        return f"sqlite:///{path}"

    from sqlalchemy.engine import URL  # its versions differ in what they decode

    # With its driver named: of `sqlite:///a%20b`, MLflow would also make a folder called `a%20b`.
    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def scheme(uri: str) -> str:
    """`postgresql` of `postgresql+psycopg2://…`; empty if there is none."""
    if "://" in uri:
        return uri.partition("://")[0].partition("+")[0].lower()

    return ""


def is_server(uri: str) -> bool:
    """Whether a tracking server, with a user interface of its own, answers at this address."""
    return scheme(uri) in ("http", "https")


def sqlite_path(uri: str) -> Path | None:
    """The database file of an SQLite URI, else None."""
    if scheme(uri) != "sqlite":
        return None

    location: str | None = uri.partition(":///")[2].partition("?")[0]
    if location and "%" in location:
        from sqlalchemy.engine import make_url

        location = make_url(uri).database
    if not location or location == ":memory:":
        return None

    is_sqlites_own = location.startswith("file:")  # sqlite:///file:/path?uri=true
    return Path(unquote(location.removeprefix("file:")) if is_sqlites_own else location)


def shown(uri: str) -> str:
    """The URI without user, password and secret query parameters: the only form that may be
    printed.

    A password that was not percent-encoded may hold any of `/ ? # @`, so all up to the last `@`
    goes.
    """
    start, separator, rest = uri.partition("://")
    if not separator:
        if "@" in uri:
            return uri.rpartition("@")[2]

        return uri
    if scheme(uri) not in _LOCAL_SCHEMES:
        rest = rest.rpartition("@")[2].partition("#")[0]
    rest, _, query = rest.partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    kept = [pair for pair in pairs if not is_secret(pair.partition("=")[0])]
    return f"{start}://{rest}" + (f"?{'&'.join(kept)}" if kept else "")


def without_secrets(text: str, uri: str) -> str:
    """A library's message in one line, with every secret of `uri` and of the environment blacked
    out.
    """
    for secret in _secrets(uri):
        text = text.replace(secret, "***")
    text = re.sub(r"(://)[^\s/'\"]*@", r"\1", text)
    line = " ".join(text.split())
    if len(line) <= 400:
        return line

    return line[:400] + " …"


def _secrets(uri: str) -> list[str]:
    found = [
        os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN", "USERNAME")
    ]
    found += [
        value
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.search(name) and len(value) >= _MIN_SECRET_CHARS
    ]
    _, separator, rest = uri.partition("://")
    if separator and scheme(uri) not in _LOCAL_SCHEMES:
        userinfo, at, _ = rest.rpartition("@")
        user, _, password = userinfo.partition(":")
        found += [f"{userinfo}{at}" if at else "", password, user if not password else ""]
    for pair in rest.partition("?")[2].split("&"):
        name, _, value = pair.partition("=")
        found += [value] if is_secret(name) else []
    found += [unquote(secret) for secret in found]
    return sorted({secret for secret in found if secret}, key=len, reverse=True)
