"""One plain request to a tracking server, with the proxies, certificates and credentials that
MLflow would use.

MLflow distinguishes a login page, a 502 and a 407 only by their text, so where it matters the
server is asked here, which needs no import of MLflow either.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requests import Response

TIMEOUT_S = 4.0
_SEARCH = "/api/2.0/mlflow/experiments/search"
_BY_NAME = "/api/2.0/mlflow/experiments/get-by-name"
_SAID_IN = ("message", "Message", "detail")  # of MLflow, of API gateways, of FastAPI


@dataclass(frozen=True)
class Answer:
    """What a server answered; `body` is its JSON object, `message` what an error in JSON says."""

    status: int
    body: dict[str, Any] | None

    @classmethod
    def of(cls, response: Response) -> Answer:
        """What a response says."""
        try:
            body = response.json()
        except ValueError:
            body = None

        return cls(response.status_code, body if isinstance(body, dict) else None)

    @property
    def is_fine(self) -> bool:
        return self.status == 200 and self.body is not None

    @property
    def is_unknown(self) -> bool:
        """Whether MLflow says that it has nothing of this name."""
        return (self.body or {}).get("error_code") == "RESOURCE_DOES_NOT_EXIST"

    @property
    def message(self) -> str | None:
        body = self.body or {}
        said = [body[name] for name in _SAID_IN if isinstance(body.get(name), str)]
        return next(filter(None, said), None)

    @property
    def experiments(self) -> list[dict[str, Any]]:
        """The experiments that it describes as MLflow does."""
        body = self.body or {}
        several = body.get("experiments")
        found = [body.get("experiment"), *(several if isinstance(several, list) else ())]
        return [one for one in found if isinstance(one, dict) and one.get("experiment_id")]


def request(uri: str, experiment: str | None = None) -> Answer:
    """Ask for an experiment, or for any.

    Raises:
        requests.RequestException: nobody answers.
    """
    import requests

    path, asked = _SEARCH, {"max_results": "1"}
    if experiment is not None:
        path, asked = _BY_NAME, {"experiment_name": experiment}
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{one}") for one in ("USERNAME", "PASSWORD"))
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    answer = requests.get(
        uri.rstrip("/") + path,
        params=asked,
        timeout=TIMEOUT_S,
        auth=(user, password or "") if user else None,  # else those in the address
        headers={"Authorization": f"Bearer {token}"} if token and not user else None,
        verify=_certificates(),
        cert=os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
    )
    return Answer.of(answer)


def has_other_credentials() -> bool:
    """Whether MLflow would sign its requests in a way that is not known here."""
    named = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")
    file = os.path.expanduser("~/.mlflow/credentials")
    return any(os.environ.get(name) for name in named) or os.path.exists(file)


def _certificates() -> bool | str:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
