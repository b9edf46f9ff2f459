"""The images are built as they are, and everything in compose.yaml runs: `make images-test`."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker import engine as engines
from tests.docker.engine import ROOT, Engine

pytestmark = [
    pytest.mark.images,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(engines.why_not() is not None, reason=str(engines.why_not())),
]
SMALL = (
    "--set",
    "train.epochs=2",
    "--set",
    "model.baseline.epochs=2",
    "--set",
    "search.pruner=none",
)
LONG = (
    "--set",
    "train.epochs=20",
    "--set",
    "model.baseline.epochs=2",
    "--set",
    "search.pruner=none",
)
CLUSTER_S = 240.0


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with engines.running_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def images(engine: Engine) -> Engine:
    """The two images, built from the Dockerfiles as they are."""
    for name, file, arguments in (
        ("lmoe-tune", "Dockerfile", ("--build-arg", "VARIANT=cpu")),
        ("lmoe-tune-mlflow", "mlflow.Dockerfile", ()),
    ):
        path = str(ROOT / "docker" / file)
        engine.docker("build", "-q", "-f", path, "-t", name, *arguments, str(ROOT), timeout=900)
    return engine


class Cluster:
    """What compose.yaml describes: PostgreSQL, MLflow, a head and two workers of one core."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.variables = {
            "COMPOSE_PROJECT_NAME": f"lmoe-{secrets.token_hex(3)}",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "POSTGRES_PASSWORD": secrets.token_hex(16),
            "DATA_DIR": str(engine.folder / "images"),
            "WORKER_CPUS": "1",
            "RAY_MEMORY": "6g",
        }
        (engine.folder / "images").mkdir(exist_ok=True)

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.engine.compose(*arguments, check=check, timeout=600, **self.variables)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the head; what `docker-compose exec` does, without a second of Python each time."""
        return self.engine.docker(
            "exec", self.container("head"), *arguments, check=check, timeout=600
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in the head."""
        return self.engine.start_docker("exec", self.container("head"), *arguments)

    def container(self, service: str, number: int = 1) -> str:
        return f"{self.variables['COMPOSE_PROJECT_NAME']}_{service}_{number}"

    def num_nodes(self) -> int:
        found = self.run("ray", "status", check=False).stdout
        active = found.partition("Pending")[0]
        return active.count(" node_")

    def status(self, name: str) -> dict[str, Any]:
        found = self.run("lmoe-tune", "status", name, "--format", "json", check=False).stdout
        loaded: dict[str, Any] = json.loads(found) if found else {}
        return loaded

    def epochs(self, name: str) -> int:
        """Epochs recorded so far."""
        count = "cat /runs/sweeps/$0/trials/*/metrics.jsonl 2>/dev/null | wc -l"
        return int(self.run("bash", "-c", count, name, check=False).stdout or 0)


def wait_until(holds: Callable[[], bool], what: str, patience_s: float = CLUSTER_S) -> None:
    give_up = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < give_up, f"waited in vain until {what}"
        time.sleep(1)


@pytest.fixture(scope="module")
def cluster(images: Engine) -> Iterator[Cluster]:
    cluster = Cluster(images)
    try:
        cluster.compose("up", "--no-build", "--detach", "--scale", "worker=2")
        wait_until(lambda: cluster.num_nodes() == 3, "head and two workers have found each other")
        yield cluster
    finally:
        cluster.compose("down", "--volumes", "--timeout", "5", check=False)


def test_the_tracking_server_needs_neither_torch_nor_ray(images: Engine) -> None:
    text = (ROOT / "docker" / "mlflow.Dockerfile").read_text(encoding="utf-8")
    assert "torch" not in text.partition("FROM")[2]
    done = images.docker("run", "--rm", "lmoe-tune-mlflow", "mlflow", "--version")
    assert done.stdout.startswith("mlflow, version 3.")


