"""How soon a resumed sweep trains again, compared with the least that Ray Tune can do.

    python benchmarks/resume.py [--finished 20 2000] [--rounds 5] [--out FILE]

Timed is from the start of the process `lmoe-tune resume` to the first training step of its next trial, in a
sweep of the digits with so many finished trials; against a minimal `Tuner` with one actor that imports torch
(`peers/one_actor.py`), from the start of its process to the actor's first step. Sides are interleaved within
a round, another one goes first in each, and the difference is to the peer of the same round.

The finished trials are synthetic, but written through the project's own ledger, records and MLflow
projection; the baseline is a real one. Each round resumes a fresh copy. The step is seen by the sweep's own
trainable (`marked_steps.py`), which writes down the time of each. Exit code 1 when a claim is missed: at most
1 s more than the peer with up to 20 finished trials, 2 s with up to 2,000.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, only this folder would be there

from benchmarks.chaos_faults import Driver  # noqa: E402
from benchmarks.marked_steps import LOG, read_marks  # noqa: E402
from benchmarks.sweep_overhead import BenchmarkError, environment, machine, say, spread  # noqa: E402
from lmoe_tune.sweep import projector, view  # noqa: E402
from lmoe_tune.sweep.folder import SweepFolder  # noqa: E402
from lmoe_tune.sweep.ledger import Ledger  # noqa: E402
from lmoe_tune.sweep.observer import Observer  # noqa: E402
from lmoe_tune.sweep.tracked import address  # noqa: E402
from lmoe_tune.sweep.trial_files import write_record  # noqa: E402

NAME = "resume"
SPEC = """\
name: resume
trainable: marked_steps:MarkedSteps
data: {id: {dataset: digits}}
model: {arch: small_cnn, baseline: {epochs: 2}}
space:
  mixing_alpha:       {low: 0.1, high: 10, log: true}
  consistency_weight: {low: 0, high: 5}
  outlier_ratio:      {low: 0.25, high: 1}
