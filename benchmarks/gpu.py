"""Logit MixOE on a GPU, in one call of at most seven minutes: is it right, how fast is it, what does it wait for.

    python benchmarks/gpu.py                          # ResNet-50 at 448 pixels, 32 + 32 images
    python benchmarks/gpu.py --device cpu --seconds 60     # a dry run of the same, small, on any machine
    python benchmarks/gpu.py --only step,compile --seconds 200

It runs from a checkout, on a machine that has torch and torchvision. Beside what those bring it needs PyYAML and
pydantic with what pydantic needs; where they are not installed, fetch their wheels before and give the folder:

    pip download --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 -d wheels pydantic pyyaml
    python benchmarks/gpu.py --wheels wheels

The Python version is that of the machine with the GPU: pydantic-core and PyYAML are compiled, the rest is not.

Each section prints as it goes, has its share of the time, and does not end the others:

    correctness  batches against the CPU's; loss and gradients against the reference's in fp32 (TF32 off for both) and
                 against the CPU's; a whole trial, twice in each precision
    ceilings     the fastest matrix products and the fastest copy of this device
    step         the reference as public code has it (a forward each for images, outliers and mixtures; fp32;
                 torch.optim.SGD), with torch's defaults and in strict fp32, and every mode of ours, on a batch that
                 lies on the device; each also as a share of both ceilings
    compile      what torch.compile makes of the fastest mode; how long its first step takes, and the first of
                 another process, which finds the compiled code in the cache
    input        the same steps (compiled, if the section before did so) on photographs: cropped from the cache or
                 from the device's memory, augmented there.
                 *Stall* is the share beyond steps on pixels that lie there, augmentation included. Beside it the
                 reference with a DataLoader that never runs dry
    epoch        what an epoch of a trial costs beside its steps: evaluation, and the checkpoint written meanwhile
    memory       what a row of a step takes, against what `check` predicts
    waits        where the host waits for the device in an epoch, as torch counts it, with few and with many steps
    packing      whole epochs of trials, evaluation and checkpoints included, by one process and by two at once
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

    from benchmarks.gpu_sections import Bench

HERE = Path(__file__).resolve().parent
NEEDED = ("pydantic", "yaml")
AGAIN_S = 5.0
START_S = 120.0  # for the imports of a process
GRACE_S = 15.0  # beyond a section's time
NO_DEVICE, FAILED, CANNOT_START = 2, 1, 3
SHARES = {
    "correctness": 0.13,
    "ceilings": 0.02,
    "step": 0.18,
    "compile": 0.26,
    "input": 0.15,
    "epoch": 0.04,
    "memory": 0.03,
    "waits": 0.03,
    "packing": 0.16,
}
"""Of the time that is left when it begins, each against those after it, in their order."""


class OutOfTimeError(BaseException):
    """A section has taken more than its share of the time; what catches `Exception` lets it through."""


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    with tempfile.TemporaryDirectory(prefix="lmoe-gpu-", dir=options.folder) as name:
        folder = Path(name)
        problem = prepared(options.wheels, folder / "wheels")
        if problem:
            print(problem, file=sys.stderr)
            return CANNOT_START

        if options.worker is not None or options.first_step:
            from benchmarks import gpu_sections

            bench = gpu_sections.Bench.of(options, folder)
            if options.first_step:
                gpu_sections.first_step(bench)
            else:
                gpu_sections.work(bench, options.worker)
            return 0
        return run_all(options, folder)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=390.0, help="for all sections together")
    parser.add_argument("--only", default=",".join(SHARES), help="sections, separated by commas")
    parser.add_argument("--arch", help="resnet50; small_cnn on the CPU")
    parser.add_argument("--batch", type=int, help="images; as many outliers come on top")
    parser.add_argument("--crop", type=int, help="pixels")
    parser.add_argument("--images", type=int, help="photographs to train on")
    parser.add_argument("--folder", type=Path, help="where to write photographs and cache")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels that are not installed")
    parser.add_argument("--out", type=Path, help="a file for what is printed")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first-step", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)

    is_small = options.device == "cpu"
    options.arch = options.arch or ("small_cnn" if is_small else "resnet50")
    options.batch = options.batch or (4 if is_small else 32)
    options.crop = options.crop or (32 if is_small else 448)
    options.images = options.images or (48 if is_small else 384)
    unknown = set(options.only.split(",")) - set(SHARES)
    if unknown:
        parser.error(
            f"--only: no section {', '.join(sorted(unknown))}; there are {', '.join(SHARES)}"
        )
    return options


def prepared(wheels: Path | None, unpacked: Path) -> str | None:
    """Put the checkout and the wheels on the path; what is lacking then, in words."""
    paths = [HERE.parent, HERE]
    if wheels is not None:
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
        paths.append(unpacked)
    sys.path[:0] = [str(path) for path in paths if str(path) not in sys.path]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[: len(paths)])

    lacking = [name for name in NEEDED if find_spec(name) is None]
    if not lacking:
        return None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f"{' and '.join(lacking)} cannot be imported; fetch the wheels elsewhere with\n"
        f"    pip download --only-binary=:all: --python-version {version} "
        "--platform manylinux2014_x86_64 -d wheels pydantic pyyaml\n"
        f"and run this with --wheels wheels"
    )


def run_all(options: argparse.Namespace, folder: Path) -> int:
    """Every section that was asked for; the exit status says whether all of them ended.

    They share a process, which is another one than this: a section whose process dies, or cannot be stopped, ends with
    it, and those after it go on in a new one. (An alarm that falls into Python code that torch's C++ code has called
    ends the process, and so may a fault of the device.)
    """
    out = Output(options.out)
    chosen = [name for name in SHARES if name in options.only.split(",")]
    ends = time.monotonic() + options.seconds
    failed: list[str] = []
    left = list(chosen)
    while left:
        with sections_process(options, folder, left, ends) as (process, events):
            begun = follow(events, out, failed)
        if process.exitcode == NO_DEVICE:
            return NO_DEVICE
        if begun.name is not None:
            failed.append(begun.name)
            out.say(f"FAILED: {begun.name} ended its process (exit status {process.exitcode})")
        if not begun.names:
            out.say(f"FAILED: no section could begin (exit status {process.exitcode})")
            failed += left
            break
        left = left[len(begun.names) :]

    out.say(f"\n{len(chosen) - len(failed)} sections ended; failed: {', '.join(failed) or 'none'}")
    return FAILED if failed else 0


@dataclass
class Begun:
    """What a process has told of its sections.

    Attributes:
        names: those that have begun.
        name: the one that has begun and not ended.
    """

    names: list[str] = field(default_factory=list)
    name: str | None = None


def follow(events: Connection, out: Output, failed: list[str]) -> Begun:
    """Print what a process says until it ends, or until a section is far beyond its time."""
    begun = Begun()
    waits_until = time.monotonic() + START_S
    while events.poll(max(0.0, waits_until - time.monotonic())):
        try:
            kind, told = events.recv()
        except EOFError:
            break
        if kind == "says":
            out.say(told)
        elif kind == "begins":
            begun.name, seconds = told
            begun.names.append(begun.name)
            waits_until = time.monotonic() + seconds + GRACE_S
        else:
            failed += [told] if kind == "failed" else []
            begun.name = None
            waits_until = time.monotonic() + START_S
    return begun


@contextmanager
def sections_process(
    options: argparse.Namespace, folder: Path, names: list[str], ends: float
) -> Iterator[tuple[ForkProcess, Connection]]:
    """A process that goes through these sections; ended with the block."""
    context = multiprocessing.get_context("fork")  # this process has not imported torch
    events, told = context.Pipe(duplex=False)
    process = context.Process(target=work_apart, args=(options, folder, names, ends, told))
    process.start()
    told.close()
    try:
        yield process, events
    finally:
        process.join(GRACE_S)
        process.kill()
        process.join()
        events.close()


def work_apart(
    options: argparse.Namespace, folder: Path, names: list[str], ends: float, told: Connection
) -> None:
    """Go through these sections, and tell of them."""
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device; a dry run: --device cpu --seconds 60", file=sys.stderr)
        sys.exit(NO_DEVICE)

    from benchmarks import gpu_sections

    run_sections(
        names, ends, gpu_sections.Bench.of(options, folder), lambda *event: told.send(event)
    )


def run_sections(
    names: list[str], ends: float, bench: Bench, tell: Callable[[str, Any], None]
) -> None:
    """Go through these sections in this process.

    Args:
        ends: when the time is over, by the monotonic clock.
        tell: hears ("says", text), ("begins", (name, seconds)), ("ended", name) and ("failed", name).
    """
    for line in bench.environment():
        tell("says", line)

    for place, name in enumerate(names):
        share = SHARES[name] / sum(SHARES[later] for later in names[place:])
        seconds = max(0.01, (ends - time.monotonic()) * share)
        tell("begins", (name, seconds))
        tell("says", f"\n== {name} (at most {seconds:.0f} s)")
        how = "ended"
        try:
            with limited_to(seconds):
                for line in bench.section(name, seconds):
                    tell("says", line)
        except (Exception, OutOfTimeError) as error:
            how = "failed"
            tell("says", f"FAILED: {type(error).__name__}: {error}")
            tell("says", traceback.format_exc(limit=-6))
        tell(how, name)
        bench.free_memory()  # raises where the device is lost: those that are left get a new process


@contextmanager
def limited_to(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError in the block once it has taken so long, and again where that is swallowed."""

    def stop(number: int, frame: object) -> None:
        raise OutOfTimeError(f"it has taken {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Output:
    """Prints with the time since the start, and keeps it in a file where one is given."""

    def __init__(self, path: Path | None) -> None:
        self._started = time.monotonic()
        self._path = path
        if path is not None:
            path.write_text("", encoding="utf-8")

    def say(self, text: str) -> None:
        passed = time.monotonic() - self._started
        line = f"[{passed:6.1f}] {text}" if text.strip() else text
        print(line, flush=True)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                print(line, file=file)


if __name__ == "__main__":
    raise SystemExit(main())
