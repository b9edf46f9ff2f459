"""Sweeps under random faults, audited against one that nobody disturbed.

    python benchmarks/chaos.py --kills 50 --others 50 --seed 0 [--slots 2] [--out FILE]

Small sweeps of the digits run in processes of their own. Each run of one gets faults drawn from the seed:
`kill -9` of the driver and everything that descends from it, at any moment or right at a write of the ledger,
of a checkpoint, of the baseline, of MLflow, or after the end; other signals; killed and stopped workers, a
killed raylet, control store or projector; an MLflow server that is away, slow, answers 500 or loses answers;
checkpoints truncated or flipped and ledgers torn between two runs. Then the sweep is resumed, again under
faults, until it is complete, and audited (`chaos_audit.py`); sweeps follow each other in fresh homes until
there were as many faults as asked for. Every other sweep goes to a real MLflow server, behind a proxy that
fails on demand; the rest use SQLite.

The faults drawn depend on the seed alone, the moments that they meet also on the machine. Exit code 1 when
anything was lost, doubled, differs or got stuck.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, only this folder would be there

from benchmarks.chaos_audit import COLUMNS, Problem, audit  # noqa: E402
from benchmarks.chaos_faults import any_moment, while_training  # noqa: E402
from benchmarks.chaos_mlflow import MODES, Proxy, served  # noqa: E402
from benchmarks.chaos_runs import (  # noqa: E402
    DATABASE_LOCKED,
    ENDS,
    EPOCH_TIMEOUT_S,
    FLIPPED,
    KILL,
    PROJECTOR_KILLED,
    TORN,
    TRUNCATED,
    WORKER_KILLED,
    WORKER_STOPPED,
    Plan,
    Tally,
    Victim,
    run_once,
)
from benchmarks.marked_steps import read_marks  # noqa: E402
from benchmarks.sweep_overhead import machine, say  # noqa: E402

TRIALS, EPOCHS = 10, 5
SPEC = """\
name: chaos
trainable: marked_steps:MarkedSteps
data: {{id: {{dataset: digits}}}}
model: {{arch: small_cnn, baseline: {{epochs: 3}}}}
train: {{epochs: {epochs}}}
space:
  mixing_alpha:       {{low: 0.1, high: 10, log: true}}
  consistency_weight: {{low: 0, high: 5}}
  outlier_ratio:      {{low: 0.25, high: 1}}
search: {{sampler: tpe, pruner: asha, seed: 0, max_concurrent: {slots}}}
budget: {{trials: {trials}}}
resources: {{cpu: 1, max_retries: 1000, epoch_timeout: {timeout_s}s}}
"""


def draw_plan(
    rng: random.Random, kills_left: int, others_left: int, *, server: bool, fresh: bool
) -> Plan:
    """The faults of the next run; none of a sort that was enough."""
    mlflow = [f"MLflow {mode}" for mode in MODES] if server else [DATABASE_LOCKED] * 2
    sorts = [WORKER_KILLED] * 3 + [WORKER_STOPPED] + [PROJECTOR_KILLED] * 2 + mlflow
    wanted = min(1.0, others_left / max(1, kills_left))
    during = []
    for _ in range(rng.choice([0, 1, 1, 2])):
        if rng.random() < wanted:
            kind = rng.choice(sorts)
            worker = kind in (WORKER_KILLED, WORKER_STOPPED)
            during.append((kind, while_training(rng) if worker else any_moment(rng, fresh=fresh)))
    weights = {
        kind: weight
        for kind, weight in ENDS.items()
        if (kills_left if kind == KILL else others_left) > 0
    }
    finish = 0.5 if kills_left + others_left > 0 else 1.0
    kind = rng.choices([*weights, ""], [*weights.values(), finish])[0]
    end = (kind, any_moment(rng, fresh=fresh)) if kind else None
    damage = (
        rng.choice([TRUNCATED, FLIPPED, TORN]) if kind and rng.random() < 0.6 * wanted else None
    )
    return Plan(tuple(during), end, damage)


def make_victim(cwd: Path, slots: int, proxy: Proxy | None, database: Path | None) -> Victim:
    cwd.mkdir(parents=True)
    shutil.copy(ROOT / "benchmarks" / "marked_steps.py", cwd)
    spec = SPEC.format(epochs=EPOCHS, slots=slots, trials=TRIALS, timeout_s=EPOCH_TIMEOUT_S)
    (cwd / "chaos.yaml").write_text(spec, encoding="utf-8")
    victim = Victim(cwd, "chaos", ("chaos.yaml",))
    if proxy is not None and database is not None:
        victim = Victim(cwd, "chaos", ("chaos.yaml",), proxy.uri, database, proxy)
    return victim


def steps_of(victim: Victim) -> Counter[str]:
    """Training steps made, by the trial's `mixing_alpha`."""
    return Counter(alpha for _, alpha in read_marks(victim.cwd))


def epochs_repeated(victim: Victim, steps_per_epoch: float) -> dict[int, float]:
    """By trial: the epochs' worth of steps that were made more than once."""
    steps = steps_of(victim)
    return {
        trial.number: steps[repr(trial.params["mixing_alpha"])] / steps_per_epoch
        - len(trial.epochs)
        for trial in victim.trials()
    }


