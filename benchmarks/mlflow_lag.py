"""Does MLflow keep up? Results come at a steady rate; how long until each is in MLflow, and does that grow?

    python benchmarks/mlflow_lag.py [--rate 100] [--epochs 2.5,5] [--seconds 60]
        [--stores sqlite-file,sqlite,postgresql] [--out FILE]

A sweep without training: 32 trials at a time, `--epochs` each on average (one to ten) of 16 metrics, and `--rate`
results a second. A trial costs the server three requests, however many epochs it has when it is behind, so fewer
epochs are harder. The projection delivers it as the sweep's own process does, in passes of two seconds: over HTTP to
MLflow's server on an SQLite file or on PostgreSQL, or straight into an SQLite file. A result's lag is counted from
when it was reported to the end of the pass that delivered it; `--beside` adds one request at a time, which is how it
was. Everything must be in MLflow in the end, once, or the bench ends with exit code 1. PostgreSQL's programs are
Debian's package `postgresql`; MLflow's server needs `pip install psycopg2-binary`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, only this folder would be there

from benchmarks.chaos_mlflow import HOST, free_port  # noqa: E402
from benchmarks.sweep_overhead import BenchmarkError, machine, say  # noqa: E402
from lmoe_tune.processes import safe_environment  # noqa: E402
from lmoe_tune.records import EpochRecord, TrialRecord  # noqa: E402
from lmoe_tune.snapshot import SweepSnapshot  # noqa: E402
from lmoe_tune.sweep.delivery import PASS_S, POLL_S  # noqa: E402
from lmoe_tune.tracking import Projection, projection  # noqa: E402
from lmoe_tune.tracking.settings import SETTINGS  # noqa: E402

STORES = ("sqlite-file", "sqlite", "postgresql")
SLOTS, NUM_METRICS = 32, 16
START_TIMEOUT_S = 120.0


@dataclass
class Load:
    """Results at a steady rate, as the ledger would show them at this moment."""

    rate: float
    seconds: float
    epochs: float
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    trials: list[TrialRecord] = field(default_factory=list)
    reported: list[tuple[int, int, float]] = field(default_factory=list)
    """(trial, epoch, when)."""
    _lengths: list[int] = field(default_factory=list)
    _running: list[int] = field(default_factory=list)
    _started: float = 0.0

    @property
    def is_over(self) -> bool:
        return len(self.reported) >= self.rate * self.seconds

    def go_on(self) -> None:
        """Report what is due by now."""
        now = time.monotonic()
        self._started = self._started or now
        due = min(self.rate * self.seconds, (now - self._started) * self.rate)
        while len(self.reported) < due:
            self._report(self._started + len(self.reported) / self.rate)

    def _report(self, when: float) -> None:
        if len(self._running) < SLOTS:
            self._begin()
        number = self._running.pop(0)
        trial = self.trials[number]
        time_ms = int(1000 * time.time())
        metrics = {f"metric_{place}": self.chance.random() for place in range(NUM_METRICS)}
        epochs = (*trial.epochs, EpochRecord(len(trial.epochs) + 1, metrics, time_ms))
        self.reported.append((number, len(epochs), when))
        if len(epochs) < self._lengths[number]:
            self._running.append(number)
            self.trials[number] = changed(trial, epochs=epochs)
        else:
            self.trials[number] = changed(trial, epochs=epochs, state="complete", ended_ms=time_ms)

    def _begin(self) -> None:
        number = len(self.trials)
        params = {"alpha": self.chance.random(), "weight": self.chance.random()}
        self.trials.append(TrialRecord(number, "running", params, (), int(1000 * time.time())))
        length = 1
        while length < 10 and self.chance.random() > 1 / self.epochs:
            length += 1
        self._lengths.append(length)
        self._running.append(number)


def changed(trial: TrialRecord, **values: Any) -> TrialRecord:
    """The trial a moment later."""
    return TrialRecord(**(vars(trial) | values))


class Now(Sequence[TrialRecord]):
    """The trials that have been started at this moment."""

    def __init__(self, trials: list[TrialRecord]) -> None:
        self._trials = list(trials)

    def __len__(self) -> int:
        return len(self._trials)

    @overload
    def __getitem__(self, number: int) -> TrialRecord: ...
    @overload
    def __getitem__(self, number: slice) -> list[TrialRecord]: ...
    def __getitem__(self, number: int | slice) -> TrialRecord | list[TrialRecord]:
        return self._trials[number]


def snapshot(load: Load, state: str, sweep_id: str) -> SweepSnapshot:
    """The picture of the sweep at this moment."""
    return SweepSnapshot(
        sweep="lag",
        sweep_id=sweep_id,
        experiment="lag",
        state=state,  # type: ignore[arg-type]
        spec_yaml="name: lag\n",
        trainable="logit_mixoe",
        objective="metric_0",
        direction="maximize",
        started_ms=1,
        trials=Now(load.trials),
        best=None,
        feasible=False,
        baseline=None,
        searched=("alpha", "weight"),
    )


@dataclass(frozen=True)
class Measured:
    """Lags in seconds, in the order of the results; what the projection's process used."""

    lags: list[float]
    rest_s: float
    cpu_s: float
    memory_mb: float
    num_trials: int

    def row(self, name: str, server_s: float) -> str:
        half = len(self.lags) // 2
        first, second = max(self.lags[:half]), max(self.lags[half:])
        return (
            f"{name:34} {len(self.lags):7d} {statistics.median(self.lags):8.1f} {first:12.1f} {second:12.1f} "
            f"{self.rest_s:8.1f} {self.cpu_s:7.1f} {server_s:9.1f} {self.memory_mb:8.0f}"
        )


