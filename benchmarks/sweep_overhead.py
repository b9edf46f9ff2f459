"""What a whole sweep costs, compared with training the same configurations in a bare loop.

    python benchmarks/sweep_overhead.py [--trials 8 32] [--rounds 3] [--only floor,ours] [--out FILE]
    python benchmarks/sweep_overhead.py --check

Everybody trains the same N configurations of the digits space from the same baseline, ten epochs each,
two at a time with one thread each:

    floor        two bare processes (`peers/bare_loop.py`): no search, no records
    stock        Ray Tune + OptunaSearch + MLflowLoggerCallback (`peers/stock_ray.py`)
    stock_reuse  the same as a class with `reuse_actors=True`
    ours         `lmoe-tune search digits` with everything on: ledger, checkpoints, MLflow, logged models;
                 nothing is pruned, and the configurations are given as `search.start_from`

What is measured is the wall time of whole processes, from the start of the first to the end of the last.
Every run has a fresh home, so every side also trains the baseline once, and that time counts: in the
floor's process 0 (process 1 waits for it), in the stock script before its sweep, in the first worker of
ours. Not measured: the digits are read with lmoe_tune's own reader and saved as one file for floor and
stock, and every library is imported once beforehand, so that no side pays for a cold disk.

Images, splits, network, optimizer, schedule, epochs and the outliers of every step are the same. The
mathematics differ in what is a setting of ours: one joint forward, where public code makes three, and
bf16 where the CPU has it; so compare the means of the results, not single trials. `--check` takes those
away (batch_norm: separate, fp32, and a floor in which only in-distribution images move BatchNorm's
running statistics, as in ours) and trains two epochs gently: all metrics must then be equal to rounding.
Ten epochs at the usual learning rates would amplify the rounding of the first steps to 0.01 AUROC.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "benchmarks" / "peers"
NEEDED = ("mlflow", "numpy", "optuna", "pydantic", "ray", "sklearn", "torch", "typer")
SHOWN_VERSIONS = ("lmoe-tune", "torch", "ray", "optuna", "mlflow")
SIDES = ("floor", "stock", "stock_reuse", "ours")
STOCK_TRIALS = 8
NUM_PROCESSES = 2
TIMEOUT_S = 1800
# The check: so few and small steps that the last bits of the first ones stay last bits.
CHECKED = {"baseline": {"epochs": 2, "lr": 0.01}, "train": {"epochs": 2, "lr": 0.001}}
CHECKED_METRICS = ("train_loss", "val_accuracy", "val_fine_auroc", "val_coarse_auroc", "val_auroc")
TOLERANCE = 0.001  # of AUROC, some 40 of the pairs that it counts
# Settings of the person who runs this that would change where a side reads or writes.
LEFT_OUT = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "LMOE_TUNE_HOME",
    "RAY_ADDRESS",
    "OMP_NUM_THREADS",
)

Work = dict[str, Any]


class BenchmarkError(Exception):
    """Something that the person who runs this can do something about."""


@dataclass(frozen=True)
class Run:
    """`results[i]` are the last metrics of configuration i."""

    wall_s: float
    results: list[dict[str, float]]


@dataclass
class Runs:
    """The runs of all rounds, by number of trials and side."""

    of: dict[tuple[int, str], list[Run]] = field(default_factory=dict)

    def add(self, trials: int, side: str, run: Run) -> None:
        self.of.setdefault((trials, side), []).append(run)

    def ratios(self, trials: int, side: str) -> list[float]:
        """To the floor of the same round."""
        pairs = zip(self.of[trials, side], self.of.get((trials, "floor"), []), strict=False)
        return [run.wall_s / floor.wall_s for run, floor in pairs]


def main() -> int:
    args = parse_arguments()
    sides = [side for side in SIDES if side in args.only]
    try:
        refuse_incomplete_environment()
        with tempfile.TemporaryDirectory(prefix="sweep-", ignore_cleanup_errors=True) as folder:
            work = prepare_work(Path(folder))
            return check(work) if args.check else compare(work, sides, args)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Wall time of a whole sweep, as a ratio to a bare loop."
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[8, 32], metavar="N")
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        metavar="R",
        help="how often everything is run, interleaved",
    )
    parser.add_argument(
        "--only",
        type=side_names,
        default=list(SIDES),
        metavar="A,B",
        help=f"a subset of {','.join(SIDES)}",
    )
    parser.add_argument(
        "--stock-trials",
        type=int,
        nargs="*",
        metavar="N",
        help=f"numbers of trials for stock (default {STOCK_TRIALS})",
    )
    parser.add_argument(
        "--check", action="store_true", help="compare results where the mathematics are equal"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    args = parser.parse_args()
    if args.rounds < 1 or min(args.trials) < NUM_PROCESSES:
        parser.error(f"--rounds must be at least 1, and --trials at least {NUM_PROCESSES}")
    if args.stock_trials is None:
        args.stock_trials = [STOCK_TRIALS]
    return args


def side_names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SIDES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: must be of {', '.join(SIDES)}")
    return names


def refuse_incomplete_environment() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise BenchmarkError(
            f"{sys.executable} lacks {', '.join(missing)}; run this with a Python that has the project "
            "installed (pip install -e . -c constraints.txt)"
        )


# What is trained


def prepare_work(folder: Path) -> Work:
    """The settings of the digits space, and its images in one file, for the peers to read."""
    sys.path.insert(0, str(ROOT))
    import numpy as np

    from lmoe_tune.data import load_search_data
    from lmoe_tune.spec import load_spec
    from trainables import declarations

    spec = load_spec(ROOT / "search_spaces" / "digits.yaml", declarations=declarations()).spec
    data = load_search_data(spec.data)
    assert data.is_embedded, "the digits are pixels"
    pixels: dict[str, Any] = {name: part.pixels for name, part in data.parts().items()}
    np.savez(
        folder / "digits.npz",
        mean=data.mean,
        std=data.std,
        train_labels=data.train_labels,
        val_labels=data.val_labels,
        **pixels,
    )
    shared = {
        "momentum": spec.train.momentum,
        "min_lr": spec.train.min_lr,
        "seed": spec.search.seed,
    }
    own = {"epochs", "batch_size", "lr", "weight_decay"}
    return {
        "data": str(folder / "digits.npz"),
        "arch": spec.model.arch,
        "num_classes": data.num_classes,
        "in_channels": data.image_shape[0],
        "baseline": spec.model.baseline.model_dump(include=own) | shared,
        "train": spec.train.model_dump(include=own) | shared,
        "space": {
            name: {"low": known.low, "high": known.high, "log": known.log}
            for name, known in spec.space.items()
        },
    }


def with_configurations(work: Work, count: int) -> Work:
    """`count` configurations drawn from the space; the first ones are the same for every count."""
    import numpy as np

    rng = np.random.default_rng(0)

    def draw(low: float, high: float, log: bool) -> float:
        drawn = float(
            np.exp(rng.uniform(np.log(low), np.log(high))) if log else rng.uniform(low, high)
        )
        return round(drawn, 4)

    configurations = [
        {name: draw(**known) for name, known in work["space"].items()} for _ in range(count)
    ]
    return work | {"configurations": configurations}


# The sides


def run_side(side: str, work: Work, *, equal_maths: bool = False) -> Run:
    """One side in a fresh home, as processes of its own."""
    with tempfile.TemporaryDirectory(prefix="sweep-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        work = work | {"home": folder, "baseline_path": str(home / "baseline.pt")}
        (home / "work.json").write_text(json.dumps(work), encoding="utf-8")
        if side == "ours":
            wall_s, _ = timed([search_command(work, equal_maths)], home)
            refuse_unfinished_records(side, work, home)
            return Run(wall_s, results_of_search(work, home))
        peer = [
            sys.executable,
            str(PEERS / ("bare_loop.py" if side == "floor" else "stock_ray.py")),
        ]
        peer.append(str(home / "work.json"))
        commands = [[*peer, *(["--reuse-actors"] if side == "stock_reuse" else [])]]
        if side == "floor":
            own = ["--running-stats", "id"] if equal_maths else []
            commands = [
                [*peer, str(number), str(NUM_PROCESSES), *own] for number in range(NUM_PROCESSES)
            ]
        wall_s, printed = timed(commands, home)
        if side != "floor":
            refuse_unfinished_records(side, work, home)
        rows = [json.loads(line) for line in printed.splitlines() if line.startswith('{"params"')]
        return Run(wall_s, in_order(work, side, rows))


def search_command(work: Work, equal_maths: bool) -> list[str]:
    configurations = work["configurations"]
    settings = ["search.pruner=none", f"search.start_from={json.dumps(configurations)}"]
    if equal_maths:
        settings += ["fixed.batch_norm=separate", "train.precision=fp32"]
        settings += [
            f"model.baseline.{name}={value}" for name, value in CHECKED["baseline"].items()
        ]
        settings += [f"train.{name}={value}" for name, value in CHECKED["train"].items()]
    return [
        *lmoe_tune("search", "digits", "--name", "overhead", "--home", work["home"]),
        *("--trials", str(len(configurations))),
        *(word for setting in settings for word in ("--set", setting)),
    ]


def lmoe_tune(*words: str) -> list[str]:
    """The command line of this checkout, whether or not its script is on the PATH."""
    return [sys.executable, "-m", "lmoe_tune.cli.main", *words]


def results_of_search(work: Work, home: Path) -> list[dict[str, float]]:
    _, printed = timed(
        [lmoe_tune("leaderboard", "overhead", "--home", work["home"], "--format", "json")], home
    )
    rows = json.loads(printed)
    for row in rows:
        if row["state"] != "complete" or row["epochs"] != work["train"]["epochs"]:
            raise BenchmarkError(
                f"ours: trial {row['trial']} is {row['state']} after {row['epochs']} epochs"
            )
    return in_order(work, "ours", rows)


def refuse_unfinished_records(side: str, work: Work, home: Path) -> None:
    """At the end of the timed process MLflow must hold every trial: nothing is left to do for a later one."""
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as database:
        found = dict(
            database.execute("SELECT status, COUNT(*) FROM runs GROUP BY status").fetchall()
        )
    if found.get("FINISHED", 0) < len(work["configurations"]) or found.keys() != {"FINISHED"}:
        raise BenchmarkError(f"{side}: when it ended, MLflow's runs were {found}")


def in_order(work: Work, side: str, rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The metrics by configuration; refuses a side that has not trained exactly what was asked for."""
    found = {key_of(row["params"]): row["metrics"] for row in rows}
    wanted = [key_of(configuration) for configuration in work["configurations"]]
    if len(rows) != len(wanted) or set(found) != set(wanted):
        raise BenchmarkError(
            f"{side}: trained {len(rows)} trials, not the {len(wanted)} configurations it was given"
        )
    return [found[key] for key in wanted]


