"""Is a trial held up by MLflow? The same sweep with a tracking server that is well, slow, mute, and not there.

    python benchmarks/mlflow_outage.py [--trials 8] [--epochs 10] [--rounds 5] [--out FILE]

Timed from the ledger: the longest gap between two results of the sweep, and the time from the start of its
first trial to its last result. Sides are interleaved within a round, another one goes first in each, and the
difference is to the healthy server of the same round. A run must end with exit code 0 and every epoch of
every trial in the ledger, whatever the server did; the bench ends with exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, only this folder would be there

from benchmarks.chaos_mlflow import HOST, SLOW_S, free_port, served  # noqa: E402
from benchmarks.sweep_overhead import (  # noqa: E402
    BenchmarkError,
    environment,
    lmoe_tune,
    machine,
    say,
    spread,
)
from lmoe_tune.sweep import view  # noqa: E402
from lmoe_tune.sweep.folder import SweepFolder  # noqa: E402

HEALTHY = "healthy"
SLOW = f"slow: {SLOW_S:.0f} s an answer"
MUTE = "accepts, never answers"
REFUSED = "refuses connections"
SIDES = (HEALTHY, SLOW, MUTE, REFUSED)
PATIENCE_S = 900.0


@dataclass(frozen=True)
class Run:
    """Seconds of one sweep: its longest gap between results, its training, its whole process."""

    gap_s: float
    training_s: float
    process_s: float
    delivered: bool


Runs = dict[str, list[Run]]


def run_sweep(
    folder: Path, baselines: Path | None, tracking_uri: str, trials: int, epochs: int
) -> Run:
    """A sweep in a fresh home, which gets the baseline where there is one."""
    if baselines is not None:
        shutil.copytree(baselines, folder / "lmoe_runs" / "baselines")
    folder.mkdir(exist_ok=True)
    words = ("search", "digits", "--trials", str(trials), "--set", f"train.epochs={epochs}")
    began = time.monotonic()
    done = subprocess.run(
        [*lmoe_tune(*words), "--set", "search.pruner=none"],
        cwd=folder,
        env=environment() | {"MLFLOW_TRACKING_URI": tracking_uri},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        encoding="utf-8",
    )
    process_s = time.monotonic() - began
    if done.returncode != 0:
        raise BenchmarkError(
            f"exit code {done.returncode} with {tracking_uri}:\n{done.stderr[-2000:]}"
        )
    found = view.read_sweep(SweepFolder(folder / "lmoe_runs", "digits")).trials()
    if [len(trial.epochs) for trial in found] != [epochs] * trials:
        raise BenchmarkError(
            f"results are missing with {tracking_uri}: {[len(trial.epochs) for trial in found]}"
        )
    times = sorted(epoch.time_ms for trial in found for epoch in trial.epochs)
    gap_ms = max(later - earlier for earlier, later in itertools.pairwise(times))
    training_ms = times[-1] - min(trial.started_ms for trial in found)
    return Run(gap_ms / 1000, training_ms / 1000, process_s, "lmoe-tune sync" not in done.stderr)


def bench(args: argparse.Namespace, folder: Path) -> None:
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"this machine is busy (load {load:.1f}): the differences will be rough")
    (folder / "server").mkdir()
    with ExitStack() as stack:
        proxy = stack.enter_context(served(folder / "server"))
        mute = stack.enter_context(
            socket.create_server((HOST, 0))
        )  # the kernel accepts; nobody reads
        uris = {
            HEALTHY: proxy.uri,
            SLOW: proxy.uri,
            MUTE: uri(mute.getsockname()[1]),
            REFUSED: uri(free_port()),
        }
        say("training a baseline, and warming the disk")
        run_sweep(folder / "first", None, proxy.uri, 2, args.epochs)
        baselines = folder / "first" / "lmoe_runs" / "baselines"

        def run(side: str, name: str) -> Run:
            with proxy.failing("slow" if side == SLOW else ""):
                found = run_sweep(folder / name, baselines, uris[side], args.trials, args.epochs)
            shutil.rmtree(folder / name)
            return found

        runs: Runs = {side: [] for side in SIDES}
        for round_ in range(args.rounds):
            shift = round_ % len(SIDES)
            for side in [*SIDES[shift:], *SIDES[:shift]]:
                runs[side].append(run(side, f"{round_}"))
                last = runs[side][-1]
                say(
                    f"round {round_ + 1} of {args.rounds}, {side}: longest gap {last.gap_s:.2f} s,"
                    f" training {last.training_s:.1f} s"
                )
    text = "\n".join([*machine(load), "", *table(runs, args)])
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


def uri(port: int) -> str:
    return f"http://{HOST}:{port}"


def table(runs: Runs, args: argparse.Namespace) -> Iterator[str]:
    yield (
        f"{args.trials} trials of {args.epochs} epochs of digits; seconds: median (min–max) of {args.rounds} rounds,"
        " and the difference to the healthy server of the same round"
    )
    titles = (
        f"{'MLflow':<24}{'longest gap':>20}{'difference':>23}{'training':>22}{'difference':>23}"
    )
    yield f"{titles}{'process':>22}  delivered"
    for side, found in runs.items():
        gaps, trainings = [run.gap_s for run in found], [run.training_s for run in found]
        pairs = list(zip(found, runs[HEALTHY], strict=True))
        gap_more = [run.gap_s - healthy.gap_s for run, healthy in pairs]
        training_more = [run.training_s - healthy.training_s for run, healthy in pairs]
        more = (
            [spread(gap_more, "+.2f"), spread(training_more, "+.1f")]
            if side != HEALTHY
            else ["-", "-"]
        )
        delivered = f"{sum(run.delivered for run in found)} of {len(found)}"
        yield (
            f"{side:<24}{spread(gaps, '.2f'):>20}{more[0]:>23}{spread(trainings, '.1f'):>22}{more[1]:>23}"
            f"{spread([run.process_s for run in found], '.1f'):>22}  {delivered}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Is a trial held up by MLflow?")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    args = parser.parse_args()
    if args.trials < 1 or args.epochs < 2 or args.rounds < 1:
        parser.error("--trials and --rounds must be at least 1, --epochs at least 2")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # the server is a process of its own, and must end
    try:
        with tempfile.TemporaryDirectory(
            prefix="mlflow-outage-", ignore_cleanup_errors=True
        ) as folder:
            bench(args, Path(folder))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
