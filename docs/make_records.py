"""Writes `docs/records.md`: what a home holds, from the ledger's schema and the code that writes to MLflow.

python docs/make_records.py            writes the page
python docs/make_records.py --check    ends with 1 where the page is not what this would write
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lmoe_tune import records
from lmoe_tune.sweep import schema

HERE = Path(__file__).resolve().parent
PAGE = HERE / "records.md"
TRACKING = HERE.parent / "lmoe_tune" / "tracking"

HEAD = """\
# Records: what a home holds

This page is made from `lmoe_tune/sweep/schema.py` by `docs/make_records.py`.

The **ledger** is the truth about a sweep; everything else is written from it, or can be found again. It is an Optuna
study called `sweep` in a journal file, so that Optuna and programs over it, such as optuna-dashboard, can read it.
Only the process that holds the sweep's lock writes to it. No secret is ever written into a home.
"""

FILES = [
    ("mlflow.db, mlartifacts/", "MLflow's store, where no other server is given."),
    ("baselines/HASH/", "A baseline: its record, its checkpoints, its scores. Sweeps share them."),
    (
        "cache/",
        "Decoded images, what was found out about files, what `list` showed. Can be deleted at any time.",
    ),
    ("questions.jsonl", "The questions that were asked of sealed test sets: docs/confirm.md."),
    ("train/NAME-HASH/", "A trial that `train` has trained: its records and checkpoints."),
    ("sweeps/NAME/ledger.jsonl", "The ledger: a line for each of Optuna's records, see below."),
    (
        "sweeps/NAME/ledger.jsonl.foreign",
        "What another program wrote into the ledger while the sweep ran.",
    ),
    ("sweeps/NAME/ledger.jsonl.damaged-TIME", "A damaged ledger that `doctor --rebuild` replaced."),
    ("sweeps/NAME/spec.yaml", "The spec as it was resolved and frozen at the start."),
    (
        "sweeps/NAME/sweep.json",
        "A copy of what the ledger says about the sweep, to rebuild it from.",
    ),
    ("sweeps/NAME/environment.json", "Versions, commit, hardware and data at the start."),
    ("sweeps/NAME/tracking.jsonl", "Ids of the runs in MLflow; `sync` finds them again."),
    ("sweeps/NAME/run.json", "The marker of the last run, which workers look for."),
    ("sweeps/NAME/lock", "Held by the process that works on the sweep."),
    ("sweeps/NAME/set-aside", "Says that `search --fresh` has set the sweep aside."),
    ("sweeps/NAME/trials/N/trial.json", "The record of a trial, see below."),
    ("sweeps/NAME/trials/N/metrics.jsonl", "Its epochs, a line each."),
    (
        "sweeps/NAME/trials/N/checkpoints/",
        "The last two while it runs; the last one of the best trials after that.",
    ),
    (
        "sweeps/NAME/trials/N/validation.npz",
        "What tells tied trials from others: docs/evaluation.md.",
    ),
    ("sweeps/NAME/confirm/trials/N/test.npz", "The scores of the test images, in a confirmation."),
    ("sweeps/NAME/confirm/", "The confirmation: a study of its own, with the same files."),
    ("sweeps/NAME/confirm/confirm.json", "What it found, as `confirm --format json` prints it."),
    (
        "sweeps/NAME/confirm/reseed.json",
        "How much pairs varied in a reseeding: `seed_sd`, `image_sd`, `pairs`, `splits`.",
    ),
    (
        "sweeps/NAME/tuned/METHOD/",
        "A method that the winner is compared with, tuned: a study as well.",
    ),
    ("sweeps/NAME/report/", "The report."),
]

TAGS = {
    "kind": "`sweep`, `trial`, `baseline`, `confirm`, `confirm_job`, `export`: what the run is",
    "sweep": "the sweep's name",
    "sweep_id": "its UUID",
    "trial": "the trial's number",
    "confirm_job": "the number of a confirmation's job",
    "state": "`complete`, `pruned`, `failed`, `running`; of a sweep also `interrupted`",
    "method": "the method that was trained",
    "failure": "why a trial failed",
    "retry_of": "the failed trial that it tries again",
    "ended_by": "the budget that ended it",
    "objective": "the first objective",
    "direction": "`maximize` or `minimize`",
    "best_trial": "the number of the best trial",
    "best_params": "its parameters, as JSON",
    "best_run_id": "its run",
    "feasible": "whether it meets the constraints",
    "baseline": "the baseline's hash",
    "verdict": "the confirmation's word",
    "verdict_sentence": "the same with its reasons",
    "exported_trial": "the trial that was exported",
}  # fmt: skip


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## Files", table(("file", "what it holds"), FILES)]
    parts += ["## The ledger", ledger_text(), "### The sweep", keys("sweep")]
    parts += ["### A trial", keys("trial"), "Optuna also keeps these of a trial:"]
    parts.append(table(("system attribute", "what it is"), schema.OPTUNAS.items()))
    parts += [
        "## `trial.json` and `metrics.jsonl`",
        (
            "Read them with `TrialRecord.from_json`. While a trial runs, `trial.json` is as it was at the start, or "
            "when it last moved or warned of something; what it has reached is in `metrics.jsonl`."
        ),
    ]
    parts += [fields(records.TrialRecord, {"number": "trial"}), "An epoch:"]
    parts.append(fields(records.EpochRecord, {}))
    parts += [
        "## Tags in MLflow",
        "All start with `lmoe_tune.`; constants of the spec are tags as well.",
    ]
    parts.append(table(("tag", "what it says"), [(name, TAGS[name]) for name in tags()]))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def ledger_text() -> str:
    return f"""\
Schema {schema.SCHEMA}; a ledger of another one is refused by name. Each line has three keys besides Optuna's: `n`, its
number, `left`, how many lines of its transaction follow, and `crc`. A transaction is written at once: an ask with all
parameters, or an epoch with the decision on it and the trial's end. Lines without these keys are another program's,
and are skipped.

Names that end in NNNN are families, counted from 0; epochs from 1."""


def keys(of: schema.Of) -> str:
    """The table of all attributes of the sweep, or of a trial."""
    rows = [
        (f"`{key.name}`", key.kind, key.written, key.about) for key in schema.KEYS if key.of == of
    ]
    return table(("key", "type", "written by or when", "what it says"), rows)


def fields(record: type, names: dict[str, str]) -> str:
    """The fields of a record with what stands below each in its source."""
    told = dict(docs_of_fields(record))
    rows = [
        (f"`{names.get(entry.name, entry.name)}`", f"`{entry.type}`", told.get(entry.name, ""))
        for entry in dataclasses.fields(record)
    ]
    return table(("field", "type", "what it says"), rows)


def docs_of_fields(record: type) -> Iterator[tuple[str, str]]:
    source = inspect.getsource(record)
    for name, told in re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', source, re.M | re.S):
        yield name, " ".join(told.split())


def tags() -> list[str]:
    """The tags that the code writes."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(TRACKING.glob("*.py")))
    found = set(re.findall(r'"lmoe_tune\.([a-z_]+)"', text)) - {"zip"}
    unknown = found - TAGS.keys()
    assert not unknown, f"docs/make_records.py does not say what these tags are: {sorted(unknown)}"
    return list(TAGS)


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown; a vertical bar within a cell is written as HTML has it."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    cells = [[cell.replace("|", "&#124;") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def main() -> None:
    wanted = page()
    if "--check" in sys.argv:
        if PAGE.read_text(encoding="utf-8") != wanted:
            sys.exit(f"{PAGE} is out of date: python docs/make_records.py")
        return
    PAGE.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
