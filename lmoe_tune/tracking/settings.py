"""What MLflow is set to while we talk to it.

It reads its settings from the environment of the process, which is the user's: a notebook that
tracks runs of its own must not find them changed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LOGGING_LEVEL = "MLFLOW_LOGGING_LEVEL"
# What a user has set stays. MLflow reads these at each call.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # The projection tries again by itself, so an unreachable server must not hold it for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # nor for as long as it likes
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout holds data only, and that URL its password
    LOGGING_LEVEL: "CRITICAL",  # what it logs as an error it also raises; its log knows the password
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # it would copy the uv.lock of the working directory into the models
}


# Of these loggers MLflow sets the level when it is imported; as it would by itself.
_LEVELS = {"mlflow": logging.INFO, "alembic": logging.WARNING, "huey": logging.WARNING}


class _Settings:
    """Our settings in the environment, for as long as any thread needs them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_users = 0
        self._names: list[str] = []
        self._levels: dict[str, int] = {}

    def take(self) -> None:
        with self._lock:
            if self._num_users == 0:
                self._set()
            self._num_users += 1

    def give_back(self) -> None:
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0:
                self._unset()

    def _set(self) -> None:
        self._names = [name for name in SETTINGS if name not in os.environ]
        os.environ.update({name: SETTINGS[name] for name in self._names})
        self._levels = {}
        if LOGGING_LEVEL in self._names:
            for name, default in _LEVELS.items():
                self._levels[name] = logging.getLogger(name).level or default
                logging.getLogger(name).setLevel(SETTINGS[LOGGING_LEVEL])

    def _unset(self) -> None:
        for name in self._names:
            os.environ.pop(name, None)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


_settings = _Settings()


@contextmanager
def held() -> Iterator[None]:
    """Our settings hold within; afterwards the process, and MLflow in it, are as they were."""
    _settings.take()
    try:
        yield
    finally:
        _settings.give_back()
