"""The arithmetic by hand, and then what it is for: how often noise is called real, and an effect is found.

The numbers of the power table are those of docs/evaluation.md.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from lmoe_tune.evaluation import auroc
from lmoe_tune.statistics import (
    SURE,
    Asked,
    Run,
    Spreads,
    compare,
    estimate,
    holm,
    in_sequence,
    least_difference,
    least_shown,
    seeds_needed,
    summarise,
    verdict,
)

METRIC = "test_auroc"


def runs_of(
    values: dict[str, Any], metric: str = METRIC, resampled: dict[str, Any] | None = None
) -> list[Run]:
    """Runs from {configuration: array (splits, seeds)}, and their resamples (splits, seeds, R)."""
    return [
        Run(
            name,
            split,
            seed,
            {metric: float(value)},
            {metric: resampled[name][split, seed]} if resampled else {},
        )
        for name, table in values.items()
        for (split, seed), value in np.ndenumerate(np.atleast_2d(table))
    ]


# --- the arithmetic ---


def test_a_difference_by_hand() -> None:
    """Differences .01, .03, .02, .04, .00: mean .02, variance .00025, standard error sqrt(.00025 / 5)."""
    values = {"winner": [0.91, 0.94, 0.91, 0.95, 0.90], "defaults": [0.90, 0.91, 0.89, 0.91, 0.90]}
    (found,) = compare(runs_of(values), "winner", ["defaults"], [METRIC])
    assert found.difference == pytest.approx(0.02)
    assert found.noise_floor == pytest.approx(math.sqrt(0.00025))
    half = 2.776445 * math.sqrt(0.00025 / 5)  # t with 4 degrees of freedom
    assert found.ci95 == pytest.approx((0.02 - half, 0.02 + half), rel=1e-5)
    assert found.p == pytest.approx(0.04742, abs=1e-5)  # t = 2.828427
    assert (found.pairs, found.splits) == (5, 1)


def test_the_noise_of_the_test_images_counts_once_for_all_seeds() -> None:
    """The same differences, and resampling that moves both seeds' difference together by +-.01."""
    shift = np.array([0.01, -0.01] * 20)
    values = {"winner": np.array([[0.93, 0.91]]), "defaults": np.array([[0.90, 0.90]])}
    moved = {"winner": values["winner"][..., None] + shift, "defaults": np.full((1, 2, 40), 0.90)}
    (found,) = compare(runs_of(values, resampled=moved), "winner", ["defaults"], [METRIC])
    seeds, images = 0.0002 / 2, 0.0001
    assert found.noise_floor == pytest.approx(math.sqrt(0.0002 + 0.0001))
    assert (found.seed_sd, found.image_sd) == pytest.approx((math.sqrt(0.0002), 0.01))
    half = math.sqrt(12.7062**2 * seeds + 1.959964**2 * images)  # one degree of freedom, and a z
    assert found.ci95 == pytest.approx((0.02 - half, 0.02 + half), rel=1e-5)
    of_p = estimate([np.array([0.03, 0.01])], [images])
    assert found.p == pytest.approx(of_p.p)
    assert of_p.half_width(found.p) == pytest.approx(0.02)


def test_common_noise_of_the_test_images_cancels_in_a_pair() -> None:
    shift = np.random.default_rng(0).normal(0, 0.05, (1, 1, 100))
    values = {"winner": np.array([[0.93, 0.91, 0.92]]), "defaults": np.array([[0.90, 0.90, 0.90]])}
    moved = {name: table[..., None] + shift for name, table in values.items()}
    (found,) = compare(runs_of(values, resampled=moved), "winner", ["defaults"], [METRIC])
    assert found.noise_floor == pytest.approx(0.01)


def test_without_noise_of_test_images_one_split_is_the_paired_t_test_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 20):
        differences = rng.normal(0.3, 1, n)
        expected = ttest_1samp(differences, 0).pvalue
        assert estimate([differences], [0.0]).p == pytest.approx(expected, rel=1e-6)


