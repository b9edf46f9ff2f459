"""How long is a slot idle? From process start to the first step, between two epochs, and between two trials.

    python benchmarks/slots.py [--trials 12] [--epochs 4] [--rounds 5] [--out FILE]

A sweep of the digits with one slot, as one types it, whose trainable (`marked_steps.py`) writes down when it began
each step; a sweep before it has trained the baseline. A gap is the time from the beginning of one step to that of the
next, less a median step. Then the same epochs in this process, with the time of what each does beside its steps.

The start is measured in rounds, each time beside the least that Ray Tune needs for a first step: `ray.init`, a `Tuner`
and one actor that imports torch (`peers/one_actor.py`), with Ray's defaults.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(
    ROOT
)  # in place of this folder, whose `marked_steps` would hide the copy beside the spec

from benchmarks.chaos_faults import Driver  # noqa: E402
from benchmarks.machine import machine  # noqa: E402
from benchmarks.marked_steps import LOG, read_marks  # noqa: E402
from benchmarks.resume import peer  # noqa: E402
from benchmarks.sweep_overhead import BenchmarkError, environment, say  # noqa: E402

PATIENCE_S = 240.0
SPEC = """\
name: slots
trainable: marked_steps:MarkedSteps
data: {{id: {{dataset: digits}}}}
model: {{arch: small_cnn, baseline: {{epochs: 2}}}}
space:
  mixing_alpha:       {{low: 0.1, high: 10, log: true}}
  consistency_weight: {{low: 0, high: 5}}
train: {{epochs: {epochs}, threads: 1}}
search: {{pruner: none, max_concurrent: 1, start_from: []}}
budget: {{trials: {trials}}}
"""


def search(folder: Path, name: str, trials: int, epochs: int) -> tuple[Driver, Path]:
    """Run a sweep of the home `folder` to its end; returns it and the folder of its spec."""
    specs = folder / f"specs-{name}"
    specs.mkdir(parents=True)
    shutil.copy(ROOT / "benchmarks" / "marked_steps.py", specs)
    spec = specs / f"{name}.yaml"
    spec.write_text(SPEC.format(trials=trials, epochs=epochs), encoding="utf-8")
    words = ["search", str(spec), "--name", name]
    driver = Driver(words, folder, environment(), str(folder))
    code = driver.wait(PATIENCE_S)
    driver.kill_tree()
    if code != 0:
        raise BenchmarkError(f"the sweep failed:\n{driver.output()}")
    return driver, specs


def gaps(marks: Sequence[tuple[float, str]], epochs: int) -> dict[str, list[float]]:
    """Seconds of a step, between two epochs, and between two trials."""
    of_trial: dict[str, list[float]] = defaultdict(list)
    for when, alpha in marks:
        of_trial[alpha].append(when)
    steps: list[float] = []
    between: dict[str, list[float]] = {"step": steps, "epochs": [], "trials": []}
    for times in of_trial.values():
        per_epoch = len(times) // epochs
        waits = [after - before for before, after in pairwise(times)]
        steps += [wait for place, wait in enumerate(waits, 1) if place % per_epoch]
        between["epochs"] += waits[per_epoch - 1 :: per_epoch]
    trials = sorted(of_trial.values())
    between["trials"] = [after[0] - before[-1] for before, after in pairwise(trials)]
    return between


FIRST_STEP = "first step"


def started(driver: Driver, home: Path, name: str, first_step: float) -> dict[str, float]:
    """Seconds from the start of the process to what was done, by the files that it left."""
    sweep = home / "sweeps" / name
    seen = {
        "spec read, data looked at (spec.yaml)": sweep / "spec.yaml",
        "this run's sign left (run.json)": sweep / "run.json",
    }
    found = {what: path.stat().st_mtime - driver.started for what, path in seen.items()}
    return found | {FIRST_STEP: first_step - driver.started}


def starts(folder: Path, home: Path, rounds: int) -> list[str]:
    """How long a start takes, and the peer's, a line each."""
    seconds: dict[str, list[float]] = defaultdict(list)
    peers: list[float] = []
    ratios: list[float] = []
    for number in range(rounds):
        say(f"start {number + 1} of {rounds}")
        name = f"start-{number}"
        driver, specs = search(folder, name, 1, 1)
        found = started(driver, home, name, read_marks(specs)[0][0])
        for what, after in found.items():
            seconds[what].append(after)
        peers.append(peer(folder / f"peer-{number}"))
        ratios.append(found[FIRST_STEP] / peers[-1])

    lines = [f"  {what:46} {spread(of)}" for what, of in seconds.items()]
    lines.append(f"  {'first step of a minimal Tuner':46} {spread(peers)}")
    lines.append(f"  {'ours relative to it':46} {spread(ratios)}")
    return lines


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):8.2f}  ({min(values):.2f}–{max(values):.2f})"


