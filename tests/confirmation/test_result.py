from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.confirmation.job_ledger import JobLedger
from lmoe_tune.confirmation.plan import DESCRIPTION, MODEL, SCORES, Plan, make_plan
from lmoe_tune.confirmation.result import confirm_file, make_document, write_document
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.sweep.ledger import Ledger

NOWHERE = Path("/nowhere")
NOISE = {1000: 0.001, 1001: -0.002, 1002: 0.0015, 1003: 0.0, 1004: -0.0005}
Confirmed = Callable[..., tuple[JobLedger, Plan]]


@pytest.fixture
def confirmed(sweep: Ledger, run_jobs: Callable[..., None]) -> Confirmed:
    """A confirmation whose jobs have all ended, with these AUROCs."""

    def make(
        auroc: Callable[[str, int, int], float | None], num_seeds: int = 5, **plan: Any
    ) -> tuple[JobLedger, Plan]:
        study, planned = (
            JobLedger(sweep, NOWHERE),
            make_plan(sweep, NOWHERE, top=2, num_seeds=num_seeds, **plan),
        )
        study.begin(planned, "lmoe-tune confirm small")
        run_jobs(study, auroc)
        return study, planned

    return make


def better(name: str, split: int, seed: int) -> float:
    return 0.9 + (0.05 + NOISE[seed] if name == "trial 2" else 0.0)


def test_the_document_has_what_is_promised(confirmed: Confirmed) -> None:
    study, plan = confirmed(better)
    found = json.loads(json.dumps(make_document(study, plan)))
    assert found["sweep"] == "small"
    assert [row["name"] for row in found["rows"]] == [row.name for row in plan.rows]
    for row in found["rows"]:
        assert {"name", "method", "params", "seeds", "metrics"} <= row.keys()
        assert row["seeds"] == 5
        assert {"test_accuracy", "test_fine_auroc", "test_auroc"} <= row["metrics"].keys()
        for metric in row["metrics"].values():
            assert metric.keys() == {"mean", "sd", "ci95", "median", "minimum"}
            assert metric["ci95"][0] <= metric["mean"] <= metric["ci95"][1]
        assert None not in row["params"].values()
    against = [pair["against"] for pair in found["paired"] if pair["metric"] == "test_auroc"]
    assert against == [row.name for row in plan.rows[2:]], (
        "the second of the search is no comparator"
    )
    for pair in found["paired"]:
        assert {
            "against",
            "metric",
            "difference",
            "ci95",
            "p",
            "p_corrected",
            "noise_floor",
        } <= pair.keys()
    assert {pair["metric"] for pair in found["paired"]} == {
        "test_auroc",
        "test_fine_auroc",
        "test_accuracy",
    }
    assert len(found["jobs"]) == 5 * len(plan.rows)
    for job in found["jobs"]:
        assert {"job", "row", "split", "seed", "metrics", "scores"} <= job.keys()
        assert (study.folder.path / job["scores"]).is_file()
        assert "val_accuracy" not in job["metrics"]
    assert len(found["test_openings"]) == 1
    assert (found["failed"], found["notes"], found["changes"]) == ([], [], [])


def test_a_planted_effect_is_real_and_the_other_way_round_worse(confirmed: Confirmed) -> None:
    study, plan = confirmed(better)
    found = make_document(study, plan)
    assert found["verdict"] == "real"
    assert found["sentence"].startswith("Real: trial 2 is better than logit_mixoe untuned")
    assert found["compared_with"] == "logit_mixoe untuned"
    assert found["noise_floor"] == found["paired"][0]["noise_floor"]
    assert found["paired"][0]["difference"] == pytest.approx(0.05)


def test_a_winner_that_falls_behind_is_worse(confirmed: Confirmed) -> None:
    study, plan = confirmed(lambda name, split, seed: 1.8 - better(name, split, seed))
    assert make_document(study, plan)["verdict"] == "worse"


def test_equals_are_noise(confirmed: Confirmed) -> None:
    study, plan = confirmed(
        lambda name, split, seed: 0.9 + NOISE[seed] * (1 if name == "trial 2" else -1)
    )
    found = make_document(study, plan)
    assert found["verdict"] == "noise"
    assert found["sentence"].startswith("Not distinguishable from noise")


