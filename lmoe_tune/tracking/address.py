"""Where the tracking store is, and how that is shown without its secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from lmoe_tune.errors import UsageError

_SECRET_PARAMETER = re.compile(r"token|pass|pwd|secret|key|auth|cred|sig|^user", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(
    r"TOKEN|PASSWORD|PASSWD|SECRET|API_?KEY|ACCESS_?KEY|CREDENTIAL", re.IGNORECASE
)
_MIN_SECRET_CHARS = 6  # of a variable that may be something else: `true` is no secret
_LOCAL_SCHEMES = ("sqlite", "file")


def default_uri(home: Path) -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else the SQLite file `HOME/mlflow.db`.

    Raises:
        UsageError: the path of `home` cannot be written as a database URL.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI", "").strip():
        return uri
    path = home.expanduser().resolve() / "mlflow.db"
    if "?" in str(path):
        raise UsageError(
            f"the home is {home}, but must have no '?' in it: MLflow's store is named by a URL"
        )
    return f"sqlite:///{path}"


def scheme(uri: str) -> str:
    """`postgresql` of `postgresql+psycopg2://…`; empty where there is none."""
    return uri.partition("://")[0].partition("+")[0].lower() if "://" in uri else ""


def is_server(uri: str) -> bool:
    """Whether a tracking server, with a user interface of its own, answers at this address."""
    return scheme(uri) in ("http", "https")


def sqlite_path(uri: str) -> Path | None:
    """The database file of an SQLite URI, else None."""
    if scheme(uri) != "sqlite":
        return None
    _, _, location = uri.partition(":///")
    location = location.partition("?")[0]
    return Path(location) if location and location != ":memory:" else None


def shown(uri: str) -> str:
    """The URI without user, password and secret query parameters: the only form that may be printed.

    A password that was not percent-encoded may hold any of `/ ? # @`, so all up to the last `@` goes.
    """
    start, separator, rest = uri.partition("://")
    if not separator:
        return uri.rpartition("@")[2] if "@" in uri else uri
    if scheme(uri) not in _LOCAL_SCHEMES:
        rest = rest.rpartition("@")[2]
    rest, _, query = rest.partition("#")[0].partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    kept = [pair for pair in pairs if not _SECRET_PARAMETER.search(pair.partition("=")[0])]
    return f"{start}://{rest}" + (f"?{'&'.join(kept)}" if kept else "")


def without_secrets(text: str, uri: str) -> str:
    """A library's message in one line, with every secret of `uri` and of the environment blacked out."""
    for secret in _secrets(uri):
        text = text.replace(secret, "***")
    text = re.sub(r"(://)[^\s/'\"]*@", r"\1", text)
    line = " ".join(text.split())
    return line if len(line) <= 400 else line[:400] + " …"


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
        found += [value] if _SECRET_PARAMETER.search(name) else []
    found += [unquote(secret) for secret in found]
    return sorted({secret for secret in found if secret}, key=len, reverse=True)
