from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lmoe_tune.api.dry_run import foreseen
from lmoe_tune.cli.spec import check
from lmoe_tune.errors import SpecError, UsageError
from lmoe_tune.records import TrialRecord
from lmoe_tune.spec import LoadedSpec, Spec, load_spec
from lmoe_tune.sweep.audit import audit, digest
from lmoe_tune.sweep.budget import BudgetChange
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.lifecycle import first_attrs, prepare, write_records
from lmoe_tune.sweep.rebuild import rebuild, write_about
from lmoe_tune.sweep.view import read_sweep, summary
from lmoe_tune.sweep.warm_start import in_words, sources_of
from trainables import declarations

MakeSpec = Callable[..., Spec]
Run = Callable[..., TrialRecord]

FEASIBLE = {"val_accuracy": 0.95}
START = "search.start_from=[{mixing_alpha: 1, consistency_weight: 1, outlier_ratio: 1}]"


def started(home: Path, name: str, spec: Spec) -> Ledger:
    """A sweep, as a command starts or resumes it."""
    folder = SweepFolder(home, name)
    ready = prepare(folder, LoadedSpec(spec, Path("small.yaml")), fresh=False)
    first = first_attrs(ready.spec, BudgetChange(), home, home, ready.sources)
    write_records(folder, ready.spec)
    return Ledger.writing(folder, ready.spec, first)


@pytest.fixture
def source(tmp_path: Path, spec: MakeSpec, run_trial: Run) -> Callable[..., Ledger]:
    """A sweep of complete trials, whose AUROCs are given; a negative one misses the constraint."""

    def make(name: str, *overrides: str, aurocs: tuple[float, ...] = (0.7, 0.8, 0.9)) -> Ledger:
        quiet = ("search.pruner=none", f"name={name}")
        ledger = started(tmp_path / "home", name, spec(*quiet, *overrides))
        for auroc in aurocs:
            accuracy = 0.95 if auroc > 0 else 0.5
            run_trial(ledger, val_auroc=abs(auroc), val_accuracy=accuracy)
        return ledger

    return make


@pytest.fixture
def target(tmp_path: Path, spec: MakeSpec) -> Callable[..., Ledger]:
    """A sweep that starts from others."""

    def make(*overrides: str) -> Ledger:
        return started(tmp_path / "home", "new", spec("name=new", START, *overrides))

    return make


def notes_of(ledger: Ledger) -> str:
    return "\n".join(in_words(sources_of(ledger)))


def test_the_best_points_of_others_are_tried_after_the_sweeps_own(
    source: Callable[..., Ledger], target: Callable[..., Ledger]
) -> None:
    old = source("old", aurocs=(0.6, 0.9, 0.8, 0.7))
    ledger = target("warm_start=[old]")

    asked = [ledger.ask().params for _ in range(5)]

    best = [old.trial(number).params for number in (1, 2, 3)]
    assert asked[0] == {"mixing_alpha": 1.0, "consistency_weight": 1.0, "outlier_ratio": 1.0}
    assert asked[1:4] == best
    assert asked[4] not in [trial.params for trial in old.trials()], "the sampler's own"
    (taken,) = sources_of(ledger)
    assert summary(ledger)["started_from"] == [{"sweep": "old", "trials": [1, 2, 3]}]
    assert "started_from" not in summary(old)
    assert (taken.sweep, taken.sweep_id, taken.digest) == ("old", old.sweep_id, digest(old))
    assert [(one.trial, one.value, one.tried_as) for one in taken.origins] == [
        (1, 0.9, 1), (2, 0.8, 2), (3, 0.7, 3),
    ]  # fmt: skip


def test_a_resume_adds_nothing_and_needs_no_source(
    source: Callable[..., Ledger], target: Callable[..., Ledger]
) -> None:
    old = source("old")
    first = target("warm_start=[old]")
    taken = sources_of(first)
    shutil.rmtree(old.folder.path)

    again = target("warm_start=[old]")

    assert again.spec == first.spec
    assert sources_of(again) == taken
    assert again.study.get_trials() == first.study.get_trials()
    with pytest.raises(UsageError, match="warm_start"):
        target("warm_start=[]")
    with pytest.raises(UsageError, match="start_from"):
        target("warm_start=[old]", "search.start_from=[{mixing_alpha: 3}]")


