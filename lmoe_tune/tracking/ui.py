"""MLflow's own user interface, on this machine only."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from lmoe_tune.errors import TrackingError, UsageError
from lmoe_tune.processes import safe_environment
from lmoe_tune.tracking.address import is_server, shown, sqlite_path
from lmoe_tune.tracking.probe import refuse_unusable
from lmoe_tune.tracking.projection import EXPERIMENT_TAG
from lmoe_tune.tracking.settings import LOGGING_LEVEL, SETTINGS
from lmoe_tune.tracking.store import follow_home

HOST = "127.0.0.1"
DEFAULT_PORT = 5000
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0


def command(port: int, artifact_root: Path) -> list[str]:
    """The argv that starts MLflow's server on loopback; the store's address goes through
    `environment`.
    """
    return [
        *(sys.executable, "-P", "-m", "mlflow", "server"),
        *("--host", HOST, "--port", str(port)),
        *(
            "--workers",
            "1",
        ),  # one reader; each of the default four takes a second to start and 0.4 GB
        *("--artifacts-destination", artifact_root.resolve().as_uri()),
        *("--uvicorn-opts", "--log-level warning"),
    ]


def environment(tracking_uri: str) -> dict[str, str]:
    """The environment for `command`: among the arguments, `ps` would show the password of the
    address.
    """
    settings = {name: value for name, value in SETTINGS.items() if name != LOGGING_LEVEL}
    inherited = {name: value for name, value in safe_environment().items() if name not in _OPENS_UP}
    return (
        settings
        | inherited
        | {
            "MLFLOW_BACKEND_STORE_URI": tracking_uri,
            "MLFLOW_REGISTRY_STORE_URI": tracking_uri,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its workers would run with nothing to do
        }
    )


# If a user has set these for another server, they would make this one answer other machines.
_OPENS_UP = (
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE",
    "MLFLOW_SERVER_ALLOWED_HOSTS",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
    "MLFLOW_HOST",
    "MLFLOW_PORT",
    "MLFLOW_WORKERS",
    "MLFLOW_GUNICORN_OPTS",
    "MLFLOW_UVICORN_OPTS",
    "MLFLOW_ARTIFACTS_ONLY",
    "MLFLOW_TRACKING_URI",
)


def serve(
    tracking_uri: str,
    artifact_root: Path,
    port: int | None = None,
    *,
    page: str = "",
    made_by: str = "",
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> int:
    """Run the user interface until SIGINT or SIGTERM; returns the exit status.

    A tracking server has its own pages: its address is printed, and nothing is started.

    Args:
        tracking_uri: whose store is to be shown.
        artifact_root: where the files of runs and models are.
        port: the default is 5000, or a free one where that is taken.
        made_by: what to type where there is no store yet.
        page: what to open; it is opened in a browser too where there is a screen.
        say: gets the lines for the user.

    Raises:
        UsageError: `port` is taken, or there is no store yet.
        TrackingError: MLflow does not start.
    """
    if is_server(tracking_uri):
        link = f"{shown(tracking_uri).rstrip('/')}/{page}".rstrip("/")
        say(f"MLflow: {link}")
        _open(link)
        return 0

    refuse_unusable(tracking_uri)
    path = sqlite_path(tracking_uri)
    if path is not None and not path.exists():
        raise UsageError(
            f"there is nothing to show yet: {path} does not exist; what makes it: {made_by}"
        )
    with suppress(OSError, sqlite3.Error):  # of a read-only home: it can be shown as it is
        follow_home(tracking_uri, artifact_root.resolve(), EXPERIMENT_TAG)
    chosen = _choose_port(port)
    # A session of its own: MLflow starts a second process, and a signal must reach both.
    server = subprocess.Popen(
        command(chosen, artifact_root),
        env=environment(tracking_uri),
        stdout=2,  # our stdout is for data
        cwd="/",  # uvicorn puts the working directory first on its import path
        start_new_session=True,
    )
    guard = _guard(server)
    stopped_by: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped_by.append(number)
        _signal_group(server, signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if _wait_until_it_answers(server, chosen):
            link = f"http://{HOST}:{chosen}/{page}".rstrip("/")
            say(f"MLflow: {link}  (Ctrl-C stops it)")
            if page:
                _open(link)
        status = server.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _end(server)
        guard.kill()
        guard.wait()
    if stopped_by:
        return 0
    raise TrackingError(
        f"MLflow's user interface ended with status {status}; its own messages are above"
    )


def _open(link: str) -> None:
    """In the user's browser, where there is a screen: elsewhere a browser in the terminal might
    start.
    """
    has_screen = (
        sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if has_screen and "#" in link:
        webbrowser.open(link)


def _guard(server: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Ends the server when this process is gone, however it ended: the pipe to the guard is then
    closed.

    A death signal of the kernel's would reach the server's first process only.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", f"read _ || kill -KILL -{server.pid}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _choose_port(port: int | None) -> int:
    for wanted in (DEFAULT_PORT, 0) if port is None else (port,):  # 0: any
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, wanted))
            return int(probe.getsockname()[1])
    raise UsageError(f"the port is {port}, but must be a free one: something else listens there")


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False


def _signal_group(server: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, number)  # the group outlives its first process


def _end(server: subprocess.Popen[bytes]) -> None:
    """Leave no process of the server behind."""
    _signal_group(server, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        server.wait(_STOP_TIMEOUT_S)
    _signal_group(server, signal.SIGKILL)
    server.wait()