def sweep_under_faults(victim: Victim, number: int, args: argparse.Namespace, tally: Tally) -> None:
    """Start a sweep and resume it, under faults, until it is complete."""
    for run in range(1000):
        rng = random.Random(f"{args.seed}:{number}:{run}")
        kills_left, others_left = args.kills - tally.kills, args.others - tally.others
        plan = draw_plan(
            rng, kills_left, others_left, server=victim.proxy is not None, fresh=not victim.seen
        )
        run_once(victim, plan, tally, rng)
        done = sum(len(trial.epochs) for trial in victim.trials())
        what = ", ".join([*(kind for kind, _ in plan.during), *([plan.end[0]] if plan.end else [])])
        say(
            f"sweep {number} run {run}: {done} epochs; {tally.kills} kills, {tally.others} others; planned: {what}"
        )
        if len(tally.failures) > 5:
            return
        if victim.is_done():
            return


def chaos(args: argparse.Namespace, folder: Path) -> int:
    load = os.getloadavg()[0]
    started_s = time.monotonic()
    tally, problems, repeated, too_often = Tally(), list[Problem](), 0.0, 0
    reference = make_victim(folder / "reference", args.slots, None, None)
    say("the sweep that nobody disturbs")
    run_once(reference, Plan(), tally, random.Random(0))
    problems += audit(reference.folder, reference.database, planned=TRIALS, reference=None, seen=[])
    recorded = sum(len(trial.epochs) for trial in reference.trials())
    steps_per_epoch = sum(steps_of(reference).values()) / recorded
    tally = Tally(failures=tally.failures)
    sweeps = 0
    with served(folder) as proxy:
        while (tally.kills < args.kills or tally.others < args.others) and not tally.failures[5:]:
            server = sweeps % 2 == 1
            database = folder / "mlflow.db"
            victim = make_victim(
                folder / str(sweeps), args.slots, proxy if server else None, database
            )
            interruptions = tally.interruptions
            sweep_under_faults(victim, sweeps, args, tally)
            found = audit(
                victim.folder,
                victim.database,
                planned=TRIALS,
                reference=reference.folder if args.slots == 1 else None,
                seen=victim.seen,
            )
            for problem in found:
                say(f"sweep {sweeps}: {problem}")
            problems += found
            again = epochs_repeated(victim, steps_per_epoch)
            repeated += sum(again.values())
            too_often += sum(
                epochs > tally.interruptions - interruptions for epochs in again.values()
            )
            sweeps += 1
            if not found and not args.keep:
                shutil.rmtree(victim.cwd)
    text = "\n".join(
        [
            *machine(load),
            f"asked for --kills {args.kills} --others {args.others} --seed {args.seed} --slots {args.slots}",
            "",
            *report(
                tally,
                problems,
                sweeps,
                repeated,
                too_often,
                time.monotonic() - started_s,
                args.slots,
            ),
        ]
    )
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")
    return 1 if problems or tally.failures or too_often else 0


def report(
    tally: Tally,
    problems: list[Problem],
    sweeps: int,
    repeated: float,
    too_often: int,
    wall_s: float,
    slots: int,
) -> Iterator[str]:
    yield f"{sweeps} sweeps of {TRIALS} trials x {EPOCHS} epochs in {tally.num_runs} runs, {wall_s / 60:.0f} min"
    yield ""
    yield f"{tally.kills + tally.others:>5}  faults injected"
    for kind, count in sorted(
        tally.faults.items(), key=lambda item: (item[0] != KILL, -item[1], item[0])
    ):
        yield f"{count:>5}  {kind}"
        if kind == KILL:
            yield from (
                f"{'':>5}  {number:>5}  {when}" for when, number in tally.phases.most_common()
            )
        if kind == WORKER_STOPPED and tally.bench_killed:
            yield f"{'':>5}  {tally.bench_killed:>5}  that nothing but this bench ended"
    yield ""
    against = (
        "the undisturbed sweep, bit for bit"
        if slots == 1
        else "what was recorded before each fault"
    )
    yield f"audit of ledger, disk and MLflow against each other and against {against}"
    columns = Counter(problem.column for problem in problems)
    for column, meaning in zip(COLUMNS, MEANINGS, strict=True):
        yield f"{columns[column]:>5}  {column + ':':<11} {meaning}"
    yield f"{len(tally.failures):>5}  runs that got stuck, left a worker behind or ended otherwise than they should"
    yield f"{too_often:>5}  trials that repeated more than one epoch of work per fault"
    yield ""
    per_fault = repeated / tally.interruptions if tally.interruptions else 0.0
    yield f"epochs of work repeated: {repeated:.1f} in all, {per_fault:.2f} per fault that interrupts a trial"
    if tally.resumed_s:
        median, longest = statistics.median(tally.resumed_s), max(tally.resumed_s)
        yield (
            f"from the start of a resume to its first training step: median {median:.1f} s, max {longest:.1f} s "
            f"({len(tally.resumed_s)} resumes)"
        )
    for problem in problems[:20]:
        yield f"  {problem}"
    for failure in tally.failures[:6]:
        yield f"  {failure}"


MEANINGS = (
    "trials missing or unfinished",
    "trials that are there twice or were not planned",
    "trials with other parameters, epochs, states, values, weights or rank",
    "records or checkpoints that do not agree with the ledger",
    "runs lost, doubled or RUNNING, epochs missing or twice, models missing or left over",
)


def main() -> int:
    args = parse_arguments()
    with contextlib.ExitStack() as stack:
        folder = args.keep
        if folder is None:
            folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True)
                )
            )
        return chaos(args, folder)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sweeps under random faults, audited.")
    parser.add_argument("--kills", type=int, default=50, help="kills of whole drivers (default 50)")
    parser.add_argument("--others", type=int, help="other faults (default: as many as kills)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--slots", type=int, choices=(1, 2), default=1, help="trials at a time (default 1)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report there")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep all homes there, which must be empty"
    )
    args = parser.parse_args()
    if args.others is None:
        args.others = args.kills
    return args


if __name__ == "__main__":
    sys.exit(main())
