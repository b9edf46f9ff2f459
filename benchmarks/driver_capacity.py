"""What a trial costs the driver as a sweep grows: CPU of our own code, beside Optuna's own study and Tune's loggers.

    python benchmarks/driver_capacity.py [--sizes 100,1000,5000,20000] [--driven 200] [--keep DIR] [--out FILE]

A ledger is filled with so many finished trials; then a few hundred more are driven through the driver's own code, as
Ray's hooks call it, without Ray and training: a suggestion, two or three epochs of 16 metrics (with a constraint, ASHA,
budgets of time and GPU-hours, and the records beside the ledger), the end, and the checkpoints that are kept. The same
work is done by a study in Optuna's own journal and in memory, opened with the same trials, and Tune's JSON and CSV
loggers are given the same results.

What is counted is CPU time, not the clock: fsync waits, and machines are busy. The files lie in memory where there is
/dev/shm: what a disk's file system costs changes fourfold within an hour. Time within `optuna.samplers` and
`optuna.pruners` is shown apart. The last column counts the functions called outside them, in twenty more trials:
unlike the time, it does not depend on what a sampler leaves in the processor's caches. Each side runs in a process of
its own; sides and sizes take turns in three rounds, and each figure is the median. About twelve minutes with the sizes
above; with `--keep` the ledgers and what was measured stay in a folder, and a call that was cut short is gone on with.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.machine import machine  # noqa: E402

if TYPE_CHECKING:
    from lmoe_tune.spec import Spec

TWO_OBJECTIVES = "ours (two objectives)"
AT_RANDOM = "ours (random sampler)"
SIDES = (
    "ours",
    TWO_OBJECTIVES,
    AT_RANDOM,
    "optuna's journal",
    "optuna in memory",
    "tune's loggers",
)
METRICS = 16
IN_MEMORY = Path("/dev/shm")
WARMING = 5
COUNTED = 20
NUM_SWEEPS = 200
ONE = (
    "objective={metric: val_auroc, direction: maximize, constraints: {val_accuracy: {min: 0.3}}}",
    "search.pruner=asha",
)
TWO = ("objective=[{metric: val_auroc}, {metric: val_accuracy}]", "search.pruner=none")
BASELINE = {"val_accuracy": 0.95}
WIDE = {
    "mixing_alpha": "{low: 0.1, high: 10, log: true}",
    "consistency_weight": "{low: 0, high: 5}",
    "outlier_ratio": "{low: 0.25, high: 1}",
}


def make_spec(folder: Path, *more: str) -> Spec:
    from lmoe_tune.spec import load_spec
    from trainables import declarations

    path = folder / "capacity.yaml"
    space = "\n".join(f"  {name}: {entry}" for name, entry in WIDE.items())
    path.write_text(
        f"name: capacity\ntrainable: logit_mixoe\ndata: {{id: {{dataset: digits}}}}\nspace:\n{space}\n",
        encoding="utf-8",
    )
    overrides = [
        "train.epochs=3",
        "search.min_epochs=2",
        "search.start_from=[]",
        "resources.gpu=0.5",
    ]
    overrides += ["budget={trials: 1000000, time: 1000d, gpu_hours: 1000000}", *more]
    return load_spec(path, overrides=overrides, declarations=declarations()).spec


def measured(number: int, epoch: int) -> dict[str, float]:
    """Sixteen metrics, different for each trial."""
    unit = (number * 2654435761 % 2**32) / 2**32
    found = {f"metric_{place}": unit / (place + 1) for place in range(METRICS - 3)}
    found |= {"val_auroc": unit * (1 - 0.5**epoch), "val_accuracy": 1 - unit, "epoch_s": 1.0}
    return found


def fill(home: Path, size: int, *more: str) -> None:
    """Bring a sweep to so many finished trials, at random."""
    from lmoe_tune.spec import resolved_yaml
    from lmoe_tune.sweep.folder import SweepFolder
    from lmoe_tune.sweep.ledger import Ledger

    spec = make_spec(home, *more, "search.sampler=random")
    folder = SweepFolder(home, "capacity")
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.spec.write_text(resolved_yaml(spec), encoding="utf-8")
    ledger = Ledger.writing(folder, spec)
    while ledger.standing.num_started < size:
        number = ledger.ask().number
        for epoch in (1, 2, 3):
            if ledger.record_epoch(number, epoch, measured(number, epoch), BASELINE):
                break


class Clock:
    """CPU seconds, of which those within Optuna's samplers and pruners are counted apart."""

    def __init__(self) -> None:
        self.apart = 0.0
        self._left_out = 0.0
        self._within = False

    def wrap(self, owner: type, name: str) -> None:
        inner = owner.__dict__.get(name)
        if inner is None:
            return

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._within:
                return inner(*args, **kwargs)
            self._within, start = True, time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.apart += time.process_time() - start
                self._within = False

        setattr(owner, name, timed)

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """What the block takes is another process's work."""
        start = time.process_time()
        yield
        self._left_out += time.process_time() - start

    def watch_optuna(self) -> None:
        import optuna

        owners = [optuna.samplers.TPESampler, optuna.samplers.RandomSampler]
        owners += [optuna.pruners.SuccessiveHalvingPruner, optuna.pruners.NopPruner]
        names = ("__init__", "infer_relative_search_space", "sample_relative", "sample_independent")
        for owner in owners:
            for name in (*names, "before_trial", "after_trial", "prune"):
                self.wrap(owner, name)

    def measure(self, work: Callable[[int], None], driven: int) -> dict[str, float]:
        """Drive so many trials, a few more before that to import what is imported late."""
        work(WARMING)
        self.apart = self._left_out = 0.0
        work_start = time.process_time()
        work(driven)
        total = time.process_time() - work_start - self._left_out
        return {
            "total_s": total,
            "apart_s": self.apart,
            "own_s": total - self.apart,
            "own_calls": self.calls(work) / COUNTED,
        }

    def calls(self, work: Callable[[int], None]) -> int:
        """How many functions, Python's and C's, `COUNTED` trials call outside samplers and pruners."""
        found = 0

        def count(frame: FrameType, event: str, argument: object) -> None:
            nonlocal found
            if not self._within and event in ("call", "c_call"):
                found += 1

        sys.setprofile(count)
        try:
            work(COUNTED)
        finally:
            sys.setprofile(None)
        return found


