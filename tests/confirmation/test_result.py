from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.confirmation.job_ledger import JobLedger
from lmoe_tune.confirmation.plan import DESCRIPTION, MODEL, SCORES, Plan, make_plan
from lmoe_tune.confirmation.result import Confirmation, conclude, write_result
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.questions import read_questions
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


def made(study: JobLedger, plan: Plan) -> dict[str, Any]:
    """The document that is printed."""
    return json.loads(json.dumps(conclude(study, plan).to_json()))


def better(name: str, split: int, seed: int) -> float:
    return 0.9 + (0.05 + NOISE[seed] if name == "trial 2" else 0.0)


def test_the_document_has_what_is_promised(confirmed: Confirmed) -> None:
    study, plan = confirmed(better)
    found = made(study, plan)
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
    assert (found["failed"], found["changes"]) == ([], [])
    assert (found["question"], found["look"], found["level"]) == (1, 1, pytest.approx(0.02))
    low, high = found["ci95_classes"]
    assert low == pytest.approx(high), "all classes gain the same"


def test_a_planted_effect_is_real_and_the_other_way_round_worse(confirmed: Confirmed) -> None:
    study, plan = confirmed(better)
    found = made(study, plan)
    assert found["verdict"] == "real"
    assert found["sentence"].startswith("Real: trial 2 is better than logit_mixoe untuned")
    assert found["compared_with"] == "logit_mixoe untuned"
    assert found["noise_floor"] == found["paired"][0]["noise_floor"]
    assert found["paired"][0]["difference"] == pytest.approx(0.05)


def test_a_winner_that_falls_behind_is_worse(confirmed: Confirmed) -> None:
    study, plan = confirmed(lambda name, split, seed: 1.8 - better(name, split, seed))
    assert made(study, plan)["verdict"] == "worse"


def test_equals_are_noise(confirmed: Confirmed) -> None:
    study, plan = confirmed(
        lambda name, split, seed: 0.9 + NOISE[seed] * (1 if name == "trial 2" else -1)
    )
    found = made(study, plan)
    assert found["verdict"] == "noise"
    assert found["sentence"].startswith("Not distinguishable from noise")


def test_the_winners_model_is_that_of_its_first_seed_on_the_specs_split(
    confirmed: Confirmed,
) -> None:
    study, plan = confirmed(lambda name, split, seed: 0.9, splits=(3, 0))
    (first,) = (
        job.trial
        for job in study.jobs(plan)
        if (job.row.name, job.split, job.seed) == ("trial 2", 0, 1000)
    )
    assert first is not None
    folder = study.folder.trial(first.number)
    assert made(study, plan)["winner"]["model"] is None
    (folder / MODEL).write_bytes(b"weights")
    (folder / DESCRIPTION).write_text('{"arch": "small_cnn"}', encoding="utf-8")
    winner = made(study, plan)["winner"]
    assert (winner["trial"], winner["name"], winner["method"]) == (2, "trial 2", "logit_mixoe")
    assert (winner["job"], winner["split"], winner["seed"]) == (first.number, 0, 1000)
    assert winner["model"] == f"trials/{first.number}/model.pt"
    assert winner["describes"] == {"arch": "small_cnn"}
    assert winner["params"] == {
        name: value for name, value in plan.winner.params.items() if value is not None
    }


def test_failed_jobs_are_named_and_the_others_compared(confirmed: Confirmed) -> None:
    study, plan = confirmed(
        lambda name, split, seed: None if name == "mixoe untuned" else better(name, split, seed)
    )
    found = made(study, plan)
    rows = {row["name"]: row for row in found["rows"]}
    assert (rows["mixoe untuned"]["runs"], rows["mixoe untuned"]["metrics"]) == (0, {})
    assert "mixoe untuned" not in {pair["against"] for pair in found["paired"]}
    assert len(found["failed"]) == 5
    assert {one["failure"] for one in found["failed"]} == {"out of memory"}
    assert found["verdict"] == "real", "it is not about that row"


@pytest.mark.parametrize("row", ["trial 2", "logit_mixoe untuned"])
def test_while_the_winner_or_its_defaults_lack_a_result_nothing_is_real(
    confirmed: Confirmed, row: str
) -> None:
    study, plan = confirmed(
        lambda name, split, seed: None if (name, seed) == (row, 1004) else better(name, split, seed)
    )
    found = made(study, plan)
    assert found["verdict"] == "noise"
    assert found["sentence"].startswith(
        "Not finished: 1 training of trial 2 or logit_mixoe untuned"
    )
    assert found["paired"][0]["pairs"] == 4
    assert read_questions(study.folder.home)[0].looks == (), (
        "no claim can be made, so it is no look"
    )


def test_a_training_that_diverged_counts_as_chance_and_is_named(
    sweep: Ledger, run_jobs: Callable[..., None]
) -> None:
    study, plan = JobLedger(sweep, NOWHERE), make_plan(sweep, NOWHERE, top=1, num_seeds=5)
    study.begin(plan, "lmoe-tune confirm small")
    diverged = {("trial 2", 1003)}
    run_jobs(
        study,
        lambda name, split, seed: 0.5 if (name, seed) in diverged else better(name, split, seed),
        diverged=diverged,
    )
    found = made(study, plan)
    assert found["verdict"] == "noise"
    assert found["rows"][0]["diverged"] == 1
    assert found["rows"][0]["metrics"]["test_auroc"]["minimum"] == 0.5
    assert "minimum 0.5000" in found["sentence"]
    assert (
        "trial 2 diverged (split 0, seed 1003): these trainings count as chance"
        in found["cautions"]
    )


