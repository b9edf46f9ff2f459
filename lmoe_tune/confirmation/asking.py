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
    about = {
        "winner": _configuration(plan.winner),
        "against": _configuration(plan.own_defaults),
        "test_sets": {str(split): fingerprints[split] for split in sorted(fingerprints)},
        "training": _training(study.sweep.spec),
    }
    return questions.ask(study.folder.home, _digest(about), about, _asker(study))


def look(study: JobLedger, question: Question, jobs: Iterable[Job]) -> Asked:
    """The look at a question with these jobs of the winner and its defaults, recorded as well."""
    runs = sorted([job.row.name, job.split, job.seed] for job in jobs)
    ident = _digest({"sweep_id": study.sweep.sweep_id, "runs": runs})
    pairs = len({(split, seed) for _, split, seed in runs})
    found = questions.look(study.folder.home, question, ident, pairs, _asker(study))
    return Asked(question.number, found.number)


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
    training = {key: plain[key] for key in ("model", "train")}
    training["score"] = plain["objective"]["score"]
    training["data"] = {key: plain["data"].get(key) for key in ("resize", "crop", "augment")}
    training["train"] = {
        key: value
        for key, value in plain["train"].items()
        if key not in ("seed", "threads", "device", "precision")
    }
    return training


def _digest(about: Mapping[str, Any]) -> str:
    content = json.dumps(about, sort_keys=True, default=str).encode()
    return hashlib.sha256(content).hexdigest()[:16]
