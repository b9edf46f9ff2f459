"""Tracking beside the event loop: a process of its own reads the ledger and projects it into MLflow.

Nothing that a tracking server does or fails to do reaches the trials. The driver hears, over a pipe, which
runs there are, and writes their ids into the ledger.
"""

from __future__ import annotations

import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmoe_tune.errors import LmoeTuneError, TrackingError
from lmoe_tune.processes import JsonProcess, die_with_parent, message_pipe
from lmoe_tune.sweep import tracked
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.tracked import Tracked
from lmoe_tune.tracking import CheckpointGoneError, Delivered, Projection, shown
from lmoe_tune.tracking.address import without_secrets

POLL_S = 2.0  # a call costs some 10 ms of CPU that trials could use
MAX_PAUSE_S = 15.0  # between attempts, while the server is away
MODEL_INTERVAL_S = (
    60.0  # a better trial may come soon; a checkpoint can weigh hundreds of megabytes
)
PATIENCE_S = 20.0  # with a server that is away at the end
RESTART_INTERVAL_S = (
    30.0  # from one start of the process to the next, doubled each time: a start takes 2 s of CPU
)
AFTER_KILL = "--after-kill"


class Reception:
    """The driver's ear: writes down the ids it is told, and tells the user each thing once."""

    def __init__(self, folder: SweepFolder, on_message: Callable[[str], None]) -> None:
        self.delivered = False
        self._folder = folder
        self._on_message = on_message
        self._said: set[str] = set()
        self._times_away = 0
        self._is_away = False

    def take(self, told: dict[str, Any]) -> None:
        """One thing that the projection tells: see `deliver`."""
        if "message" in told:
            self.say(told["message"])
        if "away" in told and not self._is_away:
            self._is_away = True
            self._times_away += 1
            if self._times_away == 1:  # a server that comes and goes is no news
                self.say(
                    f"MLflow is away ({told['away']}); it is waited for, nothing is held up or lost"
                )
        if "lines" in told:
            if self._is_away and self._times_away == 1:
                self.say("MLflow is back")
            self._is_away = False
            tracked.append(self._folder, told["lines"])
        if told.get("delivered"):
            self.delivered = True
            if self._times_away > 1:
                self.say(f"MLflow was away {self._times_away} times; now it has everything")

    def say(self, text: str) -> None:
        """Tell the user something, unless it was told before."""
        if text not in self._said:
            self._said.add(text)
            self._on_message(text)


class Projector:
    """The driver's side: starts the process, passes on what it says, and waits for it at the end.

    A process that is killed or fails is started again.
    """

    def __init__(
        self,
        ledger: Ledger,
        tracking_uri: str,
        on_message: Callable[[str], None],
        *,
        after_kill: bool = False,
    ) -> None:
        """Start the process.

        Args:
            after_kill: deliver although the last run has not recorded its end.
        """
        self._reception = Reception(ledger.folder, on_message)
        self._told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        folder = ledger.folder
        tracked.remember_address(folder, ledger.spec)
        self._arguments = [str(folder.home), folder.name, *([AFTER_KILL] if after_kill else [])]
        # The address may hold a password: never an argument.
        self._environment = {"MLFLOW_TRACKING_URI": tracking_uri}
        self._restart_interval_s = RESTART_INTERVAL_S
        self._finishing = False
        self._start()

    @property
    def delivered(self) -> bool:
        """Whether MLflow has everything."""
        return self._reception.delivered

    @property
    def pid(self) -> int:
        """Of the process that delivers now."""
        return self._process.pid

    def collect(self) -> None:
        """Write into the ledger what the process has told since, and start it again if it died."""
        while not self._told.empty():
            self._reception.take(self._told.get())
        if (
            not self._finishing
            and self._process.poll() is not None
            and time.monotonic() > self._restart_at
        ):
            self._process.close()
            self._say_died()
            self._start()

    def finish_soon(self) -> None:
        """Let it deliver the rest: nothing more will be recorded."""
        self._finishing = True
        self._process.close()

    def finish(self, patience_s: float) -> None:
        """Wait until it has delivered, and collect what it says; it is ended if that takes too long."""
        give_up = time.monotonic() + patience_s
        self.finish_soon()
        if self._wait(patience_s) != 0 and not self.delivered and time.monotonic() < give_up:
            self._say_died()
            self._start()
            self.finish_soon()
            self._wait(give_up - time.monotonic())

    def _start(self) -> None:
        self._process = JsonProcess(
            "lmoe_tune.sweep.projector",
            *self._arguments,
            environment=self._environment,
            own_session=True,  # Ctrl-C in a terminal is for the driver; this one ends with it
        )
        self._restart_at = time.monotonic() + self._restart_interval_s
        self._restart_interval_s *= 2
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()

    def _say_died(self) -> None:
        how = without_secrets(
            self._process.how_it_ended(), self._environment["MLFLOW_TRACKING_URI"]
        )
        self._reception.say(f"the process that delivers to MLflow {how}; another one goes on")

    def _wait(self, patience_s: float) -> int:
        """Wait until the process has ended, or end it; returns its exit status."""
        try:
            self._process.wait(max(0.0, patience_s))
        except subprocess.TimeoutExpired:
            self._process.kill()
        status = self._process.wait()
        self._listener.join(timeout=1.0)
        self.collect()
        return status

    def _listen(self, process: JsonProcess) -> None:
        for message in process.messages():
            self._told.put(message)


