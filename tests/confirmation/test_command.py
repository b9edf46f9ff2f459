"""The command, with jobs that have ended or must not begin: Ray is never started."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lmoe_tune.cli.main import app
from lmoe_tune.confirmation import running
from lmoe_tune.confirmation.job_ledger import JobLedger
from lmoe_tune.confirmation.plan import make_plan
from lmoe_tune.confirmation.tuned_comparators import (
    open_search,
    space_of,
    spec_of_method,
    tunable,
    tuned_candidate,
)
from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.spec import Distribution, resolved_yaml, spec_from_resolved
from lmoe_tune.sweep import folder as folder_module
from lmoe_tune.sweep import projector, view
from lmoe_tune.sweep.folder import SweepFolder, SweepLockedError
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.rebuild import write_about
from lmoe_tune.sweep.runner import Outcome
from lmoe_tune.sweep.settings import RunSettings

Run = Callable[..., Result]
NOISE = {1000: 0.001, 1001: -0.002, 1002: 0.0015}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`lmoe-tune` with these arguments, MLflow left alone; it raises what the command raises."""
    monkeypatch.setattr(projector, "deliver_rest", lambda *arguments: True)

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--home", str(tmp_path / "home")])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def better(name: str, split: int, seed: int) -> float:
    return 0.9 + (0.05 + NOISE[seed] if name == "trial 2" else 0.0)


@pytest.fixture
def jobs_end(
    monkeypatch: pytest.MonkeyPatch, run_jobs: Callable[..., None], tmp_path: Path
) -> Callable[..., None]:
    """In the place of Ray: all waiting jobs end with these AUROCs, the state being `how`."""

    def make(auroc: Callable[..., float | None] = better, how: str = "complete") -> None:
        def run_sweep(ledger: Ledger, settings: RunSettings, **more: Any) -> Outcome:
            assert ledger.has_jobs
            sweep = view.read_sweep(folder_module.find_sweep(ledger.folder.home, "small"))
            assert view.test_openings(sweep), "the opening is recorded before anything runs"
            if how == "complete":
                study = JobLedger(sweep, tmp_path)
                study._ledger = ledger
                run_jobs(study, auroc, lambda split: study.open_split(split).test.fingerprint)
                for trial in ledger.trials():
                    settings.observer.on_end(trial)
            return Outcome(how, delivered=True)

        monkeypatch.setattr(running, "run_sweep", run_sweep)

    return make


def test_it_prints_tables_a_sentence_and_who_opened_the_test_set(
    sweep: Ledger, run: Run, jobs_end: Callable[..., None]
) -> None:
    jobs_end()
    done = run("confirm", "small", "--top", "1", "--seeds", "3")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("sealed test set, mean ± standard deviation")
    assert any(line.startswith("trial 2 ") and "0.9502 ± 0.0019" in line for line in lines)
    assert any(line.startswith("logit_mixoe untuned ") and "+0.0502" in line for line in lines)
    assert any(
        line.startswith("Real: trial 2 is better than logit_mixoe untuned") for line in lines
    )
    assert lines[-1].startswith("the sealed test set was opened once, on 20")
    assert "this is opening 1 of its test set, and question 1 of the home" in done.stderr
    assert "[18 of 18] baseline untuned, split 0, seed 1002: done" in done.stderr