def key_of(params: dict[str, float]) -> str:
    return json.dumps(params, sort_keys=True)


def timed(commands: Sequence[Sequence[str]], folder: Path) -> tuple[float, str]:
    """Run the commands side by side to their ends; seconds, and what they printed one after the other.

    Raises:
        BenchmarkError: one of them failed or took too long; the others are then ended.
    """
    outputs = [folder / f"output-{number}.txt" for number in range(len(commands))]
    errors = [folder / f"errors-{number}.txt" for number in range(len(commands))]
    with contextlib.ExitStack() as stack:
        files = [
            (
                stack.enter_context(a.open("w", encoding="utf-8")),
                stack.enter_context(b.open("w", encoding="utf-8")),
            )
            for a, b in zip(outputs, errors, strict=True)
        ]
        started = time.perf_counter()
        processes = [
            # a session of its own, so that what it started can be ended with it
            subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment(),
                start_new_session=True,
            )
            for command, (out, err) in zip(commands, files, strict=True)
        ]
        try:
            failed = first_failure(processes, started + TIMEOUT_S)
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        wall_s = time.perf_counter() - started
    if failed is not None:
        last = "\n".join(
            (
                outputs[failed].read_text(encoding="utf-8")
                + errors[failed].read_text(encoding="utf-8")
            ).splitlines()[-20:]
        )
        code = processes[failed].returncode
        raise BenchmarkError(f"{' '.join(commands[failed])[:200]} ended with {code}:\n{last}")
    return wall_s, "".join(output.read_text(encoding="utf-8") for output in outputs)


