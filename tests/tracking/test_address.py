from __future__ import annotations

from pathlib import Path

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.tracking import default_uri, shown
from lmoe_tune.tracking.address import sqlite_path, without_secrets


def test_the_default_store_is_a_file_in_the_home(tmp_path: Path) -> None:
    assert default_uri(tmp_path / "runs") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert sqlite_path(default_uri(tmp_path)) == tmp_path / "mlflow.db"


def test_the_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.lab:5000")
    assert default_uri(tmp_path) == "https://mlflow.lab:5000"


def test_a_home_that_no_url_can_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must have no '\\?' in it"):
        default_uri(tmp_path / "what?")


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
