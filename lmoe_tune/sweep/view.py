"""A sweep as others see it: the picture that tracking projects, and what the commands print."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from numbers import Integral
from pathlib import Path
from typing import Any, NoReturn

from lmoe_tune import advice
from lmoe_tune.arguments import refuse_other
from lmoe_tune.durable import read_text
from lmoe_tune.errors import SpecError, UsageError
from lmoe_tune.questions import Question, read_questions
from lmoe_tune.records import TrialRecord, TrialState
from lmoe_tune.spec import Spec, spec_from_resolved
from lmoe_tune.sweep import schema
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger, now_ms
from lmoe_tune.sweep.ties import ties
from lmoe_tune.sweep.tracked import Tracked, address, comparison, tracked
from lmoe_tune.wording import counted, first_few

COUNTED: tuple[TrialState, ...] = ("complete", "pruned", "failed", "running")


def read_sweep(folder: SweepFolder) -> Ledger:
    """A sweep's ledger, for reading."""
    return Ledger.reading(folder, read_spec(folder))


def read_spec(folder: SweepFolder) -> Spec:
    """A sweep's spec, as it was frozen when the sweep was started.

    Raises:
        UsageError: it is gone or damaged.
    """
    try:
        return spec_from_resolved(read_text(folder.spec))
    except FileNotFoundError:
        raise UsageError(
            f"{folder.spec} is gone: put it back, or move the folder {folder.path} away"
        ) from None
    except SpecError as error:
        raise UsageError(f"{folder.spec}: {error}; put back what was there") from error


def state_of(ledger: Ledger) -> str:
    """`running` while a process works on it, `complete`, or `interrupted`: it can be resumed."""
    outcome = ledger.outcome
    if outcome == "interrupted" and ledger.folder.is_running():
        return "running"

    return outcome


def checkpoint_of(folder: SweepFolder, number: int) -> Path | None:
    """A trial's newest checkpoint file; the names sort by epoch (`lmoe_tune.checkpoint`)."""
    return max(folder.checkpoints(number).glob("epoch-*.pt"), default=None)


def without_weights(ledger: Ledger, number: int) -> str:
    """Why a trial has no checkpoint, which others have one, and how to get one."""
    count = ledger.spec.tracking.best_checkpoints
    ranked = [trial.number for trial in ledger.ranked()]
    if number in ranked[:count]:
        why = f"it is among the best {count}, whose weights the search kept, but they were removed or damaged since"
    else:
        why = (
            f"a sweep keeps those of its best {counted(count, 'trial')} (tracking.best_checkpoints)"
        )
    others = [other for other in ranked if other != number]
    kept = [str(other) for other in others if checkpoint_of(ledger.folder, other) is not None]
    if kept:
        there = f"there are those of trial {first_few(kept)} (export --trial)"
    else:
        there = "those of no complete trial are left"
    again = advice.repeat(ledger.folder.name, number, home=ledger.folder.home)
    return (
        f"the weights of trial {number} are not kept: {why}; {there}. "
        f"To train it once more, and then to export it: {again}"
    )


def refuse_without_best(ledger: Ledger) -> NoReturn:
    """Raises UsageError that says where to see why no trial is complete."""
    name, home = ledger.folder.name, ledger.folder.home
    raise UsageError(
        f"the sweep '{name}' has no complete trial yet; see `{advice.leaderboard(name, home=home)}`"
    )


def trial_of(ledger: Ledger, number: int) -> TrialRecord:
    """Raises UsageError if the sweep has no trial of that number."""
    refuse_other(number, "trial", Integral)
    trials = {trial.number: trial for trial in ledger.trials()}
    if number in trials:
        return trials[number]

    there = f"0 to {max(trials)}" if trials else "none yet"
    raise UsageError(f"the sweep '{ledger.folder.name}' has no trial {number}: there are {there}")