def run(uri: str, load: Load) -> Measured:
    """One sweep at this rate into this store; every result must be there in the end, once."""
    to = Projection(uri)
    sweep_id = f"5d0f0f0c-0000-4000-8000-{os.getpid():012d}"
    to.project(snapshot(load, "running", sweep_id))  # its start is not measured
    lags: list[float] = []
    before = resource.getrusage(resource.RUSAGE_SELF)
    pending: list[tuple[int, int, float]] = []
    while not load.is_over or pending:
        load.go_on()
        pending += load.reported[len(lags) + len(pending) :]
        found = to.project(snapshot(load, "running", sweep_id), limit_s=PASS_S)
        done = time.monotonic()
        seen = len(load.trials) - found.num_left
        still = [one for one in pending if one[0] >= seen and found.num_left]
        lags += [done - when for number, _, when in pending if number < seen or not found.num_left]
        pending = still
        if load.is_over and not found.num_left:
            break
        if not found.num_left:
            time.sleep(POLL_S)
    over = time.monotonic()
    while to.project(snapshot(load, "complete", sweep_id), limit_s=PASS_S).num_left:
        pass
    after = resource.getrusage(resource.RUSAGE_SELF)
    check(uri, load)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(lags, time.monotonic() - over, cpu_s, after.ru_maxrss / 1024, len(load.trials))


def check(uri: str, load: Load) -> None:
    """Raise where MLflow does not have each result once."""
    from mlflow import MlflowClient
    from mlflow.entities import Run

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("lag")
    assert experiment is not None
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], "tags.`lmoe_tune.kind` = 'trial'", page_token=token
        )
        found += page
        token = page.token
        if not token:
            break
    epochs = sum(int(one.data.metrics.get("epochs_trained", 0)) for one in found)
    expected = sum(len(trial.epochs) for trial in load.trials if trial.state != "running")
    if (len(found), epochs) != (len(load.trials), expected):
        raise BenchmarkError(
            f"MLflow has {len(found)} trials with {epochs} epochs, but {len(load.trials)} with {expected} were reported"
        )


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A database server of its own on a free port of this machine."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        raise BenchmarkError("PostgreSQL is missing: apt-get install postgresql")
    data, port = folder / "postgresql", free_port()
    data.mkdir()
    shutil.chown(data, "postgres")
    folder.chmod(0o755)

    def as_postgres(program: str, *words: str) -> list[str]:
        command = [str(programs[-1] / program), *words]
        return ["runuser", "-u", "postgres", "--", *command] if os.getuid() == 0 else command

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run(as_postgres("initdb", "-D", str(data), "-A", "trust"), check=True, **quiet)  # type: ignore[call-overload]
    options = ("-D", str(data), "-p", str(port), "-h", HOST, "-k", str(data))
    server = subprocess.Popen(as_postgres("postgres", *options), **quiet)  # type: ignore[call-overload]
    try:
        give_up = time.monotonic() + START_TIMEOUT_S
        while subprocess.run(
            as_postgres("createdb", "-h", HOST, "-p", str(port), "mlflow"),
            check=False,
            **quiet,  # type: ignore[call-overload]
        ).returncode:
            if time.monotonic() > give_up:
                raise BenchmarkError("PostgreSQL did not start")
            time.sleep(0.5)
        yield f"postgresql+psycopg2://postgres@{HOST}:{port}/mlflow"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def served(uri: str, folder: Path) -> Iterator[str]:
    """MLflow's own server over a store, as its documentation starts it."""
    import urllib.request

    port = free_port()
    command = [
        *(sys.executable, "-P", "-m", "mlflow", "server", "--host", HOST, "--port", str(port)),
        *("--backend-store-uri", uri, "--artifacts-destination", str(folder / "artifacts")),
        *("--workers", "2", "--uvicorn-opts", "--log-level error"),
    ]
    settings = safe_environment() | SETTINGS | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(
            command, env=settings, cwd="/", stdout=log, stderr=log, start_new_session=True
        )
    try:
        give_up = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > give_up:
                    raise BenchmarkError("MLflow's server did not start") from None
                time.sleep(0.5)
        yield f"http://{HOST}:{port}"
    finally:
        os.killpg(server.pid, 15)
        server.wait()


