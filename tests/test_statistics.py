"""The arithmetic by hand, and then what it is for: how often noise is called real, and an effect is found.

The numbers of the power table are those of docs/evaluation.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from lmoe_tune.evaluation.detection import aurocs
from lmoe_tune.statistics import Run, compare, holm, summarise, t_test, verdict

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
    assert (found.num_pairs, found.num_splits) == (5, 1)


def test_the_noise_of_the_test_images_counts_once_for_all_seeds() -> None:
    """The same differences, and resampling that moves both seeds' difference together by +-.01."""
    shift = np.array([0.01, -0.01] * 20)
    values = {"winner": np.array([[0.93, 0.91]]), "defaults": np.array([[0.90, 0.90]])}
    moved = {"winner": values["winner"][..., None] + shift, "defaults": np.full((1, 2, 40), 0.90)}
    (found,) = compare(runs_of(values, resampled=moved), "winner", ["defaults"], [METRIC])
    seeds, images = 0.0002 / 2, 0.0001
    assert found.noise_floor == pytest.approx(math.sqrt(0.0002 + 0.0001))
    df = ((seeds + images) / seeds) ** 2  # Satterthwaite: 4 instead of the 1 of two seeds alone
    se, degrees, p = t_test([np.array([0.03, 0.01])], [images])
    assert (se, degrees) == pytest.approx((math.sqrt(seeds + images), df))
    assert found.p == pytest.approx(p)
    assert found.difference == pytest.approx(0.02)


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
        assert t_test([differences], [0.0])[2] == pytest.approx(
            ttest_1samp(differences, 0).pvalue, rel=1e-9
        )


def test_where_splits_differ_it_is_the_t_test_on_their_means() -> None:
    """Six seeds in each of three splits count as three, once the splits disagree."""
    differences = [
        np.array([level + noise for noise in (-0.1, 0, 0.1)]) for level in (1.0, 4.0, 7.0)
    ]
    assert t_test(differences, [0.0] * 3)[2] == pytest.approx(
        ttest_1samp([1, 4, 7], 0).pvalue, rel=1e-9
    )


def test_one_seed_in_each_split_is_the_t_test_over_splits() -> None:
    values = np.array([0.1, 0.3, 0.2, 0.6])
    found = t_test([values[i : i + 1] for i in range(4)], [0.0] * 4)
    assert found[2] == pytest.approx(ttest_1samp(values, 0).pvalue, rel=1e-9)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([None, 0.02, None]) == [None, 0.02, None], "what was not tested does not count"
    assert holm([]) == []


def test_only_pairs_of_the_same_split_and_seed_are_compared() -> None:
    runs = runs_of({"winner": [0.9, 0.8, 0.7], "defaults": [0.8, 0.7]})
    (found,) = compare(runs, "winner", ["defaults"], [METRIC])
    assert found.num_pairs == 2
    assert found.difference == pytest.approx(0.1)
    with pytest.raises(ValueError, match="share no split and seed"):
        compare([*runs, Run("other", 5, 0, {METRIC: 0.1})], "winner", ["other"], [METRIC])


def test_a_summary_has_mean_and_sd_over_the_runs() -> None:
    runs = runs_of({"winner": [[0.90, 0.92], [0.94, 0.96]]})
    found = summarise(runs, "winner", METRIC)
    assert (found.mean, found.sd) == pytest.approx((0.93, math.sqrt(0.002 / 3)))
    assert 0.91 <= found.ci95[0] < 0.93 < found.ci95[1] <= 0.95
    assert summarise(runs[:1], "winner", METRIC).sd is None
    with pytest.raises(ValueError, match="no runs of nobody"):
        summarise(runs, "nobody", METRIC)


def test_a_summary_of_one_run_has_the_interval_of_its_test_images() -> None:
    resampled = {"winner": np.random.default_rng(0).normal(0.9, 0.02, (1, 1, 4000))}
    found = summarise(
        runs_of({"winner": [0.9]}, resampled=resampled), "winner", METRIC, num_resamples=4000
    )
    assert found.ci95 == pytest.approx((0.9 - 1.96 * 0.02, 0.9 + 1.96 * 0.02), abs=0.003)


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


def test_one_seed_is_said_to_be_too_few() -> None:
    found = verdict(
        runs_of({name: values[:1] for name, values in CLEAR.items()}), "winner", "defaults"
    )
    assert found.name == "noise"
    assert found.paired[0].p is found.paired[0].p_corrected is found.paired[0].ci95 is None
    assert found.sentence.startswith("Too few seeds: 1 pair of runs")


def test_significant_but_below_the_noise_floor_is_noise() -> None:
    """A hundred seeds find a tenth of what one seed is off by; nobody would notice."""
    rng = np.random.default_rng(1)
    defaults = rng.normal(0.9, 0.01, 400)
    found = verdict(
        runs_of({"winner": defaults + rng.normal(0.004, 0.01, 400), "defaults": defaults}),
        "winner",
        "defaults",
    )
    assert found.paired[0].p_corrected < 0.001
    assert found.name == "noise"
    assert found.sentence.startswith("Not distinguishable from noise")


def test_every_comparator_counts_in_the_correction() -> None:
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
    assert among.paired[0].p_corrected == pytest.approx(5 * alone.paired[0].p)


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
        {},
        {"seeds": 3},
        {"seeds": 2},
        {"num_comparators": 5},
        {"tails": 3.0},
        {"images": 1.0},
        {"images": 3.0},
        {"splits": 3, "seeds": 5},
        {"splits": 3, "seeds": 5, "images": 1.0},
        {"splits": 3, "seeds": 3, "between": 2.0},
        {"splits": 5, "seeds": 1},
    ],
    ids=str,
)
def test_among_equals_real_is_claimed_in_at_most_one_of_twenty(settings: dict[str, Any]) -> None:
    """Two-sided at 5% leaves 2.5% for `real`, of which 500 repetitions show between 1% and 4%."""
    assert share_of("real", 500, np.random.default_rng(0), **settings) <= 0.05


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
        return aurocs(*drawn)

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


POWER = [
    # seeds, comparators, effect in standard deviations of a seed's difference, share found
    (3, 1, 2.0, 0.47),
    (3, 1, 3.0, 0.74),
    (5, 1, 1.0, 0.40),
    (5, 1, 1.5, 0.70),
    (5, 1, 2.0, 0.90),
    (10, 1, 1.0, 0.51),
    (10, 1, 1.5, 0.91),
    (5, 5, 2.0, 0.73),
    (5, 5, 3.0, 0.99),
]


@pytest.mark.parametrize(("seeds", "num_comparators", "effect", "power"), POWER)
def test_a_planted_effect_is_found_with_the_power_in_the_docs(
    seeds: int, num_comparators: int, effect: float, power: float
) -> None:
    rng = np.random.default_rng(0)
    found = share_of("real", 400, rng, seeds=seeds, num_comparators=num_comparators, effect=effect)
    assert found == pytest.approx(power, abs=0.06)