def first_failure(processes: Sequence[subprocess.Popen[bytes]], deadline: float) -> int | None:
    """Wait until all have ended well (None), or one has not; the number of that one."""
    while True:
        codes = [process.poll() for process in processes]
        for number, code in enumerate(codes):
            if code not in (None, 0):
                return number
        if all(code == 0 for code in codes):
            return None
        if time.perf_counter() > deadline:
            return codes.index(None)
        time.sleep(0.01)


def environment() -> dict[str, str]:
    """The same for all sides: this checkout, nothing sent to anybody, no settings of whoever runs it."""
    kept = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | {
        "PYTHONPATH": path,
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Ray then listens on loopback alone; it replaces `_node_ip_address="127.0.0.1"` by the machine's own
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


# What is printed


def compare(work: Work, sides: list[str], args: argparse.Namespace) -> int:
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"this machine is busy (load {load:.1f}): the ratios will be rough")
    say("importing everything once")
    timed(
        [
            [
                sys.executable,
                "-c",
                "import mlflow, optuna, sklearn.metrics, torch; from ray import tune",
            ]
        ],
        Path(work["data"]).parent,
    )
    runs = Runs()
    for round_ in range(args.rounds):
        for trials in args.trials:
            chosen = [
                side
                for side in sides
                if not side.startswith("stock") or trials in args.stock_trials
            ]
            # another one goes first each time, so that whatever drifts does not always meet the same side
            shift = round_ % max(1, len(chosen))
            for side in [*chosen[shift:], *chosen[:shift]]:
                run = run_side(side, with_configurations(work, trials))
                runs.add(trials, side, run)
                say(
                    f"round {round_ + 1} of {args.rounds}, {trials} trials, {side}: {run.wall_s:.1f} s"
                )
    text = "\n".join([*machine(load), "", *wall_time_table(runs), "", *result_tables(runs)])
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")
    return 0