def test_a_warm_sweep_is_audited_and_rebuilt_without_its_source(
    source: Callable[..., Ledger], target: Callable[..., Ledger], run_trial: Run
) -> None:
    old = source("old")
    ledger = target("warm_start=[old]", "search.pruner=none")
    for _ in range(6):
        run_trial(ledger, **FEASIBLE)
    shutil.rmtree(old.folder.path)

    found = audit(ledger)

    assert found.differences == ()
    assert (found.given, found.suggestions) == (3, 3)

    write_about(ledger)
    ledger.folder.ledger.write_bytes(b"damaged")
    remains, _ = rebuild(ledger.folder, ledger.spec)
    assert remains.attrs["warm_start"] == ledger.attrs["warm_start"]


def test_what_cannot_be_used_is_said(
    source: Callable[..., Ledger], target: Callable[..., Ledger]
) -> None:
    source(
        "old", "search.start_from=[{mixing_alpha: 9, outlier_ratio: 0.5}]", aurocs=(0.9, 0.8, -1.0)
    )
    ledger = target("warm_start=[old]", "space.mixing_alpha.high=8.9")

    said = notes_of(ledger)

    assert (
        "its trial 0 is left out: mixing_alpha is 9, but must be a number between 0.1 and 8.9"
        in said
    )
    assert [one.trial for one in sources_of(ledger)[0].origins] == [1], "2 misses the constraint"
    assert len(ledger.spec.search.start_from) == 2


def test_what_was_fixed_there_counts_like_what_was_searched(
    source: Callable[..., Ledger], target: Callable[..., Ledger]
) -> None:
    source("old", "fixed={mix_weight: 3}", "train.lr=0.02", aurocs=(0.9,))
    searching = "space.mix_weight={low: 0.5, high: 5}"
    ledger = target(
        "warm_start=[old]", searching, "space.lr={low: 0.001, high: 0.1}", "train.lr=0.01"
    )

    point = ledger.spec.search.start_from[1]

    assert (point["mix_weight"], point["lr"]) == (3.0, 0.02)


def test_what_is_something_else_here_is_said(
    source: Callable[..., Ledger], target: Callable[..., Ledger]
) -> None:
    source("old", "fixed={mix_weight: 3}", aurocs=(0.8, 0.9))
    said = notes_of(target("warm_start=[old]", "fixed={mix_weight: 2}"))
    assert "its trial 1 had mix_weight 3, which is 2 here" in said


def test_another_method_is_no_point_of_this_space(
    source: Callable[..., Ledger], target: Callable[..., Ledger]
) -> None:
    source("old", "trainable=mixoe", "space={mix_weight: {low: 1, high: 5}}", aurocs=(0.9,))
    ledger = target("warm_start=[old]")
    assert "its trial 0 is left out: its method is mixoe, but must be logit_mixoe" in notes_of(
        ledger
    )
    assert "nothing can be used" in notes_of(ledger)
    assert len(ledger.spec.search.start_from) == 1


def test_a_sweep_that_searches_the_method_takes_the_points_of_one(
    source: Callable[..., Ledger], tmp_path: Path, spec: MakeSpec
) -> None:
    source("old", aurocs=(0.9,))
    wanted = spec(
        "name=both",
        "warm_start=[old]",
        "space.method={choices: [logit_mixoe, mixoe]}",
        "search.start_from=[]",
    )
    (point,) = started(tmp_path / "home", "both", wanted).spec.search.start_from
    assert point["method"] == "logit_mixoe"
    assert set(point) == {"method", "mixing_alpha", "consistency_weight", "outlier_ratio"}


def test_a_point_that_is_there_already_is_not_taken_twice(
    source: Callable[..., Ledger], target: Callable[..., Ledger]
) -> None:
    source("one", aurocs=(0.9,))
    source("two", aurocs=(0.9,))
    ledger = target("warm_start=[one, two]", "search.start_from=[]")
    assert len(ledger.spec.search.start_from) == 1
    assert "'two': its trial 0 is among the points before it" in notes_of(ledger)