def test_where_splits_differ_it_is_the_t_test_on_their_means() -> None:
    """Six seeds in each of three splits count as three, once the splits disagree."""
    differences = [
        np.array([level + noise for noise in (-0.1, 0, 0.1)]) for level in (1.0, 4.0, 7.0)
    ]
    expected = ttest_1samp([1, 4, 7], 0).pvalue
    assert estimate(differences, [0.0] * 3).p == pytest.approx(expected, rel=1e-6)


def test_one_seed_in_each_split_is_the_t_test_over_splits() -> None:
    values = np.array([0.1, 0.3, 0.2, 0.6])
    found = estimate([values[i : i + 1] for i in range(4)], [0.0] * 4)
    assert found.p == pytest.approx(ttest_1samp(values, 0).pvalue, rel=1e-6)


def test_with_test_images_alone_it_is_the_z_test() -> None:
    found = estimate([np.array([0.0199999, 0.02, 0.0200001])], [0.01**2])
    assert found.p == pytest.approx(0.0455, abs=1e-4)  # two standard errors


def test_an_effect_beyond_all_doubt_has_a_p_value_all_the_same() -> None:
    found = estimate([np.array([1.0, 1.0 + 1e-9, 1.0 - 1e-9])], [1e-20])
    assert 0 < found.p < 1e-9


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([None, 0.02, None]) == [None, 0.02, None], "what was not tested does not count"
    assert holm([]) == []


def test_the_first_comparator_has_the_full_level_and_the_others_follow_it() -> None:
    """Holm over .01, .04, .03 alone; and none of them below what the first has."""
    assert in_sequence([0.02, 0.01, 0.04, 0.03]) == pytest.approx([0.02, 0.03, 0.06, 0.06])
    assert in_sequence([0.3, 0.01]) == [0.3, 0.3]
    assert in_sequence([None, 0.01]) == [None, 1.0]
    assert in_sequence([]) == []


def test_questions_and_looks_share_one_level() -> None:
    assert Asked().level == pytest.approx(0.8 * 0.025)
    assert Asked(question=2).level == pytest.approx(0.8 * 0.05 / 6)
    assert Asked(question=1, look=2).level == pytest.approx(0.16 * 0.025)
    every = [[Asked(k, j).level for j in range(1, 12)] for k in range(1, 3000)]
    assert 0.0499 < sum(map(sum, every)) <= 0.05


def test_only_pairs_of_the_same_split_and_seed_are_compared() -> None:
    runs = runs_of({"winner": [0.9, 0.8, 0.7], "defaults": [0.8, 0.7]})
    (found,) = compare(runs, "winner", ["defaults"], [METRIC])
    assert found.pairs == 2
    assert found.difference == pytest.approx(0.1)
    with pytest.raises(ValueError, match="share no split and seed"):
        compare([*runs, Run("other", 5, 0, {METRIC: 0.1})], "winner", ["other"], [METRIC])


def test_a_summary_has_mean_and_sd_over_the_runs() -> None:
    runs = runs_of({"winner": [[0.90, 0.92, 0.91, 0.99]]})
    found = summarise(runs, "winner", METRIC)
    assert (found.mean, found.median, found.minimum) == pytest.approx((0.93, 0.915, 0.90))
    assert found.sd == pytest.approx(math.sqrt(0.005 / 3))
    half = 3.182446 * math.sqrt(0.005 / 3 / 4)
    assert found.ci95 == pytest.approx((0.93 - half, 0.93 + half), rel=1e-5)
    single = summarise(runs[:1], "winner", METRIC)
    assert (single.sd, single.ci95) == (None, None), "one run says nothing of other seeds"
    with pytest.raises(ValueError, match="no runs of nobody"):
        summarise(runs, "nobody", METRIC)


def test_an_interval_of_a_mean_ends_where_the_metric_does() -> None:
    runs = [
        Run("winner", 0, seed, {METRIC: value, "test_near_duplicates": 4.0})
        for seed, value in enumerate((0.999, 0.99, 0.95))
    ]
    found = summarise(runs, "winner", METRIC)
    assert found.ci95 is not None
    assert found.ci95[0] < found.mean < found.ci95[1] == 1.0
    assert summarise(runs, "winner", "test_near_duplicates").ci95 == (4.0, 4.0)