"""
PEER = "minimal Tuner"
ALLOWED_S = {20: 1.0, 2000: 2.0}  # more than the peer, by number of finished trials
PATIENCE_S = 120.0


@dataclass
class Seconds:
    """To the first training step, by side and round."""

    of: dict[str, list[float]] = field(default_factory=dict)

    def add(self, side: str, seconds: float) -> None:
        self.of.setdefault(side, []).append(seconds)

    def differences(self, side: str) -> list[float]:
        return [ours - peer for ours, peer in zip(self.of[side], self.of[PEER], strict=True)]


# What is resumed


def make_home(folder: Path, finished: int, template: Path) -> None:
    """A sweep with so many finished trials and one to go, everything recorded and delivered."""
    shutil.copytree(template, folder)
    place = SweepFolder(folder / "lmoe_runs", NAME)
    spec = view.read_spec(place)
    # What was suggested does not matter here, and 2,000 suggestions of TPE take a minute.
    quick = spec.model_copy(update={"search": spec.search.model_copy(update={"sampler": "random"})})
    rng = random.Random(0)
    with place.locked():
        ledger = Ledger.writing(place, quick)
        metrics = ledger.trial(0).metrics
        ledger.set_attr("budget", {**ledger.attrs["budget"], "trials": finished + 1})
        while ledger.standing.num_started < finished:
            number = ledger.ask().number
            level, epoch, ended = rng.gauss(0.95, 0.02), 0, False
            while not ended:
                epoch += 1
                value = min(1.0, level + 0.002 * epoch + rng.gauss(0, 0.001))
                measured = {
                    name: value if "auroc" in name else rng.random() for name in metrics
                } | {"val_accuracy": 1}
                ended = ledger.record_epoch(number, epoch, measured, {"val_accuracy": 1.0})
            write_record(place, ledger.trial(number))
        delivered = projector.sync(ledger, address(place, spec), Observer())
        if not delivered:
            raise BenchmarkError("MLflow did not take the synthetic trials")


def make_template(folder: Path, specs: Path) -> None:
    """A sweep of one real trial, with its baseline; the spec and its trainable lie in `specs`."""
    specs.mkdir()
    shutil.copy(ROOT / "benchmarks" / "marked_steps.py", specs)
    (specs / "resume.yaml").write_text(SPEC, encoding="utf-8")
    folder.mkdir()
    driver = Driver(
        ["search", str(specs / "resume.yaml"), "--trials", "1"], folder, environment(), str(folder)
    )
    code = driver.wait(PATIENCE_S)
    driver.kill_tree()
    if code != 0:
        raise BenchmarkError(f"the first trial failed:\n{driver.output()}")


# The sides


def resume(home: Path, folder: Path, specs: Path) -> float:
    """Seconds to the first step of a copy of the sweep, which is then killed."""
    shutil.copytree(home, folder)
    (specs / LOG.name).unlink(missing_ok=True)
    driver = Driver(["resume", NAME], folder, environment(), str(folder))
    give_up = time.monotonic() + PATIENCE_S
    try:
        while not (marks := read_marks(specs)):
            if not driver.running or time.monotonic() > give_up:
                raise BenchmarkError(f"the resumed sweep made no step:\n{driver.output()}")
            time.sleep(0.05)
    finally:
        driver.kill_tree()
    shutil.rmtree(folder)
    return marks[0][0] - driver.started


def peer(folder: Path) -> float:
    """Seconds to the first step of the minimal Tuner."""
    folder.mkdir()
    mark = folder / "mark"
    started = time.time()
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "peers" / "one_actor.py"), str(mark)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        encoding="utf-8",
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the minimal Tuner failed:\n{done.stderr[-2000:]}")
    seconds = float(mark.read_text(encoding="utf-8")) - started
    shutil.rmtree(folder)
    return seconds


# The bench


def bench(args: argparse.Namespace, folder: Path) -> int:
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"this machine is busy (load {load:.1f}): the differences will be rough")
    template, specs = folder / "template", folder / "specs"
    say("training a baseline")
    make_template(template, specs)
    homes = {side_of(finished): folder / str(finished) for finished in args.finished}
    for finished in args.finished:
        began = time.monotonic()
        make_home(homes[side_of(finished)], finished, template)
        say(f"made a sweep of {finished} finished trials in {time.monotonic() - began:.0f} s")
    seconds = Seconds()
    sides = [PEER, *homes]
    for round_ in range(-1, args.rounds):  # one to warm the disk, whose times do not count
        shift = round_ % len(sides)
        for side in [*sides[shift:], *sides[:shift]]:
            found = (
                peer(folder / "peer")
                if side == PEER
                else resume(homes[side], folder / "copy", specs)
            )
            if round_ >= 0:
                seconds.add(side, found)
            say(f"round {round_ + 1} of {args.rounds}, {side}: {found:.2f} s")
    missed = [finished for finished in args.finished if not is_reached(seconds, finished)]
    text = "\n".join([*machine(load), "", *table(seconds, args.finished)])
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")
    return 1 if missed else 0


def side_of(finished: int) -> str:
    return f"lmoe-tune resume, {finished:,} finished trials"


def allowed_s(finished: int) -> float | None:
    return next((allowed for most, allowed in sorted(ALLOWED_S.items()) if finished <= most), None)


def is_reached(seconds: Seconds, finished: int) -> bool:
    allowed = allowed_s(finished)
    return allowed is None or statistics.median(seconds.differences(side_of(finished))) <= allowed


def table(seconds: Seconds, numbers: Sequence[int]) -> Iterator[str]:
    rounds = len(seconds.of[PEER])
    yield f"seconds from the start of the process to the first training step: median (min–max) of {rounds} rounds"
    yield f"{'side':<42}{'seconds':>22}{'more than the peer':>24}{'at most':>10}"
    yield f"{PEER:<42}{spread(seconds.of[PEER], '.2f'):>22}"
    for finished in numbers:
        side, allowed = side_of(finished), allowed_s(finished)
        claim = "-" if allowed is None else f"+{allowed:.1f}"
        more = spread(seconds.differences(side), "+.2f")
        verdict = "" if is_reached(seconds, finished) else "  MISSED"
        yield f"{side:<42}{spread(seconds.of[side], '.2f'):>22}{more:>24}{claim:>10}{verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(description="How soon a resumed sweep trains again.")
    parser.add_argument(
        "--finished", type=int, nargs="+", default=[20, 2000], metavar="N", help="finished trials"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    args = parser.parse_args()
    if args.rounds < 1 or min(args.finished) < 1:
        parser.error("--rounds and --finished must be at least 1")
    try:
        with tempfile.TemporaryDirectory(prefix="resume-", ignore_cleanup_errors=True) as folder:
            return bench(args, Path(folder))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