def check(work: Work) -> int:
    """Ours against the floor, where both compute the same; 1 if they disagree."""
    work = with_configurations(work, STOCK_TRIALS)
    work |= {part: work[part] | settings for part, settings in CHECKED.items()}
    floor, ours = (run_side(side, work, equal_maths=True).results for side in ("floor", "ours"))
    print(
        f"largest difference of ours to the floor in {len(floor)} trials, where the mathematics are equal"
    )
    largest = 0.0
    for metric in CHECKED_METRICS:
        difference = max(abs(a[metric] - b[metric]) for a, b in zip(ours, floor, strict=True))
        print(f"{metric:<18}{difference:.6f}")
        largest = max(largest, difference)
    print(f"{'equal' if largest <= TOLERANCE else 'NOT equal'} (allowed: {TOLERANCE})")
    return 0 if largest <= TOLERANCE else 1


def machine(load: float) -> Iterator[str]:
    yield f"CPU      {cpu_model()}, {len(os.sched_getaffinity(0))} cores; load at the start {load:.1f}"
    versions = [f"Python {platform.python_version()}"]
    for name in SHOWN_VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # run from a checkout
            versions.append(f"{name} {importlib.metadata.version(name)}")
    yield f"versions {', '.join(versions)}"


def cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                bf16 = (
                    "with"
                    if "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
                    else "without"
                )
                return f"{line.split(':', 1)[1].strip()} ({bf16} bf16)"
    return platform.machine()


def wall_time_table(runs: Runs) -> Iterator[str]:
    yield "whole-process wall time: median (min–max) over the rounds; ratio to the floor of the same round"
    yield f"{'trials':>6}  {'side':<12}{'seconds':>24}{'ratio':>24}"
    for (trials, side), found in sorted(
        runs.of.items(), key=lambda item: (item[0][0], SIDES.index(item[0][1]))
    ):
        seconds = spread([run.wall_s for run in found], ".1f")
        ratios = runs.ratios(trials, side)
        yield f"{trials:>6}  {side:<12}{seconds:>24}{spread(ratios, '.2f') if ratios else '-':>24}"


def spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def result_tables(runs: Runs) -> Iterator[str]:
    """The last val_auroc of every configuration on every side, from the first round."""
    for trials in sorted({trials for trials, _ in runs.of}):
        sides = [side for side in SIDES if (trials, side) in runs.of]
        values = {side: aurocs(runs, trials, side) for side in sides}
        yield f"val_auroc after the last epoch, {trials} trials"
        yield "  ".join(f"{name:>11}" for name in ("trial", *sides))
        for number in range(trials):
            yield "  ".join(
                [f"{number:>11}", *(f"{values[side][number]:>11.5f}" for side in sides)]
            )
        yield "  ".join(
            [f"{'mean':>11}", *(f"{statistics.fmean(values[side]):>11.5f}" for side in sides)]
        )
        if {"floor", "ours"} <= set(sides):
            mean = statistics.fmean(differences(runs, trials))
            yield f"mean absolute difference of ours to the floor: {mean:.5f}"
        yield ""


def aurocs(runs: Runs, trials: int, side: str) -> list[float]:
    return [metrics["val_auroc"] for metrics in runs.of[trials, side][0].results]


def differences(runs: Runs, trials: int) -> list[float]:
    both = zip(aurocs(runs, trials, "ours"), aurocs(runs, trials, "floor"), strict=True)
    return [abs(ours - floor) for ours, floor in both]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
