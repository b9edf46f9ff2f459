"""What asking a store comes to, for the tests."""

from __future__ import annotations

from typing import NamedTuple

from lmoe_tune.errors import TrackingAwayError, TrackingError
from lmoe_tune.tracking import ask


class Found(NamedTuple):
    state: str
    why: str = ""
    caution: str | None = None


def probe(uri: str, experiment: str | None = None) -> Found:
    try:
        return Found("ready", caution=ask(uri, experiment))
    except TrackingAwayError as error:
        return Found("away", str(error))
    except TrackingError as error:
        return Found("refused", str(error))
