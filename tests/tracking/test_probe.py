"""What a run would find at an address: each refusal is said within seconds, with what to mend."""

from __future__ import annotations

import http.server
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lmoe_tune.errors import TrackingRefusedError
from lmoe_tune.tracking import refuse_closed
from tests.tracking.found import probe

PAGE = b"<html><body>Please sign in</body></html>"
WITHIN_S = 5.0


class Stub(http.server.ThreadingHTTPServer):
    """Answers every request alike."""

    status, body, location = 200, b"", ""

    @property
    def uri(self) -> str:
        return f"http://ann:hunter2@127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"no", "MLFLOW_TRACKING_USERNAME"),
        (403, PAGE, "administrator"),
        (404, PAGE, "path"),
        (405, PAGE, "MLflow server"),
        (407, b"", "HTTPS_PROXY"),
        (200, PAGE, "web page"),
        (200, b"[1, 2]", "web page"),
        (400, b'{"error_code": "BAD_REQUEST", "message": "name it"}', "name it"),
    ],
)
def test_a_refusal_is_said_within_seconds_with_what_to_mend(
    stub: Stub, status: int, body: bytes, words: str
) -> None:
    stub.status, stub.body = status, body
    started = time.monotonic()
    found = probe(stub.uri)
    assert time.monotonic() - started < WITHIN_S
    assert found.state == "refused"
    assert found.why.startswith("MLflow refuses: ") and words in found.why
    assert "hunter2" not in found.why
    with pytest.raises(TrackingRefusedError) as caught:
        refuse_closed(stub.uri)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_passes_by_itself_is_no_refusal(stub: Stub, status: int) -> None:
    stub.status, stub.body = status, PAGE
    assert probe(stub.uri).state == "away"
    assert refuse_closed(stub.uri) is None


def test_a_server_that_leads_in_circles_refuses(stub: Stub) -> None:
    stub.status, stub.location = 302, "/login"
    assert probe(stub.uri).state == "refused"


def test_nobody_there_is_away() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = probe(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert found.state == "away" and "refused" in found.why


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://x", "must be one of http"),
        ("./mlruns", "MLFLOW_ALLOW_FILE_STORE"),
        ("file:///tmp/mlruns", "sqlite:///"),
        ("mlruns", "sqlite:///"),
        ("sqlite://", "sqlite:///PATH"),
        ("sqlite:///:memory:", "sqlite:///PATH"),
        ("mysql+nosuchdriver://db/x", "see its host"),
        ("mssql+pyodbc://db/x", "pip install 'pyodbc'"),
        ("http://no.such.host.invalid", "no machine has this name"),
        ("http://127.0.0.1:99999", "port"),
        ("postgresql://ann:hun/ter2@db/mlflow", "percent-encode"),
        ("http://", "host"),
    ],
)
def test_an_address_that_cannot_work_is_refused_with_what_would(uri: str, words: str) -> None:
    found = probe(uri)
    assert (found.state, words in found.why) == ("refused", True), found.why
    assert "hun" not in found.why


def test_the_store_of_files_is_there_for_whoever_asks_mlflow_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert probe("./mlruns").state == "ready"


def test_a_database_file_is_ready_unless_it_is_something_else_or_locked(tmp_path: Path) -> None:
    path = tmp_path / "100% mine?" / "mlflow.db"
    path.parent.mkdir()
    uri = f"sqlite:///{tmp_path}/plain.db"
    assert probe(uri).state == "ready", "it will be made"
    (tmp_path / "plain.db").write_bytes(b"not a database " * 100)
    assert "not a database" in probe(uri).why
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("CREATE TABLE t (x)")
        writer.execute("BEGIN IMMEDIATE")
        from lmoe_tune.tracking.address import sqlite_uri

        assert probe(sqlite_uri(path)).state == "away"
        writer.rollback()
        assert probe(sqlite_uri(path)).state == "ready"


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("mlflow-artifacts:/1", None),
        ("/no/such/folder/1", "--artifacts-destination"),
        ("gs://bucket/1", "pip install google-cloud-storage"),
    ],
)
def test_where_files_go_is_looked_at(stub: Stub, location: str, words: str | None) -> None:
    stub.body = json.dumps(
        {"experiment": {"experiment_id": "1", "artifact_location": location}}
    ).encode()
    found = probe(stub.uri, "digits")
    assert found.state == "ready"
    assert words is None if found.caution is None else words is not None and words in found.caution


def test_the_proxy_of_the_environment_is_asked(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.status, stub.body = 407, b""
    monkeypatch.setenv("http_proxy", stub.uri.replace("ann:hunter2@", ""))
    monkeypatch.setenv("no_proxy", "")
    found = probe("http://mlflow.invalid:5000")
    assert found.state == "refused" and "HTTP_PROXY" in found.why