def test_json_and_csv_hold_the_same_and_nothing_is_opened_for_them(
    sweep: Ledger, run: Run, jobs_end: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs_end()
    arguments = ("confirm", "small", "--top", "1", "--seeds", "3")
    document = json.loads(run(*arguments, "--format", "json").stdout)
    monkeypatch.setattr(running, "run_sweep", None)  # not called any more
    assert json.loads(run(*arguments, "--format", "json").stdout) == document
    assert len(document["test_openings"]) == 1
    rows = list(csv.DictReader(io.StringIO(run(*arguments, "--format", "csv").stdout)))
    assert [row["name"] for row in rows] == [row["name"] for row in document["rows"]]
    assert float(rows[0]["test_auroc_mean"]) == document["rows"][0]["metrics"]["test_auroc"]["mean"]
    assert [row["verdict"] for row in rows] == ["", "real", "", "", "", ""]
    assert float(rows[1]["difference"]) == document["paired"][0]["difference"]


def test_openings_are_shown_by_the_commands_that_look(
    sweep: Ledger, run: Run, jobs_end: Callable[..., None]
) -> None:
    assert json.loads(run("status", "small", "--format", "json").stdout)["test_openings"] == []
    assert "opened" not in run("leaderboard", "small").stderr
    jobs_end()
    run("confirm", "small", "--top", "1", "--seeds", "2")
    run("confirm", "small", "--top", "1", "--seeds", "3")
    assert len(json.loads(run("status", "small", "--format", "json").stdout)["test_openings"]) == 2
    shown = json.loads(run("status", "small", "--format", "json").stdout)
    assert (shown["questions"], shown["home_questions"]) == ([1], 1)
    for command in ("status", "leaderboard", "best"):
        assert "the sealed test set was opened 2 times, last on 20" in run(command, "small").stderr
    (listed,) = json.loads(run("list", "--format", "json").stdout)
    assert listed == json.loads(run("status", "small", "--format", "json").stdout)


def test_a_dry_run_says_the_cost_and_what_could_be_found_and_opens_nothing(
    sweep: Ledger, run: Run, jobs_end: Callable[..., None], tmp_path: Path
) -> None:
    lines = run("confirm", "small", "--dry-run").stdout.splitlines()
    assert lines[0].startswith(
        "7 configurations, 5 seeds, 1 split: 35 jobs (trial 0 and logit_mixoe untuned"
    )
    assert "number 1 of the home, at a level of 0.02" in lines[1]
    assert lines[2].startswith("nothing is known yet about how much pairs vary")
    assert view.test_openings(sweep) == []
    assert not (tmp_path / "home" / "questions.jsonl").exists()
    assert not sweep.folder.confirmation.exists()

    jobs_end()
    run("confirm", "small", "--top", "1", "--seeds", "3")
    found = json.loads(run("confirm", "small", "--dry-run", "--format", "json").stdout)
    assert (found["question"], found["look"], found["is_new"]) == (1, 2, False)
    assert found["source"] == "the confirmation of 'small'"
    assert found["jobs"] == 35 - 18
    least = dict(found["finds"])
    assert least[3] > least[5] > least[20] > 0
    assert all(0 < seeds <= 1000 for _, seeds in found["needs"])
    assert len(view.test_openings(view.read_sweep(sweep.folder))) == 1, "as before"


def test_a_dry_run_foresees_the_question_the_look_and_the_level_of_the_real_one(
    sweep: Ledger,
    run: Run,
    jobs_end: Callable[..., None],
    add_trial: Callable[..., int],
) -> None:
    jobs_end(lambda name, split, seed: 0.9 + seed % 3 / 100)

    def agree(*arguments: str) -> dict[str, Any]:
        command = ("confirm", "small", "--top", "1", *arguments, "--format", "json")
        foreseen = json.loads(run(*command, "--dry-run").stdout)
        done = json.loads(run(*command).stdout)
        for key in ("question", "look", "level", "seeds", "splits"):
            assert foreseen[key] == done[key], key
        assert foreseen["rows"] == [row["name"] for row in done["rows"]]
        return foreseen

    assert agree("--seeds", "2")["is_new"]
    assert agree("--seeds", "4")["look"] == 2
    assert agree("--seeds", "3")["jobs"] == 0, "what exists counts"
    assert agree("--seeds", "4", "--splits", "0,1")["is_new"]
    jobs_end(how="interrupted")
    add_trial(Ledger.writing(sweep.folder, sweep.spec), 0.99)
    assert run("confirm", "small", "--top", "1", "--seeds", "4").exit_code == 130
    jobs_end()
    found = agree("--seeds", "4")
    assert (found["question"], found["look"], found["is_new"]) == (3, 1, False), "asked, not seen"
    said = run("confirm", "small", "--top", "1", "--seeds", "5", "--dry-run").stdout
    assert (
        "it would be look 2 at question 3 of the home, which was asked before, at a level of 0.00067"
        in said
    )


def test_a_dry_run_says_what_the_real_one_would_refuse(
    make_ledger: Callable[..., Ledger],
    add_trial: Callable[..., int],
    run: Run,
    jobs_end: Callable[..., None],
) -> None:
    ledger = make_ledger("budget.trials=5")
    for value in (0.90, 0.91, 0.95):
        add_trial(ledger, value)
    right = ledger.attrs["code"]
    ledger.set_attr("code", right | {"lmoe_tune/model.py": "0"})
    said = run("confirm", "small", "--dry-run").stdout
    assert (
        "refused: the search was not complete: 3 trials of 5 (--allow-unfinished continues)" in said
    )
    assert "refused: lmoe_tune/model.py: changed, since it was searched (--allow-changes" in said

    jobs_end()
    run("confirm", "small", "--seeds", "2", "--allow-unfinished", "--allow-changes")
    said = run("confirm", "small", "--seeds", "2", "--dry-run").stdout
    assert "model.py" not in said, "there is nothing to train"
    study = JobLedger(ledger, Path("/nowhere"))
    study.ledger.set_attr("code", right | {"lmoe_tune/confirmation/job.py": "0"})
    said = run("confirm", "small", "--seeds", "3", "--dry-run").stdout
    assert "lmoe_tune/confirmation/job.py: changed, since its confirmation was started" in said


def test_a_winner_with_its_methods_defaults_is_noise_and_asks_no_question(
    make_ledger: Callable[..., Ledger],
    add_trial: Callable[..., int],
    run: Run,
    run_jobs: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = make_ledger("budget.trials=3")
    for value in (0.95, 0.91, 0.90):
        add_trial(small, value)

    def run_sweep(ledger: Ledger, settings: RunSettings, **more: Any) -> Outcome:
        study = JobLedger(small, tmp_path)
        study._ledger = ledger
        run_jobs(study, lambda name, split, seed: 0.9 + NOISE[seed])
        return Outcome("complete", delivered=True)

    monkeypatch.setattr(running, "run_sweep", run_sweep)
    planned = run("confirm", "small", "--seeds", "3", "--dry-run").stdout
    assert "trial 0 is the best of 'small' and has exactly the defaults of logit_mixoe" in planned
    assert "refused" not in planned and "question 1" not in planned

    done = run("confirm", "small", "--seeds", "3", "--format", "json")
    assert "no gain to confirm" in done.stderr and "--reseed 3" in done.stderr
    assert json.loads(done.stdout)["verdict"] == "noise"
    assert view.questions_of(small) == {"questions": [], "home_questions": 0}


def test_defaults_that_won_are_compared_with_the_other_methods_tuned(
    make_ledger: Callable[..., Ledger],
    add_trial: Callable[..., int],
    run: Run,
    run_jobs: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = make_ledger("budget.trials=2")
    for value in (0.95, 0.91):
        add_trial(small, value)

    def auroc(name: str, split: int, seed: int) -> float:
        return 0.9 + (0.05 + NOISE[seed] if name == "trial 0" else 0.0)

    def run_sweep(ledger: Ledger, settings: RunSettings, **more: Any) -> Outcome:
        if ledger.has_jobs:
            study = JobLedger(small, tmp_path)
            study._ledger = ledger
            run_jobs(study, auroc)
        else:
            while ledger.exhausted() is None:
                add_trial(ledger, 0.9)
        return Outcome("complete", delivered=True)

    monkeypatch.setattr(running, "run_sweep", run_sweep)
    arguments = ("confirm", "small", "--top", "1", "--seeds", "3", "--tuned-comparators")
    found = json.loads(run(*arguments, "--format", "json").stdout)
    own, *others = (pair for pair in found["paired"] if pair["metric"] == "test_auroc")
    assert (own["difference"], own["p"], found["verdict"]) == (0.0, 1.0, "noise")
    assert all(pair["p"] <= pair["p_corrected"] < 0.05 for pair in others)
    text = run(*arguments).stdout
    assert "p is 1 against logit_mixoe untuned, whatever the interval: all pairs differ by" in text
    planned = json.loads(run(*arguments, "--dry-run", "--format", "json").stdout)
    assert planned["rows"] == [row["name"] for row in found["rows"]]
    assert (planned["jobs"], planned["refusals"], planned["look"]) == (0, [], 1)


@pytest.fixture
def reseeding_ends(
    monkeypatch: pytest.MonkeyPatch, run_jobs: Callable[..., None], tmp_path: Path
) -> Callable[..., None]:
    """In the place of Ray, with these AUROCs on validation images; nothing has been opened before."""

    def make(auroc: Callable[..., float | None], how: str = "complete") -> None:
        def run_sweep(ledger: Ledger, settings: RunSettings, **more: Any) -> Outcome:
            sweep = view.read_sweep(folder_module.find_sweep(ledger.folder.home, "small"))
            assert view.test_openings(sweep) == []
            if how == "complete":
                study = JobLedger(sweep, tmp_path)
                study._ledger = ledger
                run_jobs(study, auroc)
                for trial in ledger.trials():
                    settings.observer.on_end(trial)
            return Outcome(how, delivered=True)

        monkeypatch.setattr(running, "run_sweep", run_sweep)

    return make


def test_a_reseeding_says_what_was_luck_and_plans_the_confirmation(
    sweep: Ledger, run: Run, reseeding_ends: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    reseeding_ends(better)
    done = run("confirm", "small", "--top", "2", "--reseed", "3")
    assert done.exit_code == 0
    assert "reseeding 'small': 3 configurations, 3 seeds, 1 split: 9 jobs, on the" in done.stderr
    assert "the test set stays sealed" in done.stderr
    assert (
        "[9 of 9] logit_mixoe untuned, split 0, seed 1002, validation images: done" in done.stderr
    )
    lines = done.stdout.splitlines()
    (row,) = (line for line in lines if line.startswith("trial 2 ") and "minus" not in line)
    assert "0.95 " in row and "0.9502 ± 0.0019" in row
    assert (
        "trial 2 minus logit_mixoe untuned: +0.0502 in val_auroc, standard deviation 0.0019 over 3 pairs"
        in lines
    )
    assert any("still flattered" in line for line in lines)
    assert (
        "in the reseeding of 'small' the differences of 3 pairs varied by 0.0019 over seeds; planned with 0.0040, "
        "the most by which they vary in 80% of cases:" in lines
    )
    assert any("3 pairs say little about how much pairs vary" in line for line in lines)
    assert any("needs" in line for line in lines)

    planned = json.loads(run("confirm", "small", "--dry-run", "--format", "json").stdout)
    assert planned["source"] == "the reseeding of 'small'"
    assert planned["spreads"]["pairs"] == 3
    assert planned["seed_sd_at_most"] == pytest.approx(
        2.117 * planned["spreads"]["seed_sd"], rel=1e-3
    )
    assert planned["seeds"] == [1003, 1004, 1005, 1006, 1007], "others than those of the reseeding"
    assert view.test_openings(view.read_sweep(sweep.folder)) == []
    assert json.loads(run("status", "small", "--format", "json").stdout)["home_questions"] == 0

    monkeypatch.setattr(running, "run_sweep", None)  # not called any more
    again = run("confirm", "small", "--top", "2", "--reseed", "3", "--format", "json")
    document = json.loads(again.stdout)
    assert document["seeds"] == [1000, 1001, 1002]
    assert document["gains"]["trial 2"]["difference"] == pytest.approx(0.0502, abs=1e-4)
    assert document["searched"] == {"trial 2": 0.95, "trial 1": 0.91}
    assert document["image_sd"] > 0
    table = csv.DictReader(
        io.StringIO(run("confirm", "small", "--reseed", "2", "--format", "csv").stdout)
    )
    assert [row["name"] for row in table][:2] == ["trial 2", "trial 1"]


def test_a_confirmation_after_a_reseeding_is_the_better_source(
    sweep: Ledger,
    run: Run,
    reseeding_ends: Callable[..., None],
    jobs_end: Callable[..., None],
) -> None:
    reseeding_ends(better)
    run("confirm", "small", "--top", "1", "--reseed", "3")
    jobs_end(lambda name, split, seed: 0.9 + (0.01 + seed % 2 / 100) * (name == "trial 2"))
    done = json.loads(
        run("confirm", "small", "--top", "1", "--seeds", "3", "--format", "json").stdout
    )
    assert done["seeds"] == [1003, 1004, 1005]
    assert len(done["jobs"]) == 18
    planned = json.loads(run("confirm", "small", "--dry-run", "--format", "json").stdout)
    assert planned["source"] == "the confirmation of 'small'"


def test_a_reseeding_waits_for_a_confirmation_that_is_not_finished(
    sweep: Ledger, run: Run, jobs_end: Callable[..., None]
) -> None:
    jobs_end(how="interrupted")
    run("confirm", "small", "--top", "1", "--seeds", "2")
    with pytest.raises(
        UsageError, match=r"12 waiting jobs of a confirmation.*confirm small --seeds 2"
    ):
        run("confirm", "small", "--reseed", "2")


def test_an_interrupted_reseeding_says_how_to_go_on(
    sweep: Ledger, run: Run, reseeding_ends: Callable[..., None]
) -> None:
    reseeding_ends(better, "interrupted")
    stopped = run("confirm", "small", "--reseed", "2")
    assert stopped.exit_code == 130
    assert "to continue: lmoe-tune confirm small --top 3 --reseed 2 --home" in stopped.stderr


def test_a_reseeding_whose_jobs_all_failed_says_why(
    sweep: Ledger, run: Run, reseeding_ends: Callable[..., None]
) -> None:
    reseeding_ends(lambda name, split, seed: None)
    with pytest.raises(LmoeTuneError, match=r"nothing to compare: out of memory"):
        run("confirm", "small", "--reseed", "2")


def test_interrupted_it_says_how_to_go_on(
    sweep: Ledger, run: Run, jobs_end: Callable[..., None]
) -> None:
    jobs_end(how="interrupted")
    stopped = run("confirm", "small", "--seeds", "2", "--splits", "0,2")
    assert stopped.exit_code == 130
    assert (
        "interrupted; to continue: lmoe-tune confirm small --seeds 2 --top 3 --splits 0,2 --home"
        in stopped.stderr
    )
    assert stopped.stdout == ""


def test_failed_jobs_are_named_with_an_exit_code_of_their_own(
    sweep: Ledger, run: Run, jobs_end: Callable[..., None]
) -> None:
    jobs_end(
        lambda name, split, seed: None if name == "mixoe untuned" else better(name, split, seed)
    )
    done = run("confirm", "small", "--seeds", "3")
    assert done.exit_code == 3
    assert "failed: mixoe untuned, split 0, seed 1000: out of memory" in done.stderr
    assert "the same command tries the failed jobs once more" in done.stderr
    assert "Real: trial 2" in done.stdout


def test_a_copied_sweep_is_not_confirmed(sweep: Ledger, run: Run) -> None:
    write_about(sweep)
    copied = SweepFolder(sweep.folder.home, "backup")
    shutil.copytree(sweep.folder.path, copied.path)
    with pytest.raises(UsageError, match=r"it is a copy of 'small'"):
        run("confirm", "backup")
    assert view.test_openings(view.read_sweep(copied)) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nosuch",), "no sweep 'nosuch'"),
        (("small", "--seeds", "1"), "seeds is 1, but must be at least 2"),
        (("small", "--top", "0"), "top is 0, but must be at least 1"),
        (("small", "--reseed", "1"), "reseed is 1, but must be at least 2"),
        (("small", "--seeds", "1000000000"), "seeds is 1000000000, but must be at most 10000"),
        (
            ("small", "--reseed", "2", "--tuned-comparators", "--splits", "0"),
            "reseed does not go with splits, tuned_comparators",
        ),
        (("small", "--reseed", "2", "--dry-run"), "reseed does not go with dry_run"),
        (("small", "--splits", "0;1"), "--splits is '0;1', but must be numbers of splits"),
        (("small", "--splits", "9999999999"), "--splits is '9999999999'"),
        (("small", "--format", "xml"), "--format is 'xml'"),
        (("small/confirm",), "no sweep 'small/confirm'"),
    ],
)
def test_what_cannot_be_is_said(
    sweep: Ledger, run: Run, arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        run("confirm", *arguments)
    assert view.test_openings(sweep) == []


def test_a_search_that_is_not_complete_is_refused_unless_that_is_allowed(
    make_ledger: Callable[..., Ledger],
    add_trial: Callable[..., int],
    run: Run,
    jobs_end: Callable[..., None],
) -> None:
    ledger = make_ledger("budget.trials=5")
    for value in (0.90, 0.91, 0.95):
        add_trial(ledger, value)
    with pytest.raises(
        UsageError,
        match="not complete.*`lmoe-tune resume small --home .*`, or continue with --allow-unfinished",
    ):
        run("confirm", "small")
    with pytest.raises(UsageError, match="not complete, so other trials may become its best"):
        run("confirm", "small", "--reseed", "2")
    assert not ledger.folder.confirmation.path.exists() or not ledger.folder.confirmation.exists()
    jobs_end()
    done = run("confirm", "small", "--seeds", "3", "--allow-unfinished", "--format", "json")
    assert "the search was not complete: 3 trials of 5" in json.loads(done.stdout)["cautions"]


def test_a_sweep_that_is_worked_on_is_left_alone(
    sweep: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "LOCK_PATIENCE_S", 0.05)
    with (
        sweep.folder.locked(),
        pytest.raises(SweepLockedError, match="'small' is being worked on by process"),
    ):
        run("confirm", "small")


def test_sync_delivers_the_confirmation_too(
    sweep: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    JobLedger(sweep, Path("/nowhere")).begin(
        make_plan(sweep, Path("/nowhere"), top=1, num_seeds=2), "lmoe-tune confirm small"
    )
    delivered = []
    monkeypatch.setattr(
        projector, "sync", lambda ledger, uri, say: delivered.append(ledger.folder.name) or True
    )
    run("sync", "small")
    assert delivered == ["small", "small/confirm"]


# ------------------------------------------------------------------ tuned comparators


def test_every_other_method_with_something_to_tune_is_tuned(sweep: Ledger) -> None:
    assert tunable(sweep.spec) == ["mixoe", "outlier_exposure", "energy_oe"]
    space = space_of(sweep.spec, "outlier_exposure")
    assert set(space) == {"outlier_weight", "outlier_ratio"}
    assert space["outlier_ratio"] == sweep.spec.space["outlier_ratio"], (
        "what methods share has the sweep's range"
    )
    assert space_of(sweep.spec, "mixoe")["mixing_alpha"].high == 10.0


def test_where_the_learning_rate_is_searched_it_is_for_all(sweep: Ledger) -> None:
    lr = Distribution(low=0.001, high=0.1, log=True)
    spec = sweep.spec.model_copy(update={"space": {**sweep.spec.space, "lr": lr}})
    assert "baseline" in tunable(spec)
    assert space_of(spec, "baseline") == {"lr": lr}
    assert space_of(spec, "energy_oe")["lr"] == lr


def test_a_comparators_search_has_the_sweeps_budget_and_starts_from_its_own_defaults(
    sweep: Ledger,
) -> None:
    spec = spec_of_method(sweep.spec, sweep.budget, "mixoe")
    assert spec.trainable == "mixoe"
    assert spec.budget.trials == sweep.budget.trials
    assert (spec.data, spec.train, spec.objective) == (
        sweep.spec.data,
        sweep.spec.train,
        sweep.spec.objective,
    )
    assert spec.search.start_from == ({"mix_weight": 5.0, "outlier_ratio": 1.0},)
    assert spec_from_resolved(resolved_yaml(spec)) == spec


def test_the_best_of_its_search_is_a_row(
    sweep: Ledger, add_trial: Callable[..., int], tmp_path: Path
) -> None:
    ledger = open_search(sweep, "mixoe", tmp_path, "lmoe-tune confirm small", allow_changes=False)
    assert ledger.folder.name == "small/tuned/mixoe"
    assert ledger.resume_command == "lmoe-tune confirm small"
    assert tuned_candidate(ledger, tmp_path) is None
    for value in (0.9, 0.95, 0.8):
        add_trial(ledger, value)
    assert ledger.is_complete()
    again = open_search(sweep, "mixoe", tmp_path, "lmoe-tune confirm small", allow_changes=False)
    assert len(again.trials()) == 3
    found = tuned_candidate(again, tmp_path)
    assert found is not None
    assert (found.name, found.method, found.trial) == ("mixoe tuned", "mixoe", None)
    assert found.params["mix_weight"] == again.trial(1).params["mix_weight"]


def test_the_command_tunes_first_and_opens_the_test_set_afterwards(
    sweep: Ledger, run: Run, run_jobs: Callable[..., None], add_trial: Callable[..., int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    worked_on = []

    def run_sweep(ledger: Ledger, settings: RunSettings, **more: Any) -> Outcome:
        worked_on.append(ledger.folder.name)
        home = ledger.folder.home
        openings = view.test_openings(view.read_sweep(folder_module.find_sweep(home, "small")))
        if ledger.has_jobs:
            study = JobLedger(sweep, tmp_path)
            study._ledger = ledger
            run_jobs(study, better)
            assert len(openings) == 1
        else:
            assert openings == []
            while ledger.exhausted() is None:
                add_trial(ledger, 0.9)
        return Outcome("complete", delivered=True)

    monkeypatch.setattr(running, "run_sweep", run_sweep)
    done = run(
        "confirm", "small", "--top", "1", "--seeds", "3", "--tuned-comparators", "--format", "json"
    )
    methods = ["mixoe", "outlier_exposure", "energy_oe"]
    assert worked_on == [*(f"small/tuned/{method}" for method in methods), "small/confirm"]
    names = [row["name"] for row in json.loads(done.stdout)["rows"]]
    # A search whose first trial is never bettered gives its defaults back, under both names.
    assert names[-3:] == [f"{method} tuned" for method in methods]


def test_an_interrupted_search_of_a_comparator_is_gone_on_with_by_the_same_command(
    sweep: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        running, "run_sweep", lambda *args, **more: Outcome("interrupted", delivered=True)
    )
    stopped = run("confirm", "small", "--tuned-comparators")
    assert stopped.exit_code == 130
    assert "lmoe-tune confirm small --seeds 5 --top 3 --tuned-comparators" in stopped.stderr
    assert view.test_openings(sweep) == []


def test_an_unreadable_confirmation_says_so(
    sweep: Ledger, run: Run, jobs_end: Callable[..., None]
) -> None:
    jobs_end()
    run("confirm", "small", "--seeds", "2")
    (sweep.folder.confirmation.trial(0) / "test.npz").unlink()
    with pytest.raises(LmoeTuneError, match="test.npz: cannot be read"):
        run("confirm", "small", "--seeds", "2")