def test_a_single_container_searches_without_a_network(images: Engine) -> None:
    done = images.docker(
        "run", "--rm", "--network", "none", "lmoe-tune",
        "lmoe-tune", "search", "digits", "--trials", "2", *SMALL, "--json",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["state"] == "complete"
    assert found["trials"]["complete"] == 2


def test_a_user_whom_the_image_does_not_know_searches_in_a_folder_of_theirs(
    images: Engine, tmp_path: Path
) -> None:
    home = tmp_path / "runs"
    home.mkdir()
    subprocess.run(["chown", "12345:12345", str(home)], check=True)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    done = images.docker(
        "run", "--rm", "--user", "12345:12345", "--volume", f"{home}:/runs", "lmoe-tune",
        "lmoe-tune", "search", "digits", "--trials", "1", *SMALL, "--json", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "complete"
    assert (home / "sweeps" / "digits" / "ledger.jsonl").stat().st_uid == 12345


def test_docker_stop_interrupts_a_search_and_the_next_container_resumes_it(images: Engine) -> None:
    volume = ("--volume", f"stopped-{secrets.token_hex(3)}:/runs")
    name = f"stopped-{secrets.token_hex(3)}"
    images.docker(
        "run", "--detach", "--init", "--name", name, *volume, "lmoe-tune",
        "lmoe-tune", "search", "digits", "--trials", "2", *LONG,
    )  # fmt: skip
    look = ("exec", name, "bash", "-c", "cat /runs/sweeps/digits/trials/*/metrics.jsonl | wc -l")
    wait_until(
        lambda: int(images.docker(*look, check=False).stdout.strip() or 0) >= 1, "an epoch is done"
    )
    images.docker("stop", "--time", "30", name)
    assert images.docker("wait", name).stdout.strip() == "130"
    said = images.docker("logs", name)
    assert "lmoe-tune resume digits" in said.stderr
    images.docker("rm", name)

    done = images.docker(
        "run", "--rm", *volume, "lmoe-tune", "lmoe-tune", "resume", "digits", "--json"
    )
    assert json.loads(done.stdout)["trials"]["complete"] == 2


def test_a_sweep_runs_on_the_workers_and_mlflow_shows_every_trial(cluster: Cluster) -> None:
    search = ("search", "digits", "--name", "first", "--trials", "4", *SMALL, "--address", "auto")
    done = cluster.run("lmoe-tune", *search, "--json")
    found = json.loads(done.stdout)
    assert (found["state"], found["trials"]["complete"]) == ("complete", 4)

    runs = _runs(cluster, found["experiment_id"], found["parent_run_id"])
    assert len(runs) == 4
    workers = {
        cluster.engine.docker("inspect", "--format", "{{.Config.Hostname}}", name).stdout.strip()
        for name in (cluster.container("worker", 1), cluster.container("worker", 2))
    }
    hosts = _hosts(cluster, "first", 4)
    assert hosts and hosts <= workers


def test_without_the_token_nobody_joins(cluster: Cluster) -> None:
    done = cluster.engine.docker(
        "exec", "-e", "RAY_AUTH_TOKEN=" + "0" * 64, cluster.container("head"),
        "lmoe-tune", "search", "digits", "--name", "thief", "--trials", "1", "--address", "auto",
        check=False,
    )  # fmt: skip
    assert done.returncode not in (0, 130)
    assert "Traceback" not in done.stderr


def test_a_worker_that_dies_comes_back_and_nothing_is_lost(cluster: Cluster) -> None:
    driver = cluster.start(
        "lmoe-tune", "search", "digits", "--name", "second", "--trials", "2", *LONG, "--address", "auto"
    )  # fmt: skip
    wait_until(lambda: cluster.epochs("second") >= 2, "epochs are done")
    cluster.engine.kill_main_process(cluster.container("worker", 1))
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    assert cluster.status("second")["trials"]["complete"] == 2
    wait_until(lambda: cluster.num_nodes() == 3, "the worker has rejoined")


def test_a_head_that_dies_comes_back_with_its_workers_and_the_sweep_resumes(
    cluster: Cluster,
) -> None:
    driver = cluster.start(
        "lmoe-tune", "search", "digits", "--name", "third", "--trials", "2", *LONG, "--address", "auto"
    )  # fmt: skip
    wait_until(lambda: cluster.epochs("third") >= 2, "epochs are done")
    before = cluster.epochs("third")
    cluster.engine.kill_main_process(cluster.container("head"))
    driver.communicate(timeout=120)
    assert driver.returncode != 0
    wait_until(lambda: cluster.num_nodes() == 3, "the workers have found the new head", 400)

    assert cluster.epochs("third") >= before
    done = cluster.run("lmoe-tune", "resume", "third", "--address", "auto", "--json")
    found = json.loads(done.stdout)
    assert (found["state"], found["trials"]["complete"]) == ("complete", 2)
    assert len(_runs(cluster, found["experiment_id"], found["parent_run_id"])) == 2


def _runs(cluster: Cluster, experiment: str, parent: str) -> list[dict[str, Any]]:
    """A sweep's trials as MLflow's API has them, asked from within the network."""
    ask = (
        "import json, sys, urllib.request\n"
        "body = {'experiment_ids': [sys.argv[1]], 'max_results': 1000,\n"
        "        'filter': f\"tags.`mlflow.parentRunId` = '{sys.argv[2]}' AND tags.`lmoe_tune.kind` = 'trial'\"}\n"
        "url = 'http://mlflow:5000/api/2.0/mlflow/runs/search'\n"
        "headers = {'Content-Type': 'application/json'}\n"
        "request = urllib.request.Request(url, json.dumps(body).encode(), headers)\n"
        "print(urllib.request.urlopen(request).read().decode())\n"
    )
    done = cluster.run("python", "-c", ask, str(experiment), parent)
    found: list[dict[str, Any]] = json.loads(done.stdout).get("runs", [])
    return found


def _hosts(cluster: Cluster, name: str, trials: int) -> set[str]:
    """The hosts that a sweep's trials ran on, from their records."""
    hosts = set()
    for number in range(trials):
        record = cluster.run("cat", f"/runs/sweeps/{name}/trials/{number}/trial.json").stdout
        hosts.add(str(json.loads(record).get("host")))
    return hosts
