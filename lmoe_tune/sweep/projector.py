"""Tracking beside the event loop, on the driver's side: starts the process that delivers, and
receives its messages.

The process itself is `lmoe_tune.sweep.delivery`. The ids that it tells are written down beside the
ledger (`lmoe_tune.sweep.tracked`), and what the user should know is passed on, once.
"""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from typing import Any

from lmoe_tune.errors import TrackingRefusedError
from lmoe_tune.processes import JsonProcess
from lmoe_tune.sweep import tracked
from lmoe_tune.sweep.delivery import AFTER_KILL, PATIENCE_S, deliver
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.observer import Observer
from lmoe_tune.tracking.address import without_secrets

RESTART_INTERVAL_S = 30.0
"""From one start of the process to the next, doubled each time: a start takes 2 s of CPU."""
DELIVERING = "delivering trials to MLflow"
_LOOK_S = 0.2  # at what it tells, while it is waited for


class Reception:
    """Receives messages for the driver: records the ids it is told, and tells the user each thing
    once.

    Attributes:
        delivered: MLflow has everything.
        refusal: what MLflow said when it refused, until something was delivered.
        progress: rises with each thing that was delivered.
    """

    def __init__(self, folder: SweepFolder, observer: Observer) -> None:
        self.delivered = False
        self.refusal: str | None = None
        self.progress = 0
        self._folder = folder
        self._observer = observer
        self._backlog = 0
        self._said: set[str] = set()
        self._times_away = 0
        self._is_away = False

    def take(self, told: dict[str, Any]) -> None:
        """One message of the delivery: see `deliver`."""
        if "message" in told:
            self.say(told["message"])
        if "refused" in told:
            self.refusal = told["refused"]
            self.say(f"{self.refusal}; no record is lost: MLflow gets them once that is fixed")
        if "away" in told and not self._is_away:
            self._is_away = True
            self._times_away += 1
            if self._times_away == 1:  # a server that comes and goes is not news
                self.say(f"{told['away']}; no record is lost: MLflow gets them later")
        if "lines" in told:
            self._take_lines(told["lines"])
        if "left" in told:
            self._take_left(told["left"])
        if told.get("delivered"):
            self.delivered = True
            if self._times_away > 1:
                self.say(f"MLflow was unreachable {self._times_away} times; now it has everything")

    def say(self, text: str) -> None:
        """Tell the user something, unless it was told before."""
        if text not in self._said:
            self._said.add(text)
            self._observer.on_message(text)

    def _take_lines(self, lines: list[dict[str, Any]]) -> None:
        if self._is_away and self._times_away == 1:
            self.say("MLflow is back")
        if self.refusal is not None:
            self.say("MLflow accepts the records again")
        self._is_away, self.refusal = False, None
        self.progress += 1
        tracked.append(self._folder, lines)

    def _take_left(self, left: int) -> None:
        self.progress += 1
        self._backlog = max(self._backlog, left)
        if self._backlog:
            self._observer.on_work(DELIVERING, self._backlog - left, self._backlog)


class Projector:
    """Starts the process, passes on what it says, and waits for it at the end.

    A process that is killed or fails is started again.
    """

    def __init__(
        self,
        ledger: Ledger,
        tracking_uri: str,
        observer: Observer,
        *,
        after_kill: bool = False,
    ) -> None:
        """Start the process.

        Args:
            after_kill: deliver although the last run has not recorded its end.
        """
        folder = ledger.folder
        tracked.remember_address(folder, ledger.spec)
        self._reception = Reception(folder, observer)
        self._told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._arguments = [str(folder.home), folder.name]
        if after_kill:
            self._arguments.append(AFTER_KILL)
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

    def refuse_to_start(self) -> None:
        """Raise what MLflow has refused so far; called before the first trial.

        Raises:
            TrackingRefusedError: says what to fix.
        """
        self.collect()
        if self._reception.refusal is not None:
            raise TrackingRefusedError(self._reception.refusal)

    def collect(self) -> None:
        """Read the process's new messages, and start it again if it died."""
        self._take_told()
        if (
            not self._finishing
            and self._process.poll() is not None
            and time.monotonic() > self._restart_at
        ):
            self._process.close()
            self._say_died()
            self._start()

    def finish_soon(self) -> None:
        """Have it deliver the rest: nothing more will be recorded."""
        self._finishing = True
        self._process.take_turns()  # somebody waits for it
        self._process.close()

    def finish(self, patience_s: float, *, while_it_goes_on: bool = True) -> None:
        """Wait until it has delivered, and collect what it says; it is ended if that takes too
        long.

        Args:
            patience_s: how long to wait.
            while_it_goes_on: counted from the last thing that it delivered, and not in all.
        """
        give_up = time.monotonic() + patience_s
        self.finish_soon()
        status = self._wait(patience_s, while_it_goes_on=while_it_goes_on)
        if status != 0 and not self.delivered and time.monotonic() < give_up:
            self._say_died()
            self._start()
            self.finish_soon()
            self._wait(give_up - time.monotonic(), while_it_goes_on=while_it_goes_on)

    def _start(self) -> None:
        self._process = JsonProcess(
            "lmoe_tune.sweep.delivery",
            *self._arguments,
            environment=self._environment,
            own_session=True,  # Ctrl-C in a terminal is for the driver; this one ends with it
        )
        if not self._finishing:
            self._process.give_way()  # on a full machine the trials come first
        self._restart_at = time.monotonic() + self._restart_interval_s
        self._restart_interval_s *= 2
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()

    def _say_died(self) -> None:
        how = without_secrets(
            self._process.how_it_ended(), self._environment["MLFLOW_TRACKING_URI"]
        )
        self._reception.say(f"the process that delivers to MLflow {how}; another one takes over")

    def _wait(self, patience_s: float, *, while_it_goes_on: bool) -> int:
        """Wait until the process has ended, or end it; returns its exit status."""
        give_up = time.monotonic() + patience_s
        progress = self._reception.progress
        while time.monotonic() < give_up:
            try:
                self._process.wait(min(_LOOK_S, max(0.0, give_up - time.monotonic())))
                break
            except subprocess.TimeoutExpired:
                self._take_told()
            if while_it_goes_on and self._reception.progress != progress:
                progress, give_up = self._reception.progress, time.monotonic() + patience_s
        else:
            self._process.kill()

        status = self._process.wait()
        self._listener.join(timeout=1.0)
        self._take_told()
        return status

    def _take_told(self) -> None:
        while not self._told.empty():
            self._reception.take(self._told.get())

    def _listen(self, process: JsonProcess) -> None:
        for message in process.messages():
            self._told.put(message)


def sync(ledger: Ledger, tracking_uri: str, observer: Observer) -> bool:
    """Deliver a sweep that no other process works on; True if MLflow then has everything.

    The caller holds the sweep's lock. It takes as long as the server needs, if it answers at all.

    Raises:
        TrackingRefusedError: waiting does not help; the message says what to fix.
    """
    reception = Reception(ledger.folder, observer)

    def take(told: dict[str, Any]) -> None:
        if "refused" in told:
            raise TrackingRefusedError(told["refused"])
        reception.take(told)

    deliver(ledger, tracking_uri, take, finishing=lambda seconds: True, after_kill=True)
    return reception.delivered


def deliver_rest(ledger: Ledger, tracking_uri: str, observer: Observer) -> bool:
    """The same with the patience of a sweep's end, whatever the server does."""
    projector = Projector(ledger, tracking_uri, observer, after_kill=True)
    projector.finish(PATIENCE_S)
    return projector.delivered