@contextmanager
def store(kind: str, folder: Path) -> Iterator[str]:
    """The address of a new store of this kind."""
    if kind == "sqlite-file":
        yield f"sqlite:///{folder}/mlflow.db"
    elif kind == "sqlite":
        from lmoe_tune.tracking.store import connect

        connect(f"sqlite:///{folder}/mlflow.db")
        with served(f"sqlite:///{folder}/mlflow.db", folder) as uri:
            yield uri
    else:
        with postgresql(folder) as database, served(database, folder) as uri:
            yield uri


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=100.0, help="results a second")
    parser.add_argument("--epochs", default="2.5,5", help="of a trial on average, with commas")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they come")
    parser.add_argument("--stores", default=",".join(STORES), help="which, with commas")
    parser.add_argument(
        "--beside", action="store_true", help="the servers with one request at a time, too"
    )
    parser.add_argument(
        "--one", nargs=3, metavar=("STORE", "THREADS", "EPOCHS"), help=argparse.SUPPRESS
    )
    parser.add_argument("--out", type=Path, help="also write the figures there")
    return parser.parse_args()


def measure_one(kind: str, threads: int, epochs: float, args: argparse.Namespace) -> str:
    """One row; in a process of its own, as MLflow keeps connections and memory."""
    projection._REQUESTS_AT_A_TIME = threads
    with (
        tempfile.TemporaryDirectory(prefix="lmoe-lag-") as scratch,
        store(kind, Path(scratch)) as uri,
    ):
        found = run(uri, Load(args.rate, args.seconds, epochs))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # the servers have ended
    how = "" if kind == "sqlite-file" else f", {threads} at a time"
    return found.row(f"{kind}{how}, {epochs:g} epochs", used.ru_utime + used.ru_stime)


def main() -> int:
    args = parse_arguments()
    if args.one is not None:
        kind, threads, epochs = args.one
        print(measure_one(kind, int(threads), float(epochs), args), flush=True)
        return 0

    lines = [
        *machine(os.getloadavg()[0]),
        f"{args.rate:g} results a second for {args.seconds:g} s; lags in seconds",
    ]
    lines.append(
        f"{'store':34} {'results':>7} {'median':>8} {'max, 1st half':>12} {'max, 2nd half':>12} "
        f"{'rest':>8} {'CPU s':>7} {'of server':>9} {'MB':>8}"
    )
    for line in lines:
        say(line)
    kinds = args.stores.split(",")
    at_a_time = projection._REQUESTS_AT_A_TIME
    rows = [(kind, 1 if kind == "sqlite-file" else at_a_time) for kind in kinds]
    rows += [(kind, 1) for kind in kinds if kind != "sqlite-file" and args.beside]
    for (kind, threads), epochs in itertools.product(rows, args.epochs.split(",")):
        command = [sys.executable, __file__, "--one", kind, str(threads), epochs]
        command += ["--rate", str(args.rate), "--seconds", str(args.seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
        if done.returncode:
            return 1
        lines.append(done.stdout.rstrip("\n"))
        say(lines[-1])
        if args.out is not None:  # after each: a row takes minutes where a store does not keep up
            args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