def test_the_correlation_of_the_pairs_is_that_within_splits() -> None:
    seeds = np.array([0.01, -0.02, 0.015, 0.0])
    levels = np.array([[0.7], [0.9]])
    together = {"winner": levels + seeds, "defaults": levels + seeds / 2}
    (found,) = compare(runs_of(together), "winner", ["defaults"], [METRIC])
    assert found.correlation == pytest.approx(1)
    (found,) = compare(
        runs_of(together | {"defaults": levels - seeds}), "winner", ["defaults"], [METRIC]
    )
    assert found.correlation == pytest.approx(-1)
    (found,) = compare(
        runs_of(together | {"defaults": levels + 0 * seeds}), "winner", ["defaults"], [METRIC]
    )
    assert found.correlation is None


# --- the verdict ---

CLEAR = {"winner": [0.95, 0.96, 0.94, 0.95, 0.96], "defaults": [0.90, 0.90, 0.90, 0.91, 0.90]}


def test_a_clear_gain_is_real_and_the_other_way_round_worse() -> None:
    found = verdict(runs_of(CLEAR), "winner", "defaults")
    assert found.name == "real"
    assert found.sentence.startswith(
        "Real: winner is better than defaults (test_auroc +0.0500 over 5 pairs of runs"
    )
    other = verdict(runs_of(CLEAR), "defaults", "winner")
    assert other.name == "worse"
    assert other.sentence.startswith("Worse: defaults falls behind winner")


def test_of_a_calibration_error_less_is_better() -> None:
    assert (
        verdict(runs_of(CLEAR, "test_ece"), "winner", "defaults", metric="test_ece").name == "worse"
    )


@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_differences_without_any_variance_are_noise(gain: float) -> None:
    values = {"winner": np.array([0.7, 0.8, 0.85]) + gain, "defaults": np.array([0.7, 0.8, 0.85])}
    found = verdict(runs_of(values), "winner", "defaults")
    assert found.name == "noise"
    assert found.paired[0].p == 1.0


def test_a_winner_that_is_the_defaults_is_noise() -> None:
    assert verdict(runs_of(CLEAR), "winner", "winner").name == "noise"
    found = verdict(runs_of(CLEAR), "winner", "winner", in_order=False)
    assert found.name == "noise"
    assert "no difference to test" in found.sentence and "question" not in found.sentence


def test_one_seed_is_said_to_be_too_few() -> None:
    found = verdict(
        runs_of({name: values[:1] for name, values in CLEAR.items()}), "winner", "defaults"
    )
    assert found.name == "noise"
    assert found.paired[0].p is found.paired[0].p_corrected is found.paired[0].ci95 is None
    assert found.sentence.startswith("Too few seeds: 1 pair of runs")


def test_beyond_doubt_but_below_the_noise_floor_is_small() -> None:
    """A hundred seeds find a tenth of what one seed is off by; nobody would notice."""
    rng = np.random.default_rng(1)
    defaults = rng.normal(0.9, 0.01, 400)
    found = verdict(
        runs_of({"winner": defaults + rng.normal(0.004, 0.01, 400), "defaults": defaults}),
        "winner",
        "defaults",
    )
    assert found.paired[0].p < 0.001
    assert found.name == "small"
    assert found.sentence.startswith(
        "Small: winner is better than defaults, but by less than the noise"
    )


def test_other_comparators_cost_the_own_one_nothing() -> None:
    rng = np.random.default_rng(0)
    values = CLEAR | {f"other {number}": rng.normal(0.95, 0.02, 5) for number in range(4)}
    alone = verdict(runs_of(CLEAR), "winner", "defaults")
    among = verdict(runs_of(values), "winner", "defaults", [*list(values)[2:], "defaults"])
    assert [paired.against for paired in among.paired] == [
        "defaults",
        "other 0",
        "other 1",
        "other 2",
        "other 3",
    ]
    assert among.paired[0].p_corrected == alone.paired[0].p
    assert all(paired.p_corrected >= alone.paired[0].p for paired in among.paired)


def test_the_sentence_names_the_question_the_look_and_what_the_seeds_did() -> None:
    found = verdict(runs_of(CLEAR), "winner", "defaults", asked=Asked(2, 1))
    assert "against 0.0067 at question 2, look 1" in found.sentence
    assert "mean 0.9520, minimum 0.9400 and median 0.9500 over its seeds" in found.sentence


