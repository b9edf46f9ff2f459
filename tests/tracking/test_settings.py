"""What we set for MLflow holds while we talk to it, and leaves the process as it was."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import pytest

from lmoe_tune.snapshot import SweepSnapshot
from lmoe_tune.tracking import Projection, settings
from lmoe_tune.tracking.settings import LOGGING_LEVEL, SETTINGS
from lmoe_tune.tracking.uploads import _tracking_at

pytestmark = pytest.mark.timeout(120)
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name)


def test_they_hold_until_the_last_one_is_done_and_what_a_user_set_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(RETRIES, "9")
    log = logging.getLogger("mlflow")
    monkeypatch.setattr(log, "level", logging.DEBUG)
    before = dict(os.environ)

    with settings.held():
        with settings.held():
            pass
        assert os.environ.items() >= (SETTINGS | {RETRIES: "9"}).items()
        assert log.level == logging.CRITICAL

    assert dict(os.environ) == before
    assert log.level == logging.DEBUG


def test_a_level_of_the_users_for_its_log_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOGGING_LEVEL, "DEBUG")
    log = logging.getLogger("mlflow")
    monkeypatch.setattr(log, "level", logging.DEBUG)
    with settings.held():
        assert log.level == logging.DEBUG


def test_a_delivery_leaves_nothing_set(uri: str, sweep: Callable[..., SweepSnapshot]) -> None:
    before = dict(os.environ)
    Projection(uri).project(sweep())
    assert dict(os.environ) == before


@pytest.mark.parametrize("address", [None, "http://of.the.user:5000"])
def test_where_the_process_tracks_is_as_before(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    if address is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    before = mlflow.get_tracking_uri()
    with _tracking_at("sqlite:///ours.db"):
        assert mlflow.get_tracking_uri() == "sqlite:///ours.db"
    assert mlflow.get_tracking_uri() == before
    assert os.environ.get("MLFLOW_TRACKING_URI") == address
