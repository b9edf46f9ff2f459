from __future__ import annotations

from pathlib import Path

import pytest

from lmoe_tune.tracking import default_uri, shown
from lmoe_tune.tracking.address import absolute, sqlite_path, sqlite_uri, without_secrets


def test_the_default_store_is_a_file_in_the_home(tmp_path: Path) -> None:
    assert default_uri(tmp_path / "runs") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert sqlite_path(default_uri(tmp_path)) == tmp_path / "mlflow.db"


def test_the_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.lab:5000")
    assert default_uri(tmp_path) == "https://mlflow.lab:5000"


@pytest.mark.parametrize("name", ["a%20b", "100%", "a%2Fb", "a#b", "a?b", "a b", "Vögel", "a@b:c"])
def test_a_file_of_any_name_has_an_address_that_leads_back_to_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "mlflow.db"
    assert sqlite_path(sqlite_uri(path)) == path
    assert shown(sqlite_uri(path)) == sqlite_uri(path)


def test_a_relative_file_is_taken_from_the_folder_that_is_named(tmp_path: Path) -> None:
    assert absolute("sqlite:///runs/mlflow.db", tmp_path) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert absolute("sqlite:///m.db?timeout=9", tmp_path) == f"sqlite:///{tmp_path}/m.db?timeout=9"
    for uri in ("sqlite:////var/m.db", "https://mlflow.lab", "sqlite:///:memory:", "sqlite://"):
        assert absolute(uri, tmp_path) == uri


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("http://127.0.0.1:5000/mlflow", "http://127.0.0.1:5000/mlflow"),
        ("https://ann:hunter2@mlflow.lab/x", "https://mlflow.lab/x"),
        ("https://hunter2@mlflow.lab", "https://mlflow.lab"),
        (
            "postgresql+psycopg2://ann:hunter2@db:5432/mlflow",
            "postgresql+psycopg2://db:5432/mlflow",
        ),
        ("postgresql://ann:hun/ter?2#@db/mlflow", "postgresql://db/mlflow"),
        ("postgresql://ann:h@nter2@db/mlflow", "postgresql://db/mlflow"),
        ("https://mlflow.lab/?access_token=hunter2&team=cars", "https://mlflow.lab/?team=cars"),
        ("postgresql://db/mlflow?user=ann&password=hunter2", "postgresql://db/mlflow"),
        ("databricks", "databricks"),
    ],
)
def test_an_address_is_shown_without_its_secrets(uri: str, expected: str) -> None:
    assert shown(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://ann:hunter2@db/mlflow",
        "postgresql://ann:hun%2Fter@db/mlflow",
        "https://db/?token=hunter2",
    ],
)
def test_a_message_of_a_library_loses_the_secrets_in_it(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3same")
    message = f"cannot reach {uri}\nwith hunter2, hun/ter, hun%2Fter and s3same"
    cleaned = without_secrets(message, uri)
    assert "cannot reach" in cleaned
    assert "\n" not in cleaned
    assert "s3same" not in cleaned
    secret = uri.rpartition("=")[2] if "=" in uri else uri.split(":")[2].split("@")[0]
    assert secret not in cleaned
    assert secret.replace("%2F", "/") not in cleaned