def test_a_later_question_or_look_asks_for_more() -> None:
    rng = np.random.default_rng(3)
    defaults = rng.normal(0.9, 0.01, 5)
    runs = runs_of(
        {"winner": np.add(defaults, [0.02, 0.01, 0.03, 0.015, 0.025]), "defaults": defaults}
    )
    p = verdict(runs, "winner", "defaults").paired[0].p / 2
    assert verdict(runs, "winner", "defaults").name == "real"
    last = next(k for k in range(1, 99) if Asked(question=k).level < p)
    assert verdict(runs, "winner", "defaults", asked=Asked(question=last)).name == "noise"
    assert verdict(runs, "winner", "defaults", asked=Asked(question=last - 1)).name == "real"
    look = next(j for j in range(1, 99) if Asked(1, j).level < p)
    assert verdict(runs, "winner", "defaults", asked=Asked(1, look)).name == "noise"


def with_accuracy(runs: list[Run], of_winner: float, of_defaults: float) -> list[Run]:
    levels = {"winner": of_winner, "defaults": of_defaults}
    return [
        replace(run, metrics={**run.metrics, "test_accuracy": levels[run.configuration]})
        for run in runs
    ]


def test_a_gain_that_costs_more_accuracy_than_the_spec_allows_is_not_real() -> None:
    runs = with_accuracy(runs_of(CLEAR), 0.70, 0.99)
    assert verdict(runs, "winner", "defaults").name == "real", "where the spec allows anything"
    found = verdict(runs, "winner", "defaults", accuracy_margin=0.02)
    assert found.name == "worse"
    assert "its test accuracy is lower by 0.2900, more than the margin of 0.02" in found.sentence
    assert verdict(runs, "winner", "defaults", accuracy_margin=0.3).name == "real"
    assert verdict(runs, "winner", "defaults", accuracy_least=0.9).name == "worse"
    near = with_accuracy(runs_of(CLEAR), 0.975, 0.99)
    assert verdict(near, "winner", "defaults", accuracy_margin=0.02).name == "real"


def test_while_a_result_is_missing_nothing_is_called_real() -> None:
    found = verdict(runs_of(CLEAR), "winner", "defaults", missing=["winner, seed 7"])
    assert found.name == "noise"
    assert found.sentence.startswith(
        "Not finished: 1 training of winner or defaults without a result"
    )


def test_a_winner_that_diverges_more_often_than_its_defaults_is_not_real() -> None:
    runs = [
        replace(run, diverged=(run.configuration, run.seed) == ("winner", 2))
        for run in runs_of(CLEAR)
    ]
    found = verdict(runs, "winner", "defaults")
    assert found.name == "noise"
    assert "1 of its 5 trainings diverged, against 0" in found.sentence
    both = [replace(run, diverged=run.seed == 2) for run in runs_of(CLEAR)]
    assert verdict(both, "winner", "defaults").name == "real"


# --- how often it is wrong, and how often it finds something ---


def simulated(
    rng: np.random.Generator,
    *,
    num_comparators: int = 1,
    splits: int = 1,
    seeds: int = 5,
    effect: float = 0.0,
    images: float = 0.0,
    between: float = 0.0,
    tails: float | None = None,
) -> list[Run]:
    """Runs whose differences between two configurations have a seed-to-seed standard deviation of 1.

    Args:
        effect: what the winner is better by.
        images: standard deviation of a difference over samples of test images: the same for all seeds of a split.
        between: standard deviation between splits, of what no resampling of test images shows.
        tails: degrees of freedom of a t distribution of the seeds' noise; None: normal.
    """
    names = ["winner", *(f"comparator {number}" for number in range(num_comparators))]
    values: dict[str, Any] = {}
    resampled: dict[str, Any] = {}
    for name in names:
        noise = (
            rng.normal(size=(splits, seeds))
            if tails is None
            else rng.standard_t(tails, size=(splits, seeds))
        )
        shared = rng.normal(0, math.hypot(images, between) / math.sqrt(2), (splits, 1))
        values[name] = noise / math.sqrt(2) + shared + (effect if name == "winner" else 0.0)
        if images:
            moves = rng.normal(0, images / math.sqrt(2), (splits, 1, 100))
            resampled[name] = values[name][..., None] + moves
    return runs_of(values, resampled=resampled or None)


