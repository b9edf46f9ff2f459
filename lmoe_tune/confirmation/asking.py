"""Which question of the home a confirmation asks, and which look at it this is.

A question is a test set, by the fingerprint of its images in each split, and what is compared on
it: the winner's configuration and its method's defaults, trained in a certain way. Asking the same
again, resuming, or adding seeds asks nothing new; another winner, split or training does. A look is
a set of pairs: the same pairs are the same look.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from lmoe_tune import questions
from lmoe_tune.confirmation.job_ledger import Job, JobLedger, who
from lmoe_tune.confirmation.plan import Candidate, Plan
from lmoe_tune.questions import Question
from lmoe_tune.spec import Spec
from lmoe_tune.statistics import Asked


def ask(study: JobLedger, plan: Plan, fingerprints: Mapping[int, str]) -> Question:
    """The question that a plan asks, recorded in the home before anything of its answer is known.

    Args:
        fingerprints: of the test images of each split that the winner is tested on.
    """
    about = _about(study, plan, fingerprints)
    return questions.ask(study.folder.home, _digest(about), about, _asker(study))


def look(study: JobLedger, question: Question, jobs: Iterable[Job]) -> Asked:
    """The look at a question with these jobs of the winner and its defaults, recorded as well."""
    ident, pairs = _runs(study, jobs)
    found = questions.look(study.folder.home, question, ident, pairs, _asker(study))
    return Asked(question.number, found.number)


def foresee(
    study: JobLedger, plan: Plan, fingerprints: Mapping[int, str]
) -> tuple[Question | None, Asked]:
    """The question that a plan would ask, None if it is a new one, and its look once all jobs have
    ended; nothing is recorded.

    Args:
        fingerprints: as for `ask`; those of splits that were not opened are no question's.
    """
    known = questions.read_questions(study.folder.home)
    ident = _digest(_about(study, plan, fingerprints))
    question = next((one for one in known if one.ident == ident), None)
    if question is None:
        return None, Asked(len(known) + 1)

    rows = (plan.winner, plan.own_defaults)
    of_look, _ = _runs(study, (job for job in study.jobs(plan) if job.row in rows))
    numbers = (one.number for one in question.looks if one.ident == of_look)
    return question, Asked(question.number, next(numbers, len(question.looks) + 1))


def _about(study: JobLedger, plan: Plan, fingerprints: Mapping[int, str]) -> dict[str, Any]:
    return {
        "winner": _configuration(plan.winner),
        "against": _configuration(plan.own_defaults),
        "test_sets": {str(split): fingerprints[split] for split in sorted(fingerprints)},
        "training": _training(study.sweep.spec),
    }


def _runs(study: JobLedger, jobs: Iterable[Job]) -> tuple[str, int]:
    """What tells these jobs from others, and how many pairs they are."""
    runs = sorted([job.row.name, job.split, job.seed] for job in jobs)
    pairs = len({(split, seed) for _, split, seed in runs})
    return _digest({"sweep_id": study.sweep.sweep_id, "runs": runs}), pairs


def _asker(study: JobLedger) -> dict[str, str]:
    return {
        "sweep": study.sweep.folder.name,
        "sweep_id": study.sweep.sweep_id,
        "who": who(),
    }


def _configuration(candidate: Candidate) -> dict[str, Any]:
    return {"method": candidate.method, "params": dict(candidate.params)}


def _training(spec: Spec) -> dict[str, Any]:
    """What else a training's result depends on, apart from seeds and machine."""
    plain = spec.model_dump(mode="json")
    of_machine = {"seed", "threads", "device", "precision"}
    return {
        "model": plain["model"],
        "train": {key: plain["train"][key] for key in plain["train"].keys() - of_machine},
        "score": plain["objective"]["score"],
        "data": {key: plain["data"].get(key) for key in ("resize", "crop", "augment")},
    }


def _digest(about: Mapping[str, Any]) -> str:
    content = json.dumps(about, sort_keys=True, default=str).encode()
    return hashlib.sha256(content).hexdigest()[:16]
