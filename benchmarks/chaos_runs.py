"""One run of a sweep under faults: start or resume it, do what a plan says, and see how it ends.

Used by `chaos.py` and by the tests.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import chaos_faults as faults
from benchmarks.chaos_faults import Driver, Moment
from benchmarks.chaos_mlflow import Proxy
from benchmarks.marked_steps import read_marks
from benchmarks.sweep_overhead import environment
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.records import TrialRecord
from lmoe_tune.sweep import view
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.training.baseline_record import read_baseline_record

KILL = "driver and all its processes killed"
ENDS = {
    KILL: 6.0,
    "driver alone killed": 1.0,
    "SIGTERM": 1.0,
    "SIGINT": 1.0,
    "raylet killed": 1.0,
    "control store (GCS) killed": 0.5,
}
WORKER_KILLED, WORKER_STOPPED, PROJECTOR_KILLED = (
    "worker killed",
    "worker stopped (hangs)",
    "projector killed",
)
DATABASE_LOCKED = "MLflow database locked"
TRUNCATED, FLIPPED, TORN = (
    "newest checkpoint truncated",
    "newest checkpoint bit-flipped",
    "ledger torn",
)
NOT_INTERRUPTING = (PROJECTOR_KILLED, DATABASE_LOCKED, TORN)
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
EPOCH_TIMEOUT_S = 6.0  # the spec's; an epoch takes half a second
STOPPED_FOR_S = EPOCH_TIMEOUT_S + 45  # between two epochs it is noticed later
STUCK_AFTER_S = 180.0
LEFT_BEHIND_AFTER_S = 10.0


@dataclass(frozen=True)
class Plan:
    """The faults of one run: some while it works, one that ends it, and damage before the next."""

    during: tuple[tuple[str, Moment], ...] = ()
    end: tuple[str, Moment] | None = None
    damage: str | None = None


@dataclass
class Tally:
    """What was done to sweeps, and how they fared."""

    faults: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    num_runs: int = 0
    resumed_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Runs that got stuck or ended in another way than they should."""
    bench_killed: int = 0
    """Stopped workers that nothing but this bench ended."""

    @property
    def kills(self) -> int:
        return self.faults[KILL]

    @property
    def others(self) -> int:
        return sum(self.faults.values()) - self.kills

    @property
    def interruptions(self) -> int:
        """Faults that may cost each running trial up to an epoch."""
        return sum(count for kind, count in self.faults.items() if not is_harmless(kind))


def is_harmless(kind: str) -> bool:
    return kind in NOT_INTERRUPTING or kind.startswith("MLflow")