def deliver(
    ledger: Ledger,
    tracking_uri: str,
    tell: Callable[[dict[str, Any]], None],
    finishing: Callable[[float], bool],
    *,
    after_kill: bool = False,
) -> None:
    """Project the ledger into MLflow until `finishing` says that the sweep's process is done.

    Args:
        tell: takes `away` (why MLflow cannot be used), `lines` of what was learnt (`lmoe_tune.sweep.tracked`),
            with `delivered` once they are all, and `message` for the user.
        finishing: waits up to that many seconds; True once nothing more will be recorded.
        after_kill: deliver although the last run has not recorded its end.
    """
    from lmoe_tune.sweep import picture

    projection = Projection(tracking_uri, ledger.folder.home / "mlartifacts")
    server = shown(tracking_uri)
    known = tracked.tracked(ledger.folder, tracking_uri)
    models_due = time.monotonic() + MODEL_INTERVAL_S
    give_up: float | None = None
    away = done = False
    pause_s = 0.0  # MLflow is imported while Ray starts, which mostly waits
    while True:
        done = done or finishing(pause_s)
        if done and give_up is None:
            give_up = time.monotonic() + PATIENCE_S
            if ledger.run_is_open() and not after_kill:
                return  # the driver died; whoever resumes goes on from here
        state = "running"
        if done:
            state = "complete" if ledger.is_complete() else "interrupted"
        with_models = done or time.monotonic() > models_due
        try:
            found = projection.project(
                picture.snapshot(ledger, state), picture.models(ledger) if with_models else ()
            )
        except TrackingError as error:
            # A checkpoint that is gone says nothing of MLflow: the sweep has found a better one meanwhile.
            if not isinstance(error, CheckpointGoneError):
                if not away:
                    tell({"away": str(error)})
                away = True
                pause_s = min(max(POLL_S, 2 * pause_s), MAX_PAUSE_S)
            if give_up is not None:
                if time.monotonic() > give_up:
                    return
                time.sleep(0.5)
            continue
        pause_s = POLL_S
        if with_models:
            models_due = time.monotonic() + MODEL_INTERVAL_S
        lines = _news(found, known)
        if done:
            lines.append({"runs": ledger.num_runs()})
        if lines or away:
            tell({"lines": [{"server": server, **line} for line in lines], "delivered": done})
        away = False
        if done:
            return


def _news(found: Delivered, known: Tracked) -> list[dict[str, Any]]:
    """What `found` says that was not known, a line each; it is known from now on."""
    lines: list[dict[str, Any]] = []
    place = {"experiment_id": found.experiment_id, "parent_run_id": found.parent_run_id}
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


def sync(ledger: Ledger, tracking_uri: str, on_message: Callable[[str], None]) -> bool:
    """Deliver a sweep that nobody works on, from this process; True when MLflow has everything.

    The caller holds the sweep's lock. It takes as long as the server needs, if it answers at all.
    """
    reception = Reception(ledger.folder, on_message)
    deliver(ledger, tracking_uri, reception.take, finishing=lambda seconds: True, after_kill=True)
    return reception.delivered


def deliver_rest(ledger: Ledger, tracking_uri: str, on_message: Callable[[str], None]) -> bool:
    """The same with the patience that one has at the end of a sweep, whatever the server does."""
    projector = Projector(ledger, tracking_uri, on_message, after_kill=True)
    projector.finish(PATIENCE_S)
    return projector.delivered


def main() -> None:
    """The process: its arguments are the home and the sweep's name; MLFLOW_TRACKING_URI is the server."""
    die_with_parent()  # in the middle of a request too, so that a resume is alone with the server
    from lmoe_tune.sweep import view

    os.nice(19)  # on a full machine the trials come first
    home, name, *after_kill = sys.argv[1:]
    ledger = view.read_sweep(SweepFolder(Path(home), name))
    tell = message_pipe()

    def finishing(seconds: float) -> bool:
        readable, _, _ = select.select([sys.stdin], [], [], seconds)
        return bool(readable)  # nothing is ever sent: the pipe was closed, or the driver died

    try:
        deliver(
            ledger, os.environ["MLFLOW_TRACKING_URI"], tell, finishing, after_kill=bool(after_kill)
        )
    except BrokenPipeError:
        pass  # the driver died
    except (
        Exception
    ) as error:  # an MLflow error's text may hold the server's password: ours does not
        tell(
            {
                "message": f"MLflow: {error if isinstance(error, LmoeTuneError) else type(error).__name__}"
            }
        )
        raise