def summary(ledger: Ledger) -> dict[str, Any]:
    """What `search --json` and `status --format json` print, and `list --format json` of each
    sweep.
    """
    tracking = tracking_of(ledger)
    return {
        "sweep": ledger.folder.name,
        "state": state_of(ledger),
        "trials": {"planned": ledger.budget.trials, **counts_of(ledger)},
        "best": best_of(ledger),
        "tracking_uri": tracking.uri,
        "experiment_id": tracking.experiment_id,
        "parent_run_id": tracking.parent_run_id,
        "comparison": comparison(ledger.folder, ledger.spec, ledger.sweep_id),
        **(
            {"pareto_front": sorted(ledger.standing.ranking.front())}
            if len(ledger.spec.objective.metrics) > 1
            else {}
        ),
        **started_from(ledger),
        "changes": changes_of(ledger),
        "test_openings": test_openings(ledger),
        **questions_of(ledger),
        "started": datetime.fromtimestamp(ledger.created_ms // 1000).astimezone().isoformat(),
        "wall_s": round(ledger.wall_s(), 3),
        "folder": str(ledger.folder.path),
    }


def counts_of(ledger: Ledger) -> dict[str, int]:
    """How many trials there are, by their state."""
    return {name: ledger.standing.counts[name] for name in COUNTED}


def flattened(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a document says about a sweep, on one level, for a row or for lines."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        match key:
            case "trials":
                flat |= value
            case "best":
                best = value or {}
                flat |= {"best_trial": best.get("trial"), "best_value": best.get("value")}
            case "started_from":
                flat[key] = "; ".join(map(_origin, value))
            case "changes":
                flat[key] = "; ".join(value) or None
            case "test_openings":
                flat[key] = len(value)
            case "questions":
                flat[key] = ", ".join(map(str, value or ())) or None
            case _:
                flat[key] = value

    return flat


def _origin(taken: Mapping[str, Any]) -> str:
    trials = ", ".join(map(str, taken["trials"])) or "none"
    return f"{taken['sweep']} (trial {trials})"


def started_from(ledger: Ledger) -> dict[str, Any]:
    """`started_from`: which trials of which sweeps it started from; nothing if none."""
    taken = [
        {"sweep": found["sweep"], "trials": [origin["trial"] for origin in found["origins"]]}
        for found in ledger.get(schema.WARM_START) or ()
    ]
    if not taken:
        return {}

    return {"started_from": taken}


def questions_of(ledger: Ledger) -> dict[str, Any]:
    """The numbers of the questions that this sweep has asked or looked at, and how many its home
    has in all.

    None if the home's file is damaged: that is no reason to refuse a command that only looks.
    """
    try:
        asked = read_questions(ledger.folder.home)
    except UsageError:
        return {"questions": None, "home_questions": None}
    own = [one.number for one in asked if _is_of(one, ledger)]
    return {"questions": own, "home_questions": len(asked)}


def _is_of(question: Question, ledger: Ledger) -> bool:
    looks = [look.sweep for look in question.looks]
    return question.sweep_id == ledger.sweep_id or ledger.folder.name in looks


def changes_of(ledger: Ledger) -> list[str]:
    """What was allowed to be different from the start of it, a line each."""
    changes = schema.CHANGE.all(ledger.attrs).values()
    return [line for change in changes for line in change["lines"]]


def test_openings(ledger: Ledger) -> list[dict[str, Any]]:
    """Every opening of the sealed test set: `time_ms`, `who`, `command`, and how many `jobs` it was
    for.
    """
    return list(schema.TEST_OPENING.all(ledger.attrs).values())


def record_opening(ledger: Ledger, who: str, command: str, jobs: int) -> None:
    """Record in the sweep that its test set is about to be opened. The caller holds the sweep's
    lock.
    """
    key = schema.TEST_OPENING.at(len(test_openings(ledger)))
    ledger.set_attr(key, {"time_ms": now_ms(), "who": who, "command": command, "jobs": jobs})


def best_of(ledger: Ledger) -> dict[str, Any] | None:
    """The best trial so far, or None."""
    best = ledger.best()
    if best is None:
        return None
    checkpoint = checkpoint_of(ledger.folder, best.number)
    several = len(ledger.spec.objective.metrics) > 1
    tracking = tracking_of(ledger)
    tied = [number for number, is_tied in ties_of(ledger).items() if is_tied]
    return {
        "trial": best.number,
        "value": best.value,
        **(
            {"values": dict(zip(ledger.spec.objective.metrics, best.values, strict=True))}
            if several
            else {}
        ),
        "params": best.params,
        "feasible": best.violation == 0,
        "tied": tied,
        "metrics": best.metrics,
        "checkpoint": str(checkpoint) if checkpoint else None,
        "run_id": tracking.run_ids.get(best.number),
        "comparison": comparison(ledger.folder, ledger.spec, ledger.sweep_id),
        "model_id": tracking.models.get(best.number),
    }


def ties_of(ledger: Ledger) -> dict[int, bool]:
    """For the trials that keep the data for it, whether they can be distinguished from the best one
    on these images.

    Of one objective only, and only where it is an AUROC.
    """
    if len(ledger.spec.objective.metrics) > 1:
        return {}
    return ties(ledger.folder, ledger.standing.ranking, ledger.spec.objective.metric)


def leaderboard(ledger: Ledger) -> list[dict[str, Any]]:
    """All trials, best first: complete ones by rank, then running, pruned and failed ones by value."""
    trials = ledger.trials()
    run_ids = tracking_of(ledger).run_ids
    started = {trial.number: trial for trial in trials}
    ranked = [started[number] for number in ledger.standing.ranking if number in started]
    several = len(ledger.spec.objective.metrics) > 1
    front = set(ledger.standing.ranking.front())
    tied = ties_of(ledger)
    order = {"running": 0, "pruned": 1, "failed": 2, "complete": 3}
    sign = -1 if ledger.spec.objective.direction == "maximize" else 1
    others = sorted(
        (trial for trial in trials if trial.state != "complete"),
        key=lambda trial: (
            order[trial.state],
            sign * trial.value if trial.value is not None else 1e9,
            trial.number,
        ),
    )
    return [
        {
            "trial": trial.number,
            "state": trial.state,
            "value": trial.value,
            **({"pareto": trial.number in front} if several else {}),
            "feasible": trial.violation == 0 if trial.state == "complete" else None,
            "tied": tied.get(trial.number),
            "params": trial.params,
            "metrics": trial.metrics,
            "epochs": len(trial.epochs),
            "run_id": run_ids.get(trial.number),
            "failure": trial.failure,
            "retry_of": trial.retry_of,
        }
        for trial in [*ranked, *others]
    ]


def tracking_of(ledger: Ledger, server: str | None = None) -> Tracked:
    """Where the sweep is shown in MLflow, as far as the tracking server, its own by default, has
    answered.
    """
    return tracked(ledger.folder, server or address(ledger.folder, ledger.spec))


def is_delivered(ledger: Ledger) -> bool:
    """Whether MLflow has all that the sweep's runs gave; false after a kill between the end and the
    delivery.
    """
    return tracking_of(ledger).runs == ledger.num_runs()