def share_of(name: str, repetitions: int, rng: np.random.Generator, **settings: Any) -> float:
    others = [f"comparator {number}" for number in range(settings.get("num_comparators", 1))]
    found = [
        verdict(simulated(rng, **settings), "winner", others[0], others).name
        for _ in range(repetitions)
    ]
    return found.count(name) / repetitions


@pytest.mark.parametrize(
    "settings",
    [
        {"seeds": 2, "images": 0.3},
        {"tails": 3.0},
        {"splits": 3, "seeds": 3, "between": 2.0},
    ],
    ids=str,
)
def test_among_equals_real_is_claimed_in_at_most_one_of_twenty(settings: dict[str, Any]) -> None:
    """The first look at the first question has 2%, of which 250 repetitions show between 0% and 4%."""
    assert share_of("real", 250, np.random.default_rng(0), **settings) <= 0.05


def measured_runs(
    rng: np.random.Generator, *, num_candidates: int = 8, seeds: int = 5, effect: float = 0.0
) -> list[Run]:
    """A search and its confirmation, from simulated scores through the metrics' own code.

    Images differ in how hard they are, for all; every configuration sees some images differently, on this split
    for good; every training differs by a level and image by image. The winner is the best of the candidates in
    the one validation AUROC that each was given; winner and defaults are then trained on fresh seeds and measured
    on other images.
    """
    num_images, num_resamples = 60, 40

    def images(configurations: int, trainings: int, gain: np.ndarray) -> torch.Tensor:
        """AUROCs (configurations, trainings, 1 + resamples): of the images themselves first."""
        level = gain[:, None] + rng.normal(0, 0.25, (configurations, trainings))
        drawn = []
        for is_known in (1, 0):
            scores = rng.normal(size=num_images) + rng.normal(
                0, 0.5, (configurations, 1, num_images)
            )
            scores = scores + rng.normal(0, 0.5, (configurations, trainings, num_images))
            scores += is_known * (1.5 + level[..., None])
            chosen = rng.integers(num_images, size=(num_resamples, num_images))
            chosen[0] = np.arange(num_images)
            drawn.append(torch.from_numpy(scores[..., chosen]))
        return auroc(*drawn)

    gains = np.zeros(num_candidates)
    gains[0] = effect
    best = int(images(num_candidates, 1, gains)[:, 0, 0].argmax())
    tested = images(2, seeds, np.array([gains[best], 0.0])).numpy()
    values = {"winner": tested[:1, :, 0], "defaults": tested[1:, :, 0]}
    return runs_of(values, resampled={"winner": tested[:1], "defaults": tested[1:]})


def test_the_lucky_best_of_equal_candidates_is_not_called_real() -> None:
    """Neither by the luck of its search, nor by what its test images happen to suit."""
    rng = np.random.default_rng(0)
    found = [verdict(measured_runs(rng), "winner", "defaults").name for _ in range(200)]
    assert found.count("real") / 200 <= 0.05
    assert found.count("worse") / 200 <= 0.05


def test_a_candidate_that_is_better_by_far_is_found_through_its_scores() -> None:
    rng = np.random.default_rng(0)
    found = [verdict(measured_runs(rng, effect=2.0), "winner", "defaults").name for _ in range(100)]
    assert found.count("real") / 100 >= 0.8


