"""Secrets are planted and searched for everywhere; nothing is open to others."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from lmoe_tune import checkpoint
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import write_records
from lmoe_tune.sweep.picture import models, snapshot
from lmoe_tune.sweep.trial_files import write_record
from lmoe_tune.tracking import Projection
from tests.listening import is_loopback, listening_addresses
from tests.tracking.faulty_server import ERROR, NONE, FaultyProxy, TrackingServer

PLANTED = {
    "uri password": "planted/uri:pass word",
    "MLFLOW_TRACKING_PASSWORD": "planted-tracking-password",
    "MLFLOW_TRACKING_TOKEN": "planted-tracking-token",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret-access-key",
    "AWS_SESSION_TOKEN": "planted-aws-session-token",
    "proxy password": "planted-proxy-password",
}
USER = "ann"
PROXY = f"http://{USER}:{PLANTED['proxy password']}@127.0.0.1:9"
VARIABLES = {name: secret for name, secret in PLANTED.items() if name.isupper()} | dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), PROXY
)
VARIABLES |= {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}


def with_password(uri: str) -> str:
    return uri.replace("://", f"://{USER}:{quote(PLANTED['uri password'], safe='')}@")


def traces() -> list[bytes]:
    """Every secret as it is, percent-encoded and as HTTP's basic authorization."""
    found = []
    for secret in PLANTED.values():
        found += [
            secret,
            quote(secret, safe=""),
            base64.b64encode(f"{USER}:{secret}".encode()).decode(),
        ]
    return [text.encode() for text in found]


def assert_clean(content: bytes | str, where: object) -> None:
    content = content.encode() if isinstance(content, str) else content
    for trace in traces():
        assert trace not in content, f"{trace!r} is in {where}"


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def open_to_everyone(folder: Path) -> list[Path]:
    paths = [folder, *folder.rglob("*")]
    return [path for path in paths if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrackingServer]:
    made = TrackingServer(tmp_path / "server")
    yield made
    made.close()


