"""The container files, as far as they can be checked without containers."""

import shlex
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


def test_the_compose_file_is_yaml_whose_references_exist() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    services, volumes = compose["services"], compose["volumes"]
    assert set(services) == {"mlflow", "head", "worker"}
    for service in services.values():
        assert (
            DOCKER / service["build"]["context"] / service["build"]["dockerfile"]
        ).resolve() == DOCKER / "Dockerfile"
        assert set(service.get("depends_on", {})) <= set(services)
        assert {mount.partition(":")[0] for mount in service["volumes"]} <= set(volumes)
        assert all(isinstance(word, str) for word in service["command"])
        assert all(isinstance(value, str) for value in service["environment"].values())


def test_no_token_is_shipped_and_no_port_is_open_to_the_network() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for service in services.values():
        assert (
            service["environment"]
            .get("RAY_AUTH_TOKEN", "${RAY_AUTH_TOKEN:?")
            .startswith("${RAY_AUTH_TOKEN:?")
        )
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_everything_that_the_dockerfile_copies_exists_and_is_sent_to_the_builder() -> None:
    sent = {
        line[1:]
        for line in (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = [
        source
        for line in (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if line.startswith("COPY ")
        for source in shlex.split(line)[1:-1]
    ]
    assert copied
    assert set(copied) == sent
    assert [source for source in copied if not (ROOT / source).exists()] == []