@pytest.fixture(scope="module")
def rates() -> Any:
    """The benchmark that prints the docs' tables: the same rules, written a second time."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "verdict_rates.py"
    loaded = importlib.util.spec_from_file_location("verdict_rates", path)
    module = importlib.util.module_from_spec(loaded)
    sys.modules["verdict_rates"] = module
    loaded.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("splits", "seeds"), [(1, 2), (1, 5), (2, 3), (4, 1), (3, 4)])
def test_the_benchmark_of_the_docs_tables_has_the_same_rules(
    rates: Any, splits: int, seeds: int
) -> None:
    noise = rates.Noise(images=0.5)
    drawn = rates.draw(np.random.default_rng(0), (40, splits, seeds), noise, effect=1.2)
    names = {"better": 0, "real": 0}
    for question, look in ((1, 1), (2, 1), (1, 2)):
        level = Asked(question, look).level
        assert rates.level_of(question, look) == pytest.approx(level)
        better = rates.is_better(drawn, noise, level)
        real = rates.is_real(drawn, noise, level)
        for place, table in enumerate(drawn):
            images = np.array([-0.5, 0.5])  # whose variance is that of the noise
            moved = {"winner": table[..., None] + images, "defaults": np.zeros((splits, seeds, 2))}
            runs = runs_of({"winner": table, "defaults": 0 * table}, resampled=moved)
            found = verdict(runs, "winner", "defaults", asked=Asked(question, look))
            assert (found.name in ("real", "small")) == better[place]
            assert (found.name == "real") == real[place]
            names["better"] += bool(better[place])
            names["real"] += bool(real[place])
    assert 0 < names["better"] < 120 or splits == 2


def test_the_share_that_is_found_is_the_one_in_the_docs(rates: Any) -> None:
    rng = np.random.default_rng(0)
    for seeds, effect, found in ((3, 2.0, 0.40), (5, 2.0, 0.87), (10, 1.0, 0.53), (20, 1.0, 0.52)):
        drawn = rates.draw(rng, (4000, 1, seeds), rates.Noise(), effect)
        assert rates.is_real(drawn, rates.Noise(), rates.level_of(1)).mean() == pytest.approx(
            found, abs=0.03
        )


def test_however_often_equals_are_asked_about_few_homes_see_a_better_one(rates: Any) -> None:
    rng = np.random.default_rng(0)
    for noise in (rates.Noise(), rates.Noise(images=0.5)):
        ever = np.zeros(2000, dtype=bool)
        for question in range(1, 11):
            drawn = rates.draw(rng, (2000, 1, 20), noise)
            for look, count in enumerate((5, 10, 20), start=1):
                level = rates.level_of(question, look)
                ever |= rates.is_better(drawn[:, :, :count], noise, level)
        assert ever.mean() <= 0.06
        close = rates.asked_until(rng, 400, noise, lambda reached: 1 if reached > 0.7 else 10)
        assert close.mean() <= 0.06


# --- planning ---


@pytest.mark.parametrize(("seeds", "images"), [(3, 0.0), (5, 0.0), (5, 0.5), (20, 0.3)])
def test_what_is_called_findable_is_found_in_four_of_five_cases(
    rates: Any, seeds: int, images: float
) -> None:
    noise, level = rates.Noise(images=images), Asked().level
    effect = least_difference(seeds, 1.0, images, level)
    drawn = rates.draw(np.random.default_rng(0), (4000, 1, seeds), noise, effect)
    assert 0.7 <= rates.is_better(drawn, noise, level).mean() <= 0.88


@pytest.mark.parametrize(("pairs", "splits"), [(2, 1), (3, 1), (6, 2), (10, 1)])
def test_pairs_vary_by_less_than_a_plan_says_in_four_of_five_cases(pairs: int, splits: int) -> None:
    drawn = np.random.default_rng(0).normal(size=(20_000, splits, pairs // splits))
    seed_sd = np.sqrt(drawn.var(axis=2, ddof=1).mean(axis=1))
    one = Spreads(1.0, 0.0, pairs, splits).seed_sd_at_most
    assert (seed_sd * one > 1.0).mean() == pytest.approx(SURE, abs=0.01)


def test_a_pair_in_each_split_shows_no_spread_over_seeds() -> None:
    with pytest.raises(ValueError, match="3 pairs in 3 splits"):
        _ = Spreads(0.1, 0.0, 3, 3).seed_sd_at_most


def test_the_seeds_that_a_difference_needs() -> None:
    level = Asked().level
    needed = seeds_needed(0.003, 0.004, 0.0, level)
    assert least_difference(needed, 0.004, 0.0, level) <= 0.003
    assert least_difference(needed - 1, 0.004, 0.0, level) > 0.003
    assert least_shown(0.002, level) == pytest.approx(0.002 * (2.0537 + 0.8416), rel=1e-3)
    assert seeds_needed(0.005, 0.004, 0.002, level) is None, "these test images cannot show it"
    assert seeds_needed(0.007, 0.004, 0.002, level) is not None