def drive_ours(home: Path, driven: int, *more: str) -> dict[str, float]:
    from lmoe_tune.sweep import pruning, sampling, study  # noqa: F401 - before memory is looked at
    from lmoe_tune.sweep.control import SweepControl
    from lmoe_tune.sweep.folder import SweepFolder
    from lmoe_tune.sweep.ledger import Ledger
    from lmoe_tune.sweep.observer import Observer
    from trainables.handshake import Place
    from trainables.worker import Report

    before, start = memory(), time.process_time()
    ledger = Ledger.writing(SweepFolder(home, "capacity"), make_spec(home, *more))
    opened = {"open_s": time.process_time() - start, "memory": memory() - before}
    ledger.begin_run({})
    place = Place("a node's id", "one", "cpu", None)
    control = SweepControl(ledger, Observer(), import_path=home)

    clock = Clock()

    def work(count: int) -> None:
        for _ in range(count):
            assert ledger.exhausted() is None
            suggestion = ledger.ask()
            control.on_start(suggestion)
            control.worker_config(suggestion)
            for epoch in (1, 2, 3):
                number, metrics = suggestion.number, measured(suggestion.number, epoch)
                with clock.left_out():
                    leave_checkpoint(ledger.folder.checkpoints(number), epoch)
                report = Report(
                    trial=number, epoch=epoch, metrics=metrics, baseline=BASELINE, place=place
                )
                if control.on_report(report):
                    break

    clock.watch_optuna()
    return clock.measure(work, driven) | opened