def test_a_sweep_that_has_nothing_yet_is_named(
    source: Callable[..., Ledger], target: Callable[..., Ledger]
) -> None:
    source("empty", aurocs=())
    source(
        "loose", "objective.metric=val_accuracy", "objective.constraints={val_auroc: {min: 0.95}}"
    )
    said = notes_of(target("warm_start=[empty, loose]"))
    assert "'empty': it has no complete trial" in said
    assert "'loose': its trials are ranked by val_accuracy, not val_auroc" in said
    assert "'loose': none of its trials meets its constraints" in said


def test_a_source_that_is_not_there_is_refused(target: Callable[..., Ledger]) -> None:
    with pytest.raises(UsageError, match="no sweep 'nowhere'(?s:.*)no sweep 'neither'"):
        target("warm_start=[nowhere, neither]")


def test_a_source_that_looked_at_sealed_images_is_refused_through_others_too(
    source: Callable[..., Ledger], target: Callable[..., Ledger]
) -> None:
    """Split 1 validates with images that split 0 tests with; so does whatever started from it."""
    leaking = source("leaking", "data.split=1", aurocs=(0.9,))
    source("between", "data.split=1", "warm_start=[leaking]", aurocs=(0.9,))
    shutil.rmtree(leaking.folder.path)

    with pytest.raises(UsageError, match=r"'between' was tuned on [\d,]+ images that are sealed"):
        target("warm_start=[between]")

    between = SweepFolder(leaking.folder.home, "between")
    assert len(sources_of(Ledger.reading(between, leaking.spec))[0].seen) == 1


def test_a_confirmation_is_no_source(
    source: Callable[..., Ledger], target: Callable[..., Ledger]
) -> None:
    old = source("old", aurocs=(0.9,))
    shutil.copytree(old.folder.path, old.folder.confirmation.path)
    with pytest.raises(UsageError, match="warm_start"):
        target("warm_start=[old/confirm]")


def test_check_and_a_dry_run_say_what_would_be_taken_and_write_nothing(
    source: Callable[..., Ledger], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = source("old", aurocs=(0.5, 0.9)).folder.home
    path = tmp_path / "new.yaml"
    path.write_text("data: {id: {dataset: digits}}\n", encoding="utf-8")

    check(str(path), ["warm_start=[old]", "train.epochs=3"], str(home))

    said = capsys.readouterr().out
    assert "warm start from 'old': its trial 1 (val_auroc 0.9) as 1" in said
    assert "warm start from 'old': its trial 0 is among the points before it" in said
    assert "sampler tpe: " in said and "pruner asha: " in said

    loaded = load_spec(path, overrides=["warm_start=[old]"], declarations=declarations())
    found = foreseen(loaded, BudgetChange(), home)
    first, second, *_ = found.configurations
    assert [one.sweep for one in found.sources] == ["old"]
    assert first["mixing_alpha"] == 1.0
    assert second == source_params(home, 1)
    assert not SweepFolder(home, "new").path.exists()


def test_check_names_a_missing_source_although_a_sweep_of_that_name_is_there(
    source: Callable[..., Ledger], tmp_path: Path
) -> None:
    home = source("old", aurocs=(0.9,)).folder.home
    path = tmp_path / "old.yaml"
    path.write_text("data: {id: {dataset: digits}}\n", encoding="utf-8")
    with pytest.raises(SpecError, match="nosuch"):
        check(str(path), ["warm_start=[nosuch]"], str(home))


def test_the_points_of_a_source_are_not_drawn_once_more(tmp_path: Path) -> None:
    """Both have the same seed, and a suggestion depends on it and on the trial's number."""
    path = Path(__file__).parents[2] / "search_spaces" / "digits.yaml"
    digits_spec = load_spec(path, declarations=declarations()).spec
    after = digits_spec.model_copy(update={"warm_start": ("old",)})
    source, drawn = asked(digits_spec, tmp_path / "one"), asked(after, tmp_path / "other")
    given = len(digits_spec.search.start_from)
    assert source[:given] == drawn[:given]
    assert all(point not in source for point in drawn[given:])


def asked(spec: Spec, home: Path) -> list[dict[str, object]]:
    folder = SweepFolder(home, "new")
    folder.path.mkdir(parents=True)
    ledger = Ledger.writing(folder, spec)
    return [ledger.ask().params for _ in range(6)]


def source_params(home: Path, number: int) -> dict[str, object]:
    return read_sweep(SweepFolder(home, "old")).trial(number).params
