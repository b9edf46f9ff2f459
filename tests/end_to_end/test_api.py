"""Sweeps from Python: in the main thread, in another one, in an event loop, over a Ray that runs already."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import PATIENCE_S, Command

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SETUP = """
import asyncio, json, os, random, signal, sys, threading, time
import lmoe_tune as lt

SPEC = lt.load_spec("digits", ["train.epochs=2", "model.baseline.epochs=2"])

class Seen(lt.Observer):
    def __init__(self): self.ended, self.said = [], []
    def on_end(self, trial): self.ended.append(trial.number)
    def on_message(self, text): self.said.append(text)

def search(**options):
    return lt.search(SPEC, home="lmoe_runs", trials=2, **options)

def handlers():
    return [signal.getsignal(number) for number in
            (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)]

def answer(**found):
    print(json.dumps(found))
"""


def run(command: Command, code: str) -> dict[str, object]:
    """What a program of the user's answers; nothing but that may be printed."""
    done = subprocess.run(
        [sys.executable, "-c", SETUP + code],
        cwd=command.cwd,
        env=command.environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=4 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_sweep_is_a_function_that_prints_nothing_and_gives_everything_back(
    command: Command,
) -> None:
    found = run(
        command,
        """
before, environment, seen = handlers(), dict(os.environ), Seen()
import numpy as np

drawn = np.random.get_state()[1]
numbers, path, hook = random.getstate(), list(sys.path), sys.excepthook
sweep = search(observer=seen)
import ray

same = {
    "signals": before == handlers(),
    "environment": environment == dict(os.environ),
    "numbers": numbers == random.getstate() and (drawn == np.random.get_state()[1]).all(),
    "path": path == sys.path,
    "hook": hook is sys.excepthook,
}
found = dict(
    state=sweep.state,
    trials=[trial.number for trial in sweep.trials],
    best=sweep.best.state,
    columns=[name in sweep.to_frame().columns for name in ("mixing_alpha", "val_auroc", "state")],
    rows=len(sweep.to_frame()),
    ray=ray.is_initialized(),
    ended=sorted(seen.ended),
    again=lt.open_sweep("digits", "lmoe_runs").state,
    extended=len(sweep.resume(trials="+1").trials),
)
ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)

def user_s_own(): raise ValueError("in a worker of Ray's")

try:
    ray.get(ray.remote(user_s_own).remote())
except ValueError as error:
    from_worker = "in user_s_own" in str(error) and "in a worker of Ray's" in str(error)
ray.shutdown()
answer(**found, changed=[name for name, is_same in same.items() if not is_same], from_worker=from_worker)
""",
    )
    assert found == {
        "state": "complete",
        "trials": [0, 1],
        "ended": [0, 1],
        "best": "complete",
        "columns": [True, True, True],
        "rows": 2,
        "changed": [],
        "ray": False,
        "again": "complete",
        "extended": 3,
        "from_worker": True,
    }


@pytest.mark.long
def test_another_thread_runs_it_and_another_one_stops_it(command: Command) -> None:
    found = run(
        command,
        """
stop, found = threading.Event(), []

class Stopping(Seen):
    def on_epoch(self, trial): stop.set()

thread = threading.Thread(target=lambda: found.append(search(observer=Stopping(), stop=stop)))
thread.start()
thread.join()
stopped = found[0].state
thread = threading.Thread(target=lambda: found.append(search()))
thread.start()
thread.join()
answer(stopped=stopped, resumed=found[1].state, trials=len(found[1].trials))
""",
    )
    assert found == {"stopped": "interrupted", "resumed": "complete", "trials": 2}


@pytest.mark.long
def test_searches_of_two_threads_take_turns(command: Command) -> None:
    found = run(
        command,
        """
seen, states = Seen(), {}

def one(name):
    states[name] = search(name=name, observer=seen).state

threads = [threading.Thread(target=one, args=(name,)) for name in ("a", "b")]
for thread in threads: thread.start()
for thread in threads: thread.join()
answer(states=states, waited=sum("another search of this process" in text for text in seen.said))
""",
    )
    assert found == {"states": {"a": "complete", "b": "complete"}, "waited": 1}


@pytest.mark.long
def test_a_notebook_s_event_loop_and_a_ray_that_runs_are_used_and_left_alone(
    command: Command,
) -> None:
    found = run(
        command,
        """
import ray
ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)

async def cell():
    return search()

def free():
    give_up = time.monotonic() + 30  # Ray counts what is free once in a while
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < give_up:
        time.sleep(0.1)
    named = ray.util.list_named_actors(all_namespaces=True)
    return ray.available_resources().get("CPU"), len(named)

class Failing(Seen):
    def on_epoch(self, trial): raise ValueError("the user's own")

sweep = asyncio.run(cell())
after = free()
try:
    sweep.resume(trials=4, observer=Failing())
except ValueError as error:
    raised = str(error)
answer(state=sweep.state, ray=ray.is_initialized(), works=ray.get(ray.put(1)), after=after,
       raised=raised, after_error=free(), resumed=sweep.resume().state)
""",
    )
    assert found == {
        "state": "interrupted",
        "ray": True,
        "works": 1,
        "after": [2, 0],
        "raised": "the user's own",
        "after_error": [2, 0],
        "resumed": "complete",
    }


def test_a_signal_stops_it_and_the_program_goes_on(command: Command) -> None:
    found = run(
        command,
        """
class Signalled(Seen):
    def on_epoch(self, trial): os.kill(os.getpid(), signal.SIGTERM)

sweep = search(observer=Signalled())
answer(state=sweep.state, resumed=sweep.resume().state)
""",
    )
    assert found == {"state": "interrupted", "resumed": "complete"}