class Timed:
    """Seconds within some functions of this process."""

    def __init__(self) -> None:
        self.of: dict[str, list[float]] = defaultdict(list)

    def wrap(self, module: Any, name: str, called: str) -> None:
        inner: Callable[..., Any] = getattr(module, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            found = inner(*args, **kwargs)
            self.of[called].append(time.perf_counter() - start)
            return found

        setattr(module, name, timed)


def beside_steps(folder: Path, home: Path, specs: Path) -> Timed:
    """What an epoch does beside its steps, in this process."""
    from lmoe_tune import checkpoint
    from lmoe_tune.sweep.folder import SweepFolder
    from lmoe_tune.sweep.view import read_spec
    from lmoe_tune.training import loop, trial
    from trainables.method import configured
    from trainables.worker import objective_of

    timed = Timed()
    timed.wrap(loop, "validate", "validation images through the network")
    timed.wrap(loop, "validation_metrics", "metrics of these")
    writer = checkpoint.Writer
    timed.wrap(writer, "begin", "checkpoint: handed to its thread")
    timed.wrap(writer, "finish", "checkpoint: waited for, metrics added, synced")
    spec = read_spec(SweepFolder(home, "timed"))
    method, params = configured(spec, {"mixing_alpha": 1.0, "consistency_weight": 1.0}, specs)
    objective = objective_of(method, params)
    for number in range(3):
        place = folder / f"timed-{number}" / "checkpoints"
        for _ in trial.run_trial(spec, objective, params, home=home, folder=place):
            pass
    return timed


def milliseconds(values: Sequence[float], less: float = 0.0) -> str:
    found = sorted(1000 * (value - less) for value in values)
    tenth = len(found) // 10
    return f"{statistics.median(found):8.1f}  ({found[tenth]:.1f}–{found[-1 - tenth]:.1f})"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = machine("torch", "ray")
    with tempfile.TemporaryDirectory(prefix="lmoe-slots-") as scratch:
        folder = Path(scratch)
        home = folder / "lmoe_runs"
        os.environ |= {"OMP_NUM_THREADS": "1"}
        say("training a baseline")
        search(folder, "warm", 1, args.epochs)
        say("the sweep")
        _, specs = search(folder, "timed", args.trials, args.epochs)
        marks = read_marks(specs)
        assert (specs / LOG.name).exists()
        found = gaps(marks, args.epochs)
        step = statistics.median(found["step"])
        rounds = f"median (min–max) of {args.rounds} rounds, a baseline being there"
        lines += ["", f"seconds from the start of the process, {rounds}:"]
        lines += starts(folder, home, args.rounds)
        count = f"{len(found['trials']) + 1} trials of {args.epochs} epochs, one slot"
        lines += ["", f"milliseconds, median (10th–90th of a hundred), {count}:"]
        lines.append(f"  {'a step':46} {milliseconds(found['step'])}")
        lines.append(f"  {'gap between two epochs':46} {milliseconds(found['epochs'], step)}")
        lines.append(f"  {'gap between two trials':46} {milliseconds(found['trials'], step)}")
        lines += ["", "milliseconds of an epoch beside its steps, in one process without Ray:"]
        timed = beside_steps(folder, home, specs)
        lines += [f"  {what:46} {milliseconds(of)}" for what, of in timed.of.items()]
    text = "\n".join(lines)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