@pytest.fixture
def scratch() -> Iterator[Path]:
    """For Ray's files: the paths of its sockets must be short."""
    made = Path(tempfile.mkdtemp(prefix="lt-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_sweep_keeps_secrets_to_itself_listens_on_loopback_and_opens_no_file_to_everyone(
    command: Any, tracked: Callable[..., Any], server: TrackingServer, scratch: Path
) -> None:
    search = (
        "search",
        "digits",
        "--trials",
        "3",
        "--set",
        "train.epochs=2",
        "--set",
        "model.baseline.epochs=2",
    )
    arguments: set[str] = set()
    addresses: set[str] = set()
    # It is away for its first requests: the errors of MLflow's are said, too.
    with FaultyProxy(
        server.port, lambda request: ERROR if request.number < 4 else NONE
    ).closing() as proxy:
        secrets = VARIABLES | {
            "MLFLOW_TRACKING_URI": with_password(proxy.uri),
            "RAY_TMPDIR": str(scratch),
        }
        umask = os.umask(0)
        try:
            driver = command.start("--debug", *search, **secrets, TMPDIR=str(scratch))
        finally:
            os.umask(umask)
        while driver.process.poll() is None:
            processes = driver.descendants()
            arguments.update(processes.values())
            addresses |= listening_addresses(processes)
            time.sleep(0.3)
        assert driver.process.returncode == 0, driver.output()
        if "lmoe-tune sync" in driver.output():
            assert command.run("sync", "digits", **secrets).returncode == 0
        looks = [
            ("status", "digits", "--format", "json"),
            ("best", "digits", "--format", "json"),
            ("list",),
            ("doctor",),
        ]
        for look in looks:
            done = command.run("--debug", *look, **secrets)
            assert_clean(done.stdout + done.stderr, look)
        tracked(SimpleNamespace(home=server.folder)).agrees_with(command.trials())

    assert_clean(driver.output(), "the output")
    assert any("raylet" in one for one in arguments)
    for one in arguments:
        assert_clean(one, "a command line")
    assert addresses
    assert all(is_loopback(address) for address in addresses), addresses
    logs = files_in(scratch)
    assert any(path.name == "raylet.out" for path in logs)
    for path in [*files_in(command.home), *logs, *files_in(server.folder)]:
        assert_clean(path.read_bytes(), path)
        assert_clean(str(path), "a file's name")
    assert open_to_everyone(command.home) == []
    (private,) = scratch.glob("lmoe-tune-*")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700, (
        "Ray's own folders are open to everyone: nobody gets there"
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("scheme", "status"), [("http", 1), ("postgresql", 2)])
def test_an_error_of_mlflows_holds_no_secret_with_its_traceback_either(
    scheme: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_sweep(tmp_path / "lmoe_runs")
    code = (
        "import sys; from lmoe_tune.sweep import delivery as projector; projector.PATIENCE_S = 0.0;"
        "from lmoe_tune.cli import main; main.main()"
    )
    with FaultyProxy(0, lambda request: ERROR).closing() as proxy:
        uri = with_password(proxy.uri.replace("http", scheme))
        done = run_python(
            tmp_path, code, "--debug", "sync", "small", **VARIABLES, MLFLOW_TRACKING_URI=uri
        )
    assert done.returncode == status
    assert "Traceback" in done.stderr
    assert f"{scheme}://127.0.0.1:{proxy.port}" in done.stderr
    assert_clean(done.stdout + done.stderr, "the output")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "{spec}"),
        ("check", "digits", "--set", "tracking.uri={uri}"),
        ("search", "digits", "--set", "tracking={{uri: '{uri}'}}"),
        ("search", "digits", "--set", "tracking.url={uri}"),
        ("search", "digits", "--set", "{uri}"),
        ("search", "{uri}/spec.yaml"),
        ("search", "digits", "--name", "{uri}"),
        ("status", "{uri}"),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_what_is_refused_is_not_echoed_with_its_password(
    arguments: tuple[str, ...], tmp_path: Path, cli: Any
) -> None:
    uri = with_password("https://mlflow.lab:5000")
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"name: x\ntrainable: logit_mixoe\ndata: {{id: {{dataset: digits}}}}\ntracking: {{uri: '{uri}'}}\n",
        encoding="utf-8",
    )
    filled = [argument.format(spec=spec, uri=uri) for argument in arguments]
    for debug in ([], ["--debug"]):
        done = cli(*debug, *filled)
        assert done.returncode != 0
        assert_clean(done.stdout + done.stderr, filled)
    assert not (tmp_path / "lmoe_runs").exists()


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_files_are_made_with_the_users_umask(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "home"
    before = os.umask(umask)
    try:
        ledger = small_sweep(home)
        checkpoint.save(ledger.folder.checkpoints(0), 1, {"describes": {}})
        Projection(f"sqlite:///{home}/mlflow.db", home / "mlartifacts").project(
            snapshot(ledger, "complete"), models(ledger)
        )
    finally:
        os.umask(before)
    paths = [path for path in home.rglob("*") if not path.is_symlink()]
    assert {"mlflow.db", "ledger.jsonl", "spec.yaml", "trial.json", "checkpoint.pt"} <= {
        path.name for path in paths
    }
    for path in paths:
        assert not path.stat().st_mode & umask, f"{path} is open to others"


class Evil:
    """What a pickle runs when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(Path(tempfile.gettempdir()) / "lmoe-tune-was-unpickled"),)


def test_no_checkpoint_and_no_logged_model_runs_code_when_it_is_loaded(tmp_path: Path) -> None:
    import pickle

    import torch

    from lmoe_tune.tracking.served.detector import Served

    path = checkpoint.save(tmp_path, 1, {"model": Evil()})
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load(path)
    torch.save({"model": Evil(), "describes": {}}, tmp_path / "model.pt")
    with pytest.raises(pickle.UnpicklingError):
        Served().load_context(SimpleNamespace(artifacts={"checkpoint": str(tmp_path / "model.pt")}))
    assert not (Path(tempfile.gettempdir()) / "lmoe-tune-was-unpickled").exists()


def small_sweep(home: Path) -> Ledger:
    """One complete trial of one epoch."""
    from lmoe_tune.spec import load_spec
    from trainables import declarations

    folder = SweepFolder(home, "small")
    folder.path.mkdir(parents=True)
    path = home / "unused.yaml"
    path.write_text(
        "name: small\ntrainable: logit_mixoe\ndata: {id: {dataset: digits}}\n", encoding="utf-8"
    )
    overrides = ["train.epochs=1", "budget.trials=1", "search.pruner=none"]
    loaded = load_spec(path, overrides=overrides, declarations=declarations())
    path.unlink()
    write_records(folder, loaded.spec)
    ledger = Ledger.writing(folder, loaded.spec)
    number = ledger.ask().number
    metrics = {"val_auroc": 0.9, "val_accuracy": 0.95}
    ledger.record_epoch(number, 1, metrics, metrics)
    write_record(folder, ledger.trial(number))
    return ledger


def run_python(cwd: Path, code: str, *arguments: str, **more: str) -> Any:
    """`python -c CODE ARGUMENTS…`, to its end."""
    import subprocess
    import sys

    drop = ("MLFLOW_", "LMOE_TUNE_", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=kept | {"PYTHONPATH": os.pathsep.join(sys.path)} | more,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        encoding="utf-8",
    )
