"""A real MLflow server on loopback, behind a proxy that can fail in the ways that servers do."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lmoe_tune.tracking import ui

HOST = "127.0.0.1"
MODES = ("away", "errors", "slow", "answers lost", "flapping")
SLOW_S = 2.0
START_TIMEOUT_S = 90.0
_NOT_PASSED_ON = ("connection", "transfer-encoding", "host", "content-length")


class Proxy:
    """Passes requests on to a server; `mode` says what goes wrong, "" is nothing.

    away: nobody listens. errors: 500. slow: each answer takes SLOW_S. answers lost: the request is carried
    out, but the connection breaks before the answer. flapping: each of these in turn, by request.
    """

    def __init__(self, backend_port: int) -> None:
        self.mode = ""
        self.num_requests = 0
        self._backend_port = backend_port
        self._server: ThreadingHTTPServer | None = None
        self.port = free_port()
        self._lock = threading.Lock()
        self._listen()

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.port}"

    @contextlib.contextmanager
    def failing(self, mode: str) -> Iterator[None]:
        """In a mode for the length of the block."""
        self.mode = mode
        if mode == "away":
            self.close()
        try:
            yield
        finally:
            self.mode = ""
            if self._server is None:
                self._listen()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _listen(self) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: errors are what this is for."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Nothing: clients are killed here."""

        self._server = Server((HOST, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        content = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self._lock:
            self.num_requests += 1
            mode = self.mode
            if mode == "flapping":
                mode = ("errors", "", "answers lost", "")[self.num_requests % 4]
        if mode == "away":  # a connection from before
            request.close_connection = True
            return
        if mode == "slow":
            time.sleep(SLOW_S)
        if mode == "errors":
            self._answer(request, 500, [("Content-Type", "text/plain")], b"out of order")
            return
        status, headers, answer = self._pass_on(request, content)
        if mode == "answers lost":
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        self._answer(request, status, headers, answer)

    def _pass_on(
        self, request: BaseHTTPRequestHandler, content: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in _NOT_PASSED_ON
        }
        with contextlib.closing(
            http.client.HTTPConnection(HOST, self._backend_port, timeout=60)
        ) as connection:
            connection.request(request.command, request.path, content, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def _answer(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
    ) -> None:
        request.send_response(status)
        for name, value in headers:
            if name.lower() not in _NOT_PASSED_ON:
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Proxy]:
    """An MLflow server over `folder`/mlflow.db, and the proxy in front of it."""
    port = free_port()
    with (folder / "server.txt").open("wb") as output:
        server = subprocess.Popen(
            ui.command(port, folder / "artifacts"),
            env=ui.environment(f"sqlite:///{folder / 'mlflow.db'}"),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_for(port, server)
        proxy = Proxy(port)
        try:
            yield proxy
        finally:
            proxy.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # a session of its own
        server.wait()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with contextlib.closing(
                http.client.HTTPConnection(HOST, port, timeout=5)
            ) as connection:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
        except OSError:
            pass
        if server.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError("MLflow's server does not start")
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
