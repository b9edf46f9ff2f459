from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState as State

from lmoe_tune.spec import Spec, load_spec
from lmoe_tune.sweep.remarks import DRAWN_AT_RANDOM, IGNORING_CONSTRAINTS, remarks
from lmoe_tune.sweep.sampling import make_sampler
from trainables import declarations

FINITE = ("space={mixing_alpha: {choices: [1, 2, 3]}}", "search.start_from=[]")


def test_a_space_with_fewer_points_than_trials_is_said(spec: Callable[..., Spec]) -> None:
    (said,) = remarks(spec(*FINITE, "budget.trials=19"))
    assert "only 3 points" in said and "after 3 trials, not 19" in said
    assert remarks(spec("budget.trials=19")) == []


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes", "gp"])
def test_samplers_that_ignore_constraints_are_those_whose_suggestions_do_not_change_with_them(
    spec: Callable[..., Spec], sampler: str
) -> None:
    chosen = spec(f"search.sampler={sampler}", "budget.trials=30")
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    found = []
    for infeasible in (False, True):
        study = optuna.create_study(direction="maximize")
        kind = optuna.distributions.FloatDistribution(0.0, 1.0)
        for number in range(12):
            trial = optuna.trial.create_trial(
                params={"x": number / 12, "y": number % 5 / 5},
                distributions={"x": kind, "y": kind},
                value=float(number),
                state=State.COMPLETE,
                system_attrs={"constraints:c": 1.0 if infeasible and number > 6 else -1.0},
            )
            study.add_trial(trial)
        study.sampler = make_sampler(chosen, 12)
        found.append(study.ask(fixed_distributions={"x": kind, "y": kind}).params)
    assert (found[0] == found[1]) is (sampler in IGNORING_CONSTRAINTS)
    assert bool(remarks(chosen)) is (sampler in IGNORING_CONSTRAINTS)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["train.epochs=1"], "asha stops no trial: the first 1 epoch of 1 are given"),
        (["search.min_epochs=3"], "asha stops no trial: the first 3 epochs of 3"),
        (["search.min_epochs=2", "search.pruner=none"], "search.min_epochs changes nothing"),
        (["search.max_concurrent=17"], "search.max_concurrent is 17, but budget.trials is 16"),
        (["budget.max_failed=16"], "the sweep never ends early for failures"),
        (["budget.trials=10"], "tpe draws its first 10 trials at random"),
        (["search.sampler=gp", "budget.trials=10"], "gp draws its first 10 trials at random"),
        (["search.sampler=nsga2", "budget.trials=12"], "nsga2 draws its first 12 trials"),
        (
            ["search.sampler=cmaes", "budget.trials=1", "objective.constraints={}",
             "search.start_from=[{mixing_alpha: 1}, {mixing_alpha: 2}]"],
            "search.start_from has 2 points, but budget.trials is 1",
        ),
        (["space.mixing_alpha={choices: [1]}"], "space.mixing_alpha has one choice"),
        (
            ["space.outlier_ratio={choices: [0.5, 0.501, 1]}", "train.batch_size=32"],
            "0.5 and 0.501 are the same 16 outliers beside 32 images",
        ),
        (
            ["trainable=energy_oe", "objective.score=energy", "fixed={m_in: -5, m_out: -23}",
             "space={energy_weight: {low: 0.1, high: 1}}"],
            "fixed.m_in is -5 and fixed.m_out is -23",
        ),
        (["objective.metric=val_fine_auroc_energy"], "by objective.score, msp"),
        (
            ["trainable=energy_oe", "space={energy_weight: {low: 0.1, high: 1}}"],
            "energy_oe separates energies, but objective.score is msp",
        ),
        (
            ["objective={metric: train_loss}"],
            "train_loss falls with consistency_weight, whatever the model learns",
        ),
        (["fixed.lr=0.1", "train.lr=0.2"], "train.lr changes nothing: lr is fixed"),
        (
            ["space.weight_decay={low: 0, high: 1}", "train.weight_decay=0"],
            "train.weight_decay changes nothing: weight_decay is searched",
        ),
        (["train.device=cpu", "resources.gpu=1"], "train.device is cpu: the GPU is idle"),
        (["train.threads=2"], "train.threads is 2, but a trial is given 1 CPU"),
        (["train.tf32=true"], "train.tf32 changes nothing"),
        (
            ["model.weights=FILE", "model.baseline.epochs=0", "model.baseline.lr=1"],
            "model.baseline.lr changes nothing: model.baseline.epochs is 0",
        ),
        (["data.cache=off"], "data.cache changes nothing: the embedded images are taken as they"),
        (["train.batch_size=701"], "some 700 images are trained on: every epoch is a single step"),
        (["model.baseline.batch_size=701"], "model.baseline.batch_size is 701"),
        (["data.outliers.limit=31"], "a step has up to 32 outliers, but data.outliers.limit is 31"),
        (
            ["data.outliers.limit=63", "space.outlier_ratio={choices: [1, 2]}"],
            "a step has up to 64 outliers",
        ),
    ],
)  # fmt: skip
def test_what_changes_nothing_or_ends_otherwise_than_one_thinks_is_said(
    tmp_path: Path, settings: list[str], said: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("data: {id: {dataset: digits}}\ntrain: {epochs: 3}\n", encoding="utf-8")
    settings = [text.replace("FILE", str(path)) for text in settings]

    loaded = load_spec(path, overrides=settings, declarations=declarations())

    assert any(said in one for one in remarks(loaded.spec, loaded.given, 700)), remarks(
        loaded.spec, loaded.given, 700
    )


def test_nothing_is_said_about_defaults(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("data: {id: {dataset: digits}}\n", encoding="utf-8")

    loaded = load_spec(path, declarations=declarations())

    assert remarks(loaded.spec, loaded.given, 700) == []


@pytest.mark.parametrize("sampler", DRAWN_AT_RANDOM)
def test_a_sampler_draws_at_random_for_so_many_trials(
    spec: Callable[..., Spec], sampler: str
) -> None:
    made = make_sampler(spec(f"search.sampler={sampler}"), 0)

    number = getattr(made, "_n_startup_trials", None) or getattr(made, "_population_size", None)

    assert number == DRAWN_AT_RANDOM[sampler]


def test_a_check_stays_quick() -> None:
    code = (
        "import sys, lmoe_tune.sweep.remarks\n"
        "heavy = {'optuna', 'numpy', 'torch', 'ray'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("ratios", "is_said"),
    [("{low: 0.5, high: 2}", True), ("{low: 0.5, high: 2, step: 0.5}", False)],
)
def test_what_stands_in_the_way_of_compiled_steps_is_said(
    tmp_path: Path, ratios: str, is_said: bool
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        f"data: {{id: {{dataset: stanford_cars, root: {tmp_path}}}, outliers: {{dataset: folder, root: {tmp_path}}}}}\n"
        f"model: {{arch: resnet50}}\nresources: {{gpu: 1}}\nspace: {{outlier_ratio: {ratios}}}\n",
        encoding="utf-8",
    )
    loaded = load_spec(path, declarations=declarations())
    found = [one for one in remarks(loaded.spec, loaded.given) if "compiled" in one]
    assert bool(found) is is_said
    for one in found:
        assert "they have 49 different numbers of images" in one
