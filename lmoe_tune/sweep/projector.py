"""Tracking beside the event loop: a process of its own reads the ledger and projects it into MLflow.

Nothing that a tracking server does or fails to do reaches the trials. The driver hears, over a pipe, which
runs there are, and writes their ids into the ledger.
"""

from __future__ import annotations

import json
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
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger

POLL_S = 2.0  # a call costs some 10 ms of CPU that trials could use
MODEL_INTERVAL_S = 60.0  # a better trial may come soon; a checkpoint can weigh hundreds of megabytes
PATIENCE_S = 20.0  # with a server that is away at the end


class Projector:
    """The driver's side: starts the process, passes on what it says, and waits for it at the end."""

    def __init__(self, ledger: Ledger, tracking_uri: str, on_message: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._on_message = on_message
        self._told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.delivered = False
        folder = ledger.folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lmoe_tune.sweep.projector", str(folder.home), folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"MLFLOW_TRACKING_URI": tracking_uri},  # it may hold a password: never an argument
            start_new_session=True,  # Ctrl-C in a terminal is for the driver; this one ends with it
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def collect(self) -> None:
        """Write into the ledger what the process has told since."""
        while not self._told.empty():
            told = self._told.get()
            self.delivered = _take(self._ledger, told, self._on_message) or self.delivered

    def finish_soon(self) -> None:
        """Let it deliver the rest: nothing more will be recorded."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def finish(self, patience_s: float) -> None:
        """Wait until it has delivered, and collect what it says; it is ended if that takes too long."""
        self.finish_soon()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(timeout=1.0)
        self.collect()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._told.put(json.loads(line))


def _take(ledger: Ledger, told: dict[str, Any], on_message: Callable[[str], None]) -> bool:
    if "message" in told:
        on_message(told["message"])
    for key, value in told.get("attrs", {}).items():
        ledger.set_attr(key, value)
    return bool(told.get("delivered", False))


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
        tell: takes messages for the user and attributes for the ledger.
        finishing: waits up to that many seconds; True once nothing more will be recorded.
        after_kill: deliver although the last run has not recorded its end.
    """
    from lmoe_tune.sweep import view
    from lmoe_tune.tracking import Projection, shown

    artifacts = ledger.folder.home / "mlartifacts"
    projection = Projection(tracking_uri, artifacts)
    prefix = f"mlflow:{shown(tracking_uri)}"
    known: dict[str, Any] = {}
    away = False
    models_due = time.monotonic() + MODEL_INTERVAL_S
    give_up: float | None = None
    done = False
    pause_s = 0.0  # MLflow is imported while Ray starts, which mostly waits
    while True:
        done = done or finishing(pause_s)
        pause_s = POLL_S
        if done and give_up is None:
            give_up = time.monotonic() + PATIENCE_S
            if ledger.run_is_open() and not after_kill:
                return  # the driver died; whoever resumes goes on from here
        state = "running"
        if done:
            state = "complete" if ledger.is_complete() else "interrupted"
        with_models = done or time.monotonic() > models_due
        try:
            found = projection.project(view.snapshot(ledger, state), view.models(ledger) if with_models else ())
        except TrackingError as error:
            if not away:
                tell({"message": f"MLflow is away ({error}); it is waited for, nothing is held up or lost"})
            away = True
            if give_up is not None and time.monotonic() > give_up:
                return
            time.sleep(0.5)
            continue
        if away:
            tell({"message": "MLflow is back"})
            away = False
        if with_models:
            models_due = time.monotonic() + MODEL_INTERVAL_S
        attrs: dict[str, Any] = {
            prefix: {
                "experiment_id": found.experiment_id,
                "parent_run_id": found.parent_run_id,
                "models": {str(number): model for number, model in found.models.items()},
            }
        }
        attrs |= {f"{prefix}#{number}": run_id for number, run_id in found.run_ids.items()}
        if done:
            attrs["delivered"] = {"uri": shown(tracking_uri), "runs": ledger.num_runs()}
        fresh = {key: value for key, value in attrs.items() if known.get(key) != value}
        if fresh or done:
            tell({"attrs": fresh, "delivered": done})
        known |= fresh
        if done:
            return


def sync(ledger: Ledger, tracking_uri: str, on_message: Callable[[str], None]) -> bool:
    """Deliver a sweep that nobody works on, from this process; True when MLflow has everything.

    The caller holds the sweep's lock.
    """
    delivered = False

    def tell(told: dict[str, Any]) -> None:
        nonlocal delivered
        delivered = _take(ledger, told, on_message) or delivered

    deliver(ledger, tracking_uri, tell, finishing=lambda seconds: True, after_kill=True)
    return delivered


def main() -> None:
    """The process: `python -m lmoe_tune.sweep.projector HOME NAME`, the server in MLFLOW_TRACKING_URI."""
    from lmoe_tune.sweep import view

    os.nice(19)  # on a full machine the trials come first
    home, name = sys.argv[1:]
    ledger = view.read_sweep(SweepFolder(Path(home), name))

    def tell(message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def finishing(seconds: float) -> bool:
        readable, _, _ = select.select([sys.stdin], [], [], seconds)
        return bool(readable)  # nothing is ever sent: the pipe was closed, or the driver died

    try:
        deliver(ledger, os.environ["MLFLOW_TRACKING_URI"], tell, finishing)
    except BrokenPipeError:
        pass  # the driver died
    except Exception as error:  # an MLflow error's text may hold the server's password: ours does not
        tell({"message": f"MLflow: {error if isinstance(error, LmoeTuneError) else type(error).__name__}"})
        raise


if __name__ == "__main__":
    main()