def test_the_winners_model_is_that_of_its_first_seed_on_the_specs_split(
    confirmed: Confirmed,
) -> None:
    study, plan = confirmed(lambda name, split, seed: 0.9, splits=(3, 0))
    first = study.jobs(plan)[("trial 2", 0, 1000)]
    assert first is not None
    folder = study.folder.trial(first.number)
    assert make_document(study, plan)["winner"]["model"] is None
    (folder / MODEL).write_bytes(b"weights")
    (folder / DESCRIPTION).write_text('{"arch": "small_cnn"}', encoding="utf-8")
    winner = make_document(study, plan)["winner"]
    assert (winner["trial"], winner["name"], winner["method"]) == (2, "trial 2", "logit_mixoe")
    assert (winner["job"], winner["split"], winner["seed"]) == (first.number, 0, 1000)
    assert winner["model"] == f"trials/{first.number}/model.pt"
    assert winner["describes"] == {"arch": "small_cnn"}
    assert winner["params"] == {
        name: value for name, value in plan.winner.params.items() if value is not None
    }


def test_failed_jobs_are_named_and_the_others_compared(confirmed: Confirmed) -> None:
    study, plan = confirmed(
        lambda name, split, seed: (
            None if (name == "mixoe untuned" or seed == 1004) else better(name, split, seed)
        )
    )
    found = make_document(study, plan)
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["trial 2"]["runs"] == 4
    assert (rows["mixoe untuned"]["runs"], rows["mixoe untuned"]["metrics"]) == (0, {})
    assert {pair["pairs"] for pair in found["paired"]} == {4}
    assert "mixoe untuned" not in {pair["against"] for pair in found["paired"]}
    assert len(found["failed"]) == 5 + 6
    assert {one["failure"] for one in found["failed"]} == {"it diverged"}


def test_with_nothing_to_compare_that_is_said(confirmed: Confirmed) -> None:
    study, plan = confirmed(
        lambda name, split, seed: None if name == "logit_mixoe untuned" else 0.9
    )
    with pytest.raises(LmoeTuneError, match="nothing to compare: it diverged"):
        make_document(study, plan)


def test_what_was_kept_of_a_test_must_be_there_whole(confirmed: Confirmed) -> None:
    study, plan = confirmed(lambda name, split, seed: 0.9)
    path = study.folder.trial(3) / SCORES
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        LmoeTuneError, match=r"trials/3/test.npz: cannot be read .* run the confirmation again"
    ):
        make_document(study, plan)
    path.unlink()
    with pytest.raises(LmoeTuneError, match=r"trials/3/test.npz: cannot be read"):
        make_document(study, plan)


def test_other_test_images_from_one_job_to_the_next_are_refused(
    sweep: Ledger, run_jobs: Callable[..., None]
) -> None:
    study, few = JobLedger(sweep, NOWHERE), make_plan(sweep, NOWHERE, top=1, num_seeds=2)
    study.begin(few, "lmoe-tune confirm small")
    run_jobs(study, lambda name, split, seed: 0.9)
    more = make_plan(sweep, NOWHERE, top=1, num_seeds=3)
    study.begin(more, "lmoe-tune confirm small")
    run_jobs(study, lambda name, split, seed: 0.9, fingerprint="another")
    assert make_document(study, few)["verdict"] == "noise"
    with pytest.raises(LmoeTuneError, match="the test images of split 0 have changed"):
        make_document(study, more)


def test_the_document_is_kept_beside_the_ledger(confirmed: Confirmed) -> None:
    study, plan = confirmed(lambda name, split, seed: 0.9)
    document = make_document(study, plan, notes=["the search was not complete"])
    write_document(study, document)
    assert json.loads(confirm_file(study.folder).read_text(encoding="utf-8")) == json.loads(
        json.dumps(document)
    )
    assert confirm_file(study.folder) == study.sweep.folder.path / "confirm" / "confirm.json"
    assert document["notes"] == ["the search was not complete"]
