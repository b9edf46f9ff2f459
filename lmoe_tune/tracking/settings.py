"""What MLflow is set to while we talk to it.

It reads its settings from the environment of the process, which is the user's: a notebook that
tracks runs of its own must not find them changed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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


_lock = threading.Lock()
_num_users = 0  # threads that need them now
_undo = ExitStack()


@contextmanager
def held() -> Iterator[None]:
    """Our settings hold within; afterwards the process, and MLflow in it, are as they were."""
    global _num_users
    with _lock:
        if _num_users == 0:
            _set()
        _num_users += 1
    try:
        yield
    finally:
        with _lock:
            _num_users -= 1
            if _num_users == 0:
                _undo.close()


def _set() -> None:
    missing = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    os.environ.update(missing)
    for name in missing:
        _undo.callback(os.environ.pop, name, None)
    if LOGGING_LEVEL in missing:
        for name, default in _LEVELS.items():
            log = logging.getLogger(name)
            _undo.callback(log.setLevel, log.level or default)
            log.setLevel(SETTINGS[LOGGING_LEVEL])
