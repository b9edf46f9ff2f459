"""A real MLflow tracking server in this process, behind a proxy that fails as it is told to."""

from __future__ import annotations

import http.client
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HOST = "127.0.0.1"
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "host")


class TrackingServer:
    """MLflow's own web application over one SQLite file. There can be one in a process at a time."""

    def __init__(self, folder: Path, empty_store: Path | None = None) -> None:
        from lmoe_tune.tracking.settings import SETTINGS
        from lmoe_tune.tracking.store import connect

        self._patch = pytest.MonkeyPatch()
        for name, value in SETTINGS.items():
            self._patch.setenv(name, value)
        from mlflow.server import app, handlers
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *_: object, **__: object) -> None:
                pass

        folder.mkdir()
        self.folder = folder
        self.artifacts = folder / "artifacts"
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"  # for the tests, which look past the proxy
        if empty_store is None:
            connect(self.uri)
        else:
            shutil.copyfile(empty_store, folder / "mlflow.db")
        self._patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        self._patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(self.artifacts))
        self._patch.setattr(
            handlers, "_tracking_store", SqlAlchemyStore(self.uri, "mlflow-artifacts:/")
        )
        self._patch.setattr(handlers, "_artifact_repo", None)
        self._server = make_server(HOST, 0, app, threaded=True, request_handler=Quiet)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._patch.undo()


@dataclass(frozen=True)
class Request:
    """One request to the proxy: how many there were before it, and what it asks for."""

    number: int
    method: str
    path: str


@dataclass(frozen=True)
class Fault:
    """What happens to a request.

    Attributes:
        delay_s: the answer comes so much later.
        executed: the server gets the request.
        answer: `passed` on, `reset` (the connection breaks before it), `cut` in half, `never`, or `own`.
        status, body, headers: the proxy's own answer.
    """

    delay_s: float = 0.0
    executed: bool = True
    answer: str = "passed"
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def own(status: int, body: bytes, *headers: tuple[str, str]) -> Fault:
        return Fault(executed=False, answer="own", status=status, body=body, headers=headers)


NONE = Fault()
SLOW = Fault(delay_s=2.0)
REFUSED = Fault(executed=False, answer="reset")
LOST = Fault(answer="reset")  # carried out, but nobody hears of it
CUT = Fault(answer="cut")
HANGS = Fault(executed=False, answer="never")
ERROR = Fault.own(500, b'{"error_code": "INTERNAL_ERROR", "message": "the disk is full"}')
UNAVAILABLE = Fault.own(503, b"<html><body><h1>503 Service Unavailable</h1></body></html>")
TOO_MANY = Fault.own(429, b"slow down", ("Retry-After", "86400"))
LOGIN_PAGE = Fault.own(200, b"<html><body>Please log in</body></html>")
EMPTY = Fault.own(200, b"")
STRANGE = Fault.own(200, b'{"runs": [7], "experiment": "?", "run": {}, "model": [], "models": 1}')

KINDS = {
    "refused": REFUSED,
    "answer lost": LOST,
    "answer cut": CUT,
    "500": ERROR,
    "503 in HTML": UNAVAILABLE,
    "429": TOO_MANY,
    "a login page": LOGIN_PAGE,
    "nothing": EMPTY,
    "strange": STRANGE,
}


class FaultyProxy:
    """Passes requests on to a port, as `script` says for each of them."""

    def __init__(
        self, backend_port: int, script: Callable[[Request], Fault] = lambda request: NONE
    ) -> None:
        self.script = script
        self.requests: list[Request] = []
        self._backend_port = backend_port
        self._lock = threading.Lock()
        self._closing = threading.Event()
        with socket.create_server((HOST, 0)) as free:
            self.port: int = free.getsockname()[1]
        self._server: ThreadingHTTPServer | None = None
        self.up()

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.port}"

    def down(self) -> None:
        """Nobody listens any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def up(self) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                proxy._handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server((HOST, self.port), Handler)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self) -> None:
        self._closing.set()
        self.down()

    @contextmanager
    def closing(self) -> Iterator[FaultyProxy]:
        try:
            yield self
        finally:
            self.close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            request = Request(len(self.requests), handler.command, handler.path)
            self.requests.append(request)
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        fault = self.script(request)
        status, headers, content = fault.status, list(fault.headers), fault.body
        if fault.executed:
            status, headers, content = self._ask(handler, body)
        self._closing.wait(fault.delay_s)
        with suppress(OSError):  # the client had no patience
            if fault.answer == "never":
                self._closing.wait()
            if fault.answer in ("never", "reset"):
                # A reset: closing without reading on would be one by chance.
                handler.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                handler.close_connection = True
                handler.connection.close()
                return
            handler.send_response(status)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP:
                    handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(content)))
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.wfile.write(content[: len(content) // 2] if fault.answer == "cut" else content)

    def _ask(
        self, handler: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        backend = http.client.HTTPConnection(HOST, self._backend_port, timeout=60)
        passed = {
            name: value
            for name, value in handler.headers.items()
            if name.lower() not in _HOP_BY_HOP
        }
        try:
            backend.request(handler.command, handler.path, body or None, passed)
            answer = backend.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            backend.close()


class Clock:
    """Seconds since it was made, for scripts."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._start
