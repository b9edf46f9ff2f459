"""The process that delivers a sweep to MLflow: it reads the ledger, again and again, and projects
what has changed.

It runs beside the driver's event loop (`lmoe_tune.sweep.projector` starts it), so nothing that a
tracking server does or fails to do reaches the trials. What it learns it tells the driver, one JSON
object a line.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmoe_tune.errors import LmoeTuneError, TrackingError, TrackingRefusedError
from lmoe_tune.processes import die_with_parent, message_pipe
from lmoe_tune.sweep import picture, tracked
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.tracked import Tracked
from lmoe_tune.sweep.view import read_sweep
from lmoe_tune.tracking import CheckpointGoneError, Delivered, Projection, shown

POLL_S = 2.0  # a call costs some 10 ms of CPU that trials could use
PASS_S = 2.0  # then the ledger is read again, and the driver gets the news
MAX_PAUSE_S = 15.0  # between attempts, while the server is unreachable
MAX_REFUSED_PAUSE_S = 60.0  # while it refuses: somebody may fix it
MODEL_INTERVAL_S = 60.0  # a better trial may come; a checkpoint can weigh hundreds of megabytes
PATIENCE_S = 20.0  # with a server that is unreachable at the end
AFTER_KILL = "--after-kill"

Tell = Callable[[dict[str, Any]], None]


def deliver(
    ledger: Ledger,
    tracking_uri: str,
    tell: Tell,
    finishing: Callable[[float], bool],
    *,
    after_kill: bool = False,
) -> None:
    """Project the ledger into MLflow until `finishing` says that the sweep's process is done.

    Args:
        tell: takes `away` or `refused` (why nothing can be delivered now), `lines` of what was
            learnt (`lmoe_tune.sweep.tracked`), with `delivered` once they are all, `left` of how
            many trials when the sweep has ended, and `message` for the user.
        finishing: waits up to that many seconds; True once nothing more will be recorded.
        after_kill: deliver although the last run has not recorded its end.
    """
    delivery = _Delivery(ledger, tracking_uri, tell)
    give_up: float | None = None
    done = False
    while True:
        done = done or finishing(delivery.pause_s)
        if done and give_up is None:
            give_up = time.monotonic() + PATIENCE_S
            if ledger.run_is_open() and not after_kill:
                return  # the driver died; the next resume continues from here

        if delivery.attempt(done=done):
            if delivery.is_whole:
                return
            if give_up is not None:  # it continues, however long it takes
                give_up = time.monotonic() + PATIENCE_S
        elif give_up is not None:
            if delivery.is_refused or time.monotonic() > give_up:
                return
            time.sleep(0.5)


class _Delivery:
    """The delivery of one sweep to one store.

    Attributes:
        pause_s: how long to wait before the next attempt.
        is_refused: the last attempt was refused, so waiting does not help.
        is_whole: MLflow has everything, and nothing will be added.
    """

    def __init__(self, ledger: Ledger, tracking_uri: str, tell: Tell) -> None:
        self.pause_s = 0.0  # MLflow is imported while Ray starts, which mostly waits
        self.is_refused = False
        self.is_whole = False
        self._ledger = ledger
        self._tell = tell
        self._server = shown(tracking_uri)
        self._known = tracked.tracked(ledger.folder, tracking_uri)
        # A confirmation's first runs go where those of its sweep are.
        whole = tracked.tracked(ledger.folder.whole, tracking_uri)
        self._called = self._known.called or whole.called
        place = self._known.place or whole.place
        self._projection = Projection(tracking_uri, ledger.folder.home / "mlartifacts", place)
        self._models_due = time.monotonic() + MODEL_INTERVAL_S
        self._in_trouble = ""

    def attempt(self, *, done: bool) -> bool:
        """Deliver for a while; False if MLflow cannot be used.

        Args:
            done: nothing more will be recorded.
        """
        state = self._ledger.outcome if done else "running"
        with_models = done or time.monotonic() > self._models_due
        models = picture.models(self._ledger) if with_models else ()
        snapshot = picture.snapshot(self._ledger, state)
        try:
            found = self._projection.project(snapshot, models, limit_s=PASS_S)
        except CheckpointGoneError:
            return False  # says nothing about MLflow: the sweep has found a better one meanwhile
        except TrackingError as error:
            self._take_trouble(error)
            return False

        self.is_refused = False
        self.is_whole = done and not found.num_left
        self.pause_s = 0.0 if found.num_left else POLL_S
        if with_models and not found.num_left:
            self._models_due = time.monotonic() + MODEL_INTERVAL_S
        self._take_success(snapshot.experiment, found, done=done)
        return True

    def _take_trouble(self, error: TrackingError) -> None:
        self.is_refused = isinstance(error, TrackingRefusedError)
        kind, longest = "away", MAX_PAUSE_S
        if self.is_refused:
            kind, longest = "refused", MAX_REFUSED_PAUSE_S
        if kind != self._in_trouble:
            self._tell({kind: str(error)})
        self._in_trouble = kind
        self.pause_s = min(max(POLL_S, 2 * self.pause_s), longest)

    def _take_success(self, experiment: str, found: Delivered, *, done: bool) -> None:
        lines = _news(experiment, found, self._known)
        if self.is_whole:
            lines.append({"runs": self._ledger.num_runs()})
        if lines or self._in_trouble:
            marked = [{"server": self._server, **line} for line in lines]
            self._tell({"lines": marked, "delivered": self.is_whole})
        if done:
            self._tell({"left": found.num_left})
        for sentence in found.said:
            self._tell({"message": sentence})
        if found.called not in (experiment, self._called):
            is_called = f"the experiment '{experiment}' is called '{found.called}' in MLflow"
            self._tell({"message": f"{is_called}; the sweep's runs stay in it"})
        self._called = found.called
        self._in_trouble = ""


def _news(experiment: str, found: Delivered, known: Tracked) -> list[dict[str, Any]]:
    """What is new in `found`, a line each; it counts as known from now on."""
    lines: list[dict[str, Any]] = []
    place = {
        "experiment": experiment,
        "called": found.called,
        "experiment_id": found.experiment_id,
        "parent_run_id": found.parent_run_id,
    }
    if place != {name: getattr(known, name) for name in place}:
        lines.append(place)
    for number, run_id in found.run_ids.items():
        if known.run_ids.get(number) != run_id:
            lines.append({"trial": number, "run_id": run_id})
    if found.models != known.models:
        lines.append({"models": found.models})

    for line in lines:
        known.take(line)
    return lines


def main() -> None:
    """The process: its arguments are the home and the sweep's name; MLFLOW_TRACKING_URI is the
    server.
    """
    die_with_parent()  # in the middle of a request too, so that a resume is alone with the server
    home, name, *after_kill = sys.argv[1:]
    ledger = read_sweep(SweepFolder(Path(home), name))
    tell = message_pipe()

    def finishing(seconds: float) -> bool:
        readable, _, _ = select.select([sys.stdin], [], [], seconds)
        return bool(readable)  # nothing is ever sent: the pipe was closed, or the driver died

    uri = os.environ["MLFLOW_TRACKING_URI"]
    try:
        deliver(ledger, uri, tell, finishing, after_kill=bool(after_kill))
    except BrokenPipeError:
        pass  # the driver died
    except Exception as error:
        # The text of another error than ours may hold the server's password.
        why = str(error) if isinstance(error, LmoeTuneError) else type(error).__name__
        tell({"message": f"MLflow: {why}"})
        raise

    sys.stderr.flush()
    os._exit(0)  # the driver waits for the end, and taking MLflow down takes .8 s
