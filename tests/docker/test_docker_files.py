"""The container files, as far as they can be checked without containers; test_images.py runs them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def test_what_the_compose_file_refers_to_exists(services: dict[str, dict[str, Any]]) -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    assert set(services) == {"postgres", "mlflow", "head", "worker"}
    for service in services.values():
        if "build" in service:
            context = DOCKER / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).resolve().parent == DOCKER
        assert set(service.get("depends_on", {})) <= set(services)
        named = {mount.partition(":")[0] for mount in service["volumes"] if mount[0] not in "$./"}
        assert named <= set(compose["volumes"])
        assert all(isinstance(word, str) for word in service.get("command", []))
        assert all(isinstance(value, str) for value in service["environment"].values())
    gpu = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text(encoding="utf-8"))
    assert set(gpu["services"]) <= set(services)


def test_every_container_comes_back_has_time_to_end_and_a_limit_of_memory(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert service["stop_grace_period"], name
        assert service["mem_limit"], name


def test_no_secret_is_shipped_and_no_port_is_open_to_the_network(
    services: dict[str, dict[str, Any]],
) -> None:
    for service in services.values():
        for name in ("RAY_AUTH_TOKEN", "POSTGRES_PASSWORD"):
            value = service["environment"].get(name, "${")
            assert value.startswith("${")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    assert re.search(r"^RAY_AUTH_TOKEN=$", example, re.MULTILINE)
    assert re.search(r"^POSTGRES_PASSWORD=$", example, re.MULTILINE)


def test_every_variable_of_the_compose_file_is_explained_in_the_example() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{([A-Z_]+)", text))
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    explained = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    assert used <= explained | {"HEAD_CPUS"}


@pytest.mark.parametrize("name", ["Dockerfile", "mlflow.Dockerfile"])
def test_everything_that_a_dockerfile_copies_exists_and_is_sent_to_the_builder(name: str) -> None:
    ignore = (DOCKER / f"{name}.dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in ignore if line.startswith("!")}
    copied = []
    for line in (DOCKER / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY "):
            copied += shlex.split(line)[1:-1]
    assert copied
    assert set(copied) == sent
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_the_tracking_server_is_told_the_database_driver_that_its_image_has(
    services: dict[str, dict[str, Any]],
) -> None:
    """Of the scheme alone SQLAlchemy makes the driver of its own version."""
    scheme = services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"].partition("://")[0]
    driver = scheme.partition("+")[2]
    installed = (DOCKER / "mlflow.Dockerfile").read_text(encoding="utf-8")
    assert driver and f"{driver}-binary" in installed.split()