def leave_checkpoint(folder: Path, epoch: int) -> None:
    """As a worker would: a node whose checkpoints do not arrive is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"epoch-{epoch:04d}-0123456789abcdef.pt").touch()


def drive_optuna(home: Path, driven: int, *, in_memory: bool) -> dict[str, float]:
    """The same work with a study of Optuna's own: a sampler and a pruner that are kept."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = home / "sweeps" / "capacity" / "ledger.jsonl"
    before, start = memory(), time.process_time()
    storage: Any = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    sampler = optuna.samplers.TPESampler(seed=0)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)
    study = optuna.load_study(study_name="sweep", storage=storage, sampler=sampler, pruner=pruner)
    opened = {"open_s": time.process_time() - start, "memory": memory() - before}
    if in_memory:
        copied = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        copied.add_trials(study.get_trials(deepcopy=False))
        study = copied
    distributions = study.get_trials(deepcopy=False)[0].distributions

    def work(count: int) -> None:
        for _ in range(count):
            trial = study.ask(fixed_distributions=distributions)
            for epoch in (1, 2, 3):
                metrics = measured(trial.number, epoch)
                trial.report(metrics["val_auroc"], step=epoch)
                trial.set_user_attr(f"epoch:{epoch:04d}", {"metrics": metrics, "time_ms": 0})
                pruned = epoch < 3 and trial.should_prune()
                if pruned or epoch == 3:
                    trial.set_constraint("val_accuracy:min", 0.3 - metrics["val_accuracy"])
                    if pruned:
                        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    else:
                        study.tell(trial, metrics["val_auroc"])
                    break

    clock = Clock()
    clock.watch_optuna()
    return clock.measure(work, driven) | opened