def test_later_calls_with_fewer_seeds_splits_or_rows_do_not_make_the_table_smaller(
    sweep: Ledger, run_jobs: Callable[..., None]
) -> None:
    study, plan = JobLedger(sweep, NOWHERE), make_plan(sweep, NOWHERE, top=2, num_seeds=5)
    study.begin(plan, "lmoe-tune confirm small")
    run_jobs(study, better)
    whole = made(study, plan)
    fewer = made(JobLedger(sweep, NOWHERE), make_plan(sweep, NOWHERE, top=1, num_seeds=2))
    assert fewer["sentence"] == whole["sentence"]
    assert fewer["paired"] == whole["paired"]
    assert {row["name"] for row in fewer["rows"]} == {row["name"] for row in whole["rows"]}
    assert [question.number for question in read_questions(study.folder.home)] == [1]
    assert len(read_questions(study.folder.home)[0].looks) == 1


def test_more_seeds_are_another_look_and_another_split_or_winner_another_question(
    sweep: Ledger, run_jobs: Callable[..., None], add_trial: Callable[..., int]
) -> None:
    def asked(**plan: Any) -> tuple[int, int]:
        study, planned = JobLedger(sweep, NOWHERE), make_plan(sweep, NOWHERE, top=1, **plan)
        if not study.is_done(planned):
            study.begin(planned, "lmoe-tune confirm small")
            run_jobs(study, better, fingerprint=lambda split: f"images {split}")
        found = made(study, planned)
        return found["question"], found["look"]

    assert asked(num_seeds=2) == (1, 1)
    assert asked(num_seeds=2) == (1, 1), "the same again"
    assert asked(num_seeds=3) == (1, 2)
    assert asked(num_seeds=3, splits=(0, 1)) == (2, 1)
    assert asked(num_seeds=3, splits=(0,)) == (2, 1), "what exists counts"
    add_trial(sweep, 0.99)
    assert asked(num_seeds=3) == (3, 1)


def test_a_gain_at_the_price_of_accuracy_is_not_real(
    sweep: Ledger, run_jobs: Callable[..., None]
) -> None:
    study, plan = JobLedger(sweep, NOWHERE), make_plan(sweep, NOWHERE, top=1, num_seeds=5)
    study.begin(plan, "lmoe-tune confirm small")
    run_jobs(study, better, accuracy=lambda name: 0.7 if name == "trial 2" else 0.99)
    found = made(study, plan)
    assert found["verdict"] == "worse"
    assert "more than the margin of 0.02" in found["sentence"]


def test_a_comparator_that_is_ahead_is_a_caution(confirmed: Confirmed) -> None:
    study, plan = confirmed(
        lambda name, split, seed: better(name, split, seed) + 0.03 * (name == "mixoe untuned") * 2
    )
    found = made(study, plan)
    assert found["verdict"] == "real"
    assert found["cautions"][0].startswith("mixoe untuned is ahead of the winner, trial 2, by 0.0")


def test_with_nothing_to_compare_that_is_said(confirmed: Confirmed) -> None:
    study, plan = confirmed(
        lambda name, split, seed: None if name == "logit_mixoe untuned" else 0.9
    )
    with pytest.raises(LmoeTuneError, match="nothing to compare: out of memory"):
        made(study, plan)


def test_what_was_kept_of_a_test_must_be_there_whole(confirmed: Confirmed) -> None:
    study, plan = confirmed(lambda name, split, seed: 0.9)
    path = study.folder.trial(3) / SCORES
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        LmoeTuneError, match=r"trials/3/test.npz: cannot be read .* run the confirmation again"
    ):
        made(study, plan)
    path.unlink()
    with pytest.raises(LmoeTuneError, match=r"trials/3/test.npz: cannot be read"):
        made(study, plan)


def test_other_test_images_from_one_job_to_the_next_are_refused(
    sweep: Ledger, run_jobs: Callable[..., None]
) -> None:
    study, few = JobLedger(sweep, NOWHERE), make_plan(sweep, NOWHERE, top=1, num_seeds=2)
    study.begin(few, "lmoe-tune confirm small")
    run_jobs(study, lambda name, split, seed: 0.9)
    more = make_plan(sweep, NOWHERE, top=1, num_seeds=3)
    assert made(study, few)["verdict"] == "noise"
    study.begin(more, "lmoe-tune confirm small")
    run_jobs(study, lambda name, split, seed: 0.9, fingerprint=lambda split: "another")
    with pytest.raises(LmoeTuneError, match="the test images of split 0 have changed"):
        made(study, more)


def test_the_result_is_kept_beside_the_ledger(confirmed: Confirmed) -> None:
    study, plan = confirmed(lambda name, split, seed: 0.9)
    result = conclude(study, plan, notes=["the search was not complete"])
    assert isinstance(result, Confirmation)
    write_result(study, result)
    file = study.sweep.folder.path / "confirm" / "confirm.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept == result.to_json()
    assert "the search was not complete" in kept["cautions"]