@dataclass
class Victim:
    """A sweep, the commands that start and resume it, and what was seen of it between the runs."""

    cwd: Path
    name: str
    search: tuple[str, ...]
    tracking_uri: str | None = None
    """None: the SQLite file under its home."""
    database: Path = Path()
    proxy: Proxy | None = None
    seen: list[list[TrialRecord]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.tracking_uri is None:
            self.database = self.folder.home / "mlflow.db"

    @property
    def folder(self) -> SweepFolder:
        return SweepFolder(self.cwd / "lmoe_runs", self.name)

    def start(self) -> Driver:
        more = {"MLFLOW_TRACKING_URI": self.tracking_uri} if self.tracking_uri else {}
        command = ["resume"] if self.folder.exists() else ["search", *self.search]
        return Driver(command, self.cwd, environment() | more, str(self.cwd))

    def trials(self) -> list[TrialRecord]:
        try:
            return view.read_sweep(self.folder).trials()
        except (LmoeTuneError, FileNotFoundError):  # killed before there was one
            return []

    def is_done(self) -> bool:
        """Complete, and delivered to MLflow."""
        try:
            ledger = view.read_sweep(self.folder)
        except (LmoeTuneError, FileNotFoundError):
            return False
        uri = self.tracking_uri or f"sqlite:///{self.database}"
        return ledger.is_complete() and view.tracking_of(ledger, uri).runs == ledger.num_runs()


def run_once(victim: Victim, plan: Plan, tally: Tally, rng: random.Random) -> None:
    """Start or resume a sweep, and do to it what the plan says; afterwards none of its processes is left."""
    resuming, before = victim.folder.exists(), sum(len(trial.epochs) for trial in victim.trials())
    driver = victim.start()
    tally.num_runs += 1
    lasting: list[threading.Thread] = []
    for kind, moment in plan.during:
        if moment.wait(driver, victim.folder, victim.database):
            inject(kind, driver, victim, tally, rng, lasting)
    alone = False
    if plan.end is not None:
        kind, moment = plan.end
        if moment.wait(driver, victim.folder, victim.database):
            alone = end(kind, driver, victim, tally, before)
    code = driver.wait(STUCK_AFTER_S)
    for thread in lasting:
        thread.join()
    if code is None:
        tally.failures.append(f"stuck after {plan}:\n{driver.output()[-2000:]}")
    judge(code, driver.output(), plan, tally)
    note_resumption(victim, driver, resuming, tally)
    if not alone:  # a driver killed alone is resumed while its processes may still be dying
        if not gone(driver, *faults.WORKERS):
            tally.failures.append(f"workers were left behind after {plan}")
        driver.kill_tree()
    victim.seen.append(victim.trials())
    if plan.damage is not None and driver.process.returncode != 0:
        damage(plan.damage, victim, tally, rng)


def inject(
    kind: str,
    driver: Driver,
    victim: Victim,
    tally: Tally,
    rng: random.Random,
    lasting: list[threading.Thread],
) -> None:
    if kind in (WORKER_KILLED, WORKER_STOPPED):
        workers = driver.find(*faults.WORKERS)
        if not workers:
            return
        pid = rng.choice(workers)
        if not faults.send(pid, signal.SIGKILL if kind == WORKER_KILLED else signal.SIGSTOP):
            return
        if kind == WORKER_STOPPED:
            lasting.append(started(lambda: end_stopped(pid, tally)))
    elif kind == PROJECTOR_KILLED:
        projectors = driver.find(faults.PROJECTOR)
        if not projectors or not faults.send(projectors[0], signal.SIGKILL):
            return
    elif kind == DATABASE_LOCKED:
        if not victim.database.exists():
            return
        lasting.append(for_a_while(faults.locked_database(victim.database), rng.uniform(1, 8)))
    else:
        assert victim.proxy is not None, f"{kind} needs a server"
        lasting.append(
            for_a_while(victim.proxy.failing(kind.removeprefix("MLflow ")), rng.uniform(1, 8))
        )
    tally.faults[kind] += 1


def end(kind: str, driver: Driver, victim: Victim, tally: Tally, epochs_before: int) -> bool:
    """Do what ends a run; True when its processes are left to die by themselves."""
    if kind == KILL:
        tally.phases[phase(driver, victim, epochs_before)] += 1
        driver.kill_tree()
    elif kind == "driver alone killed":
        driver.kill()
    elif kind in SIGNALS:
        while (
            driver.running and "ing the sweep" not in driver.output()
        ):  # while Python imports, there is no handler
            time.sleep(faults.POLL_S)
        driver.process.send_signal(SIGNALS[kind])
    else:
        pids = driver.find("raylet/raylet" if kind == "raylet killed" else "gcs/gcs_server")
        if not pids or not faults.send(pids[0], signal.SIGKILL):
            return False
    tally.faults[kind] += 1
    return kind == "driver alone killed"


def phase(driver: Driver, victim: Victim, epochs_before: int) -> str:
    """What a run was doing, as far as its files tell."""
    if not victim.folder.exists():
        return "start-up"
    if b'"how":"complete"' in faults.last_bytes(victim.folder.ledger):
        return "final delivery and summary"
    if sum(len(trial.epochs) for trial in victim.trials()) > epochs_before:
        return "trials"
    if any(when > driver.started for when, _ in read_marks(victim.cwd)):
        return "first epoch after the start"
    record = read_baseline_record(
        victim.folder.home, view.read_sweep(victim.folder).attrs["baseline"]
    )
    if driver.find(*faults.WORKERS) and (record is None or record["state"] == "running"):
        return "baseline"
    return "start-up of a resume" if victim.seen else "start-up"


def judge(code: int | None, output: str, plan: Plan, tally: Tally) -> None:
    """Whether a run ended as it should."""
    allowed = {0}
    kind = plan.end[0] if plan.end else ""
    if kind in SIGNALS:
        allowed |= {130}
    elif kind in (KILL, "driver alone killed"):
        allowed |= {-signal.SIGKILL}
    elif kind:
        allowed |= {1}  # Ray is gone: a message, and it can be resumed
    if code is not None and code not in allowed:
        tally.failures.append(f"exit code {code} after {plan}:\n{output[-2000:]}")
    elif "Traceback (most recent call last)" in output:
        tally.failures.append(f"a traceback after {plan}:\n{output[-2000:]}")


def note_resumption(victim: Victim, driver: Driver, resuming: bool, tally: Tally) -> None:
    steps = [when for when, _ in read_marks(victim.cwd) if when > driver.started]
    if resuming and steps:
        tally.resumed_s.append(min(steps) - driver.started)


def damage(kind: str, victim: Victim, tally: Tally, rng: random.Random) -> None:
    if kind == TORN:
        if not victim.folder.exists():
            return
        faults.tear(victim.folder.ledger, rng)
    else:
        newest = faults.newest_checkpoint(victim.folder, victim.trials())
        if newest is None:
            return
        (faults.truncate if kind == TRUNCATED else faults.flip_bit)(newest, rng)
    tally.faults[kind] += 1


def end_stopped(pid: int, tally: Tally) -> None:
    """The spec's epoch_timeout must end a stopped worker; where it does not, this does, and says so."""
    give_up = time.monotonic() + STOPPED_FOR_S
    while faults.state_of(pid) == "T":
        if time.monotonic() > give_up:
            faults.send(pid, signal.SIGKILL)
            tally.bench_killed += 1
            return
        time.sleep(0.05)


def gone(driver: Driver, *names: str) -> bool:
    give_up = time.monotonic() + LEFT_BEHIND_AFTER_S
    while driver.find(*names):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.05)
    return True


def for_a_while(context: AbstractContextManager[None], seconds: float) -> threading.Thread:
    def hold() -> None:
        with context:
            time.sleep(seconds)

    return started(hold)


def started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
