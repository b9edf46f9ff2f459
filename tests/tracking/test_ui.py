from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.records import TrialRecord
from lmoe_tune.snapshot import ModelSource, SweepSnapshot
from lmoe_tune.tracking import Projection
from lmoe_tune.tracking.ui import command, environment, serve


def test_it_listens_on_loopback_only_and_its_arguments_hold_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "true")
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "*")
    argv = command(5001, tmp_path)
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    variables = environment("postgresql://ann:hunter2@db/mlflow")
    assert variables["MLFLOW_BACKEND_STORE_URI"] == "postgresql://ann:hunter2@db/mlflow"
    assert variables["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert not any("hunter2" in argument for argument in argv)
    assert not any("ALLOWED_HOSTS" in name or "SECURITY" in name for name in variables)


def test_a_tracking_server_has_a_user_interface_of_its_own(tmp_path: Path) -> None:
    said: list[str] = []
    assert serve("https://ann:hunter2@mlflow.lab", tmp_path, say=said.append) == 0
    assert said == ["MLflow: https://mlflow.lab"]


def test_there_is_nothing_to_show_before_the_first_sweep(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to show yet"):
        serve(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


def test_a_port_that_was_asked_for_must_be_free(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"the port is {port}, but must be a free one"):
            serve(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, port)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_it_shows_a_sweep_takes_another_over_http_and_ends_on_a_signal(
    number: int,
    uri: str,
    trial: Callable[..., TrialRecord],
    sweep: Callable[..., SweepSnapshot],
    tmp_path: Path,
) -> None:
    snapshot = sweep(trial(0), best=0, state="complete")
    local = Projection(uri).project(snapshot)
    code = (
        "import sys; from pathlib import Path; from lmoe_tune.tracking.ui import serve;"
        "sys.exit(serve(sys.argv[1], Path(sys.argv[2])))"
    )
    with socket.socket() as default:  # if it is free, take it: another must be found
        default.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            default.bind(("127.0.0.1", 5000))
            default.listen()
        except OSError:
            pass
        process = subprocess.Popen(
            [sys.executable, "-c", code, uri, str(tmp_path / "mlartifacts")],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            encoding="utf-8",
        )
        try:
            assert process.stderr is not None
            assert process.stdout is not None
            found = None
            while found is None:
                line = process.stderr.readline()
                assert line, "it ended before it was ready"
                found = re.fullmatch(
                    r"MLflow: (http://127\.0\.0\.1:(\d+))  \(Ctrl-C stops it\)\n", line
                )
            address = found[1]
            assert not address.endswith(":5000")
            page = urllib.request.urlopen(
                f"{address}/get-artifact?path=spec.yaml&run_uuid={local.parent_run_id}"
            )
            assert page.read().decode() == snapshot.spec_yaml
            foreign = urllib.request.Request(
                f"{address}/api/2.0/mlflow/experiments/search?max_results=1",
                headers={"Host": "evil.example"},
            )
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(foreign)

            checkpoint = tmp_path / "trial-0.pt"
            checkpoint.write_bytes(b"weights")
            other = sweep(trial(0), best=0, state="complete", experiment="over http", sweep_id="2")
            remote = Projection(address)
            delivered = remote.project(other, [ModelSource(0, checkpoint)])
            assert remote.project(other) == delivered
            assert Projection(address).project(other, [ModelSource(0, checkpoint)]) == delivered
        finally:
            process.send_signal(number)
            stdout, _ = process.communicate(
                timeout=60
            )  # until the last of its processes has closed the pipes
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert stdout == ""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(found[2]))) != 0