class LoggedTrial:
    """What Tune's loggers ask a trial for."""

    def __init__(self, path: Path, number: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.local_path = str(path)
        self.config = {"trial": number, "params": dict.fromkeys(WIDE, 0.5)}
        self.trial_id = str(number)
        self.evaluated_params: dict[str, Any] = {}
        self.storage = self.checkpoint = None

    def init_local_path(self) -> None:
        """Made already."""


def drive_loggers(home: Path, driven: int) -> dict[str, float]:
    """Tune's JSON and CSV loggers with the same results."""
    from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback

    loggers = [JsonLoggerCallback(), CSVLoggerCallback()]

    numbers = itertools.count()

    def work(count: int) -> None:
        for number in itertools.islice(numbers, count):
            trial: Any = LoggedTrial(home / "loggers" / str(number), number)
            for logger in loggers:
                logger.log_trial_start(trial)
                for epoch in (1, 2, 3):
                    logger.log_trial_result(epoch, trial, measured(number, epoch))
                logger.log_trial_end(trial)

    return Clock().measure(work, driven)


def memory() -> int:
    """Bytes of this process that are resident now, without what is free."""
    import ctypes
    import gc

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


def child(side: str, home: Path, driven: int) -> None:
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    if side == "ours":
        found = drive_ours(home, driven, *ONE)
    elif side == TWO_OBJECTIVES:
        found = drive_ours(home, driven, *TWO)
    elif side == AT_RANDOM:
        found = drive_ours(home, driven, *ONE, "search.sampler=random")
    elif side == "tune's loggers":
        found = drive_loggers(home, driven)
    else:
        found = drive_optuna(home, driven, in_memory=side == "optuna in memory")
    print(json.dumps(found))


def commands(home: Path, many: Path, out: Callable[[str], None]) -> None:
    """CPU seconds of whole commands, imports included."""
    out("\ncommands, CPU s of the whole process, 5,000 trials:")
    of_one = [["status"], ["best"], ["leaderboard"], ["report"]]
    for words in [[*one, "capacity", "--home", str(home)] for one in of_one]:
        _command(words, words[0], out)
    out(f"and {NUM_SWEEPS} sweeps of 100 trials:")
    _command(["list", "--home", str(many)], "list, at first", out)
    _command(["list", "--home", str(many)], "list, again", out)


def _command(words: list[str], called: str, out: Callable[[str], None]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "lmoe_tune.cli.main", *words]
    done = subprocess.run(command, capture_output=True, check=False, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    out(f"  {called:16} {spent:5.2f}{'' if done.returncode == 0 else '  FAILED'}")


@contextmanager
def many_sweeps(home: Path) -> Iterator[Path]:
    """A home of many sweeps, each like the one of `home`."""
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(NUM_SWEEPS):
            copy = Path(scratch) / "sweeps" / f"sweep-{number}"
            shutil.copytree(home / "sweeps" / "capacity", copy)
        yield Path(scratch)


def filled(scratch: Path, sizes: list[int], *more: str) -> dict[int, Path]:
    """A home for each size; those that are there already are taken."""
    growing, homes = scratch / "growing", {}
    growing.mkdir(parents=True, exist_ok=True)
    for size in sizes:
        homes[size] = scratch / str(size)
        if not homes[size].exists():
            fill(growing, size, *more)
            aside = scratch / "aside"
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(growing, aside)
            aside.rename(homes[size])
    return homes


def run(side: str, home: Path, driven: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "home"
        shutil.copytree(home, copy)
        command = [sys.executable, __file__, "--child", side, "--home", str(copy)]
        command += ["--driven", str(driven)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, encoding="utf-8"
        )
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="100,1000,5000,20000")
    parser.add_argument("--driven", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="of all sides and sizes in turn")
    parser.add_argument("--sides", default=",".join(SIDES), help="which, with commas")
    parser.add_argument("--keep", type=Path, help="a folder for ledgers and results")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child, chosen.home, chosen.driven)
        return

    lines: list[str] = []

    def out(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    for line in machine("optuna", "ray"):
        out(line)
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    sizes = [int(size) for size in chosen.sizes.split(",")]
    if os.access(IN_MEMORY, os.W_OK):
        tempfile.tempdir = str(IN_MEMORY)
    with tempfile.TemporaryDirectory() as scratch:
        sides = [side for side in SIDES if side in chosen.sides.split(",")]
        keep = chosen.keep or Path(scratch)
        compare(sides, sizes, chosen.driven, chosen.rounds, keep, out)
    if chosen.out:
        chosen.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Results:
    """What was measured, kept in a file as it comes; each figure is the median of the rounds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._of: dict[str, list[dict[str, float]]] = {}
        if path.exists():
            self._of = json.loads(path.read_text(encoding="utf-8"))

    def __getitem__(self, key: tuple[str, int]) -> dict[str, float]:
        rounds = self._of[f"{key[0]} {key[1]}"]
        return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}

    def measure(self, number: int, side: str, size: int, home: Path, driven: int) -> None:
        """Round `number`, from 0, unless it is known."""
        rounds = self._of.setdefault(f"{side} {size}", [])
        if number < len(rounds):
            return
        if size > 5000 and side not in (AT_RANDOM, "tune's loggers"):
            # Optuna's TPE takes half a second for each, with two objectives two.
            driven = min(driven, 20 if side == TWO_OBJECTIVES else 60)
        rounds.append(run(side, home, driven) | {"driven": driven})
        self._path.write_text(json.dumps(self._of, indent=1), encoding="utf-8")


def of_a_trial(one: dict[str, float]) -> tuple[float, ...]:
    """Milliseconds in all, apart, and of our own."""
    return tuple(1000 * one[key] / one["driven"] for key in ("total_s", "apart_s", "own_s"))


def compare(
    sides: list[str],
    sizes: list[int],
    driven: int,
    rounds: int,
    keep: Path,
    out: Callable[[str], None],
) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    found = Results(keep / "found.json")
    of_one = filled(keep / "one", sizes, *ONE)
    of_two = filled(keep / "two", sizes, *TWO) if TWO_OBJECTIVES in sides else {}
    for number in range(rounds):
        for size in sizes:
            for side in sides:
                homes = of_two if side == TWO_OBJECTIVES else of_one
                found.measure(number, side, size, homes[size], driven)
    with many_sweeps(of_one[sizes[0]]) as many:
        commands(of_one[max(size for size in sizes if size <= 5000)], many, out)
    out(f"\nms of CPU for a trial, up to {driven} driven ones on so many finished ones:")
    out(
        f"{'':22} {'trials':>7} {'in all':>8} {'samplers, pruners':>18} {'own code':>9} {'of first':>9} {'calls':>7}"
    )
    for side in sides:
        for size in sizes:
            one = found[side, size]
            total, apart, own = of_a_trial(one)
            grown = own / of_a_trial(found[side, sizes[0]])[2]
            calls = one["own_calls"]
            out(
                f"{side:22} {size:7} {total:8.2f} {apart:18.2f} {own:9.2f} {grown:8.2f}x {calls:7.0f}"
            )
    if not {"ours", "optuna's journal"} <= set(sides):
        return
    out(
        "\nours beside Optuna's journal, in all; and kB of memory a trial above it; and CPU s to open:"
    )
    for size in sizes:
        ours, stock = found["ours", size], found["optuna's journal", size]
        more = (ours["memory"] - stock["memory"]) / size / 1000
        ratio = ours["total_s"] / stock["total_s"]
        out(
            f"{size:7} {ratio:6.2f}x {more:8.2f} kB {ours['open_s']:8.2f} s (Optuna's: {stock['open_s']:.2f} s)"
        )


if __name__ == "__main__":
    main()
