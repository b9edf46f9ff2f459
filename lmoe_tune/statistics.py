"""Whether one configuration is better than another, or only luckier; docs/evaluation.md explains it at length.

A *run* is one training of a configuration, measured on the test images of its split. Runs of two configurations
with the same split and seed are a *pair*: they share the training images, the baseline and the test images.
Let d[s, r] be the difference of pair r in split s, n pairs in S splits, and the weight of a split its share of
the pairs. The variance of the mean difference is the larger of

    V1 = W / n + sum_s weight_s^2 T_s          with W the variance of d within splits (n - S degrees of freedom)
                                               and T_s the bootstrap variance of split s's mean over test images
    V2 = S / (S - 1) sum_s weight_s^2 (mean_s - mean)^2       between the splits (S - 1), where there are several

so seeds that share a split's test images do not count as if they were independent of one another. The test
is Student's t on mean / sqrt(V), two-sided; Satterthwaite's formula gives the degrees of freedom of V1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

Floats = npt.NDArray[np.float64]
VerdictName = Literal["real", "noise", "worse"]

ALPHA = 0.05
LOWER_IS_BETTER = ("_ece",)
"""How the names of metrics end of which less is better."""


@dataclass(frozen=True)
class Run:
    """One training's test metrics."""

    configuration: str
    split: int
    seed: int
    metrics: Mapping[str, float]
    resampled: Mapping[str, Floats] = field(default_factory=dict)
    """The same metrics on R resamples of the test images, (R,) each; resample r must mean the same images for
    every run of a split (`evaluation.resampled_test_metrics` with one seed per split). Empty: the sampling of
    test images is left out of account."""


@dataclass(frozen=True)
class Summary:
    """A configuration's metric over its runs."""

    mean: float
    sd: float | None
    """Over the runs; None for a single one."""
    ci95: tuple[float, float]
    """Of the mean: percentiles of a bootstrap over seeds and test images together."""


@dataclass(frozen=True)
class Paired:
    """The first configuration's metric minus another's, over their pairs."""

    against: str
    metric: str
    difference: float
    ci95: tuple[float, float] | None
    """Student's interval that goes with p; None where there is no test."""
    p: float | None
    """Two-sided, uncorrected; None: fewer than two pairs."""
    p_corrected: float | None
    """By Holm's method over all differences that were asked for together."""
    noise_floor: float
    """What a single pair is off by on other seeds and other test images, one standard deviation."""
    num_pairs: int
    num_splits: int

    @property
    def gain(self) -> float:
        """The difference, with the sign that makes more better."""
        return -self.difference if self.metric.endswith(LOWER_IS_BETTER) else self.difference


@dataclass(frozen=True)
class Verdict:
    """`name` in one word, `sentence` in one line, and the comparisons it was made with, its own one first."""

    name: VerdictName
    sentence: str
    paired: tuple[Paired, ...]


def summarise(
    runs: Iterable[Run], configuration: str, metric: str, *, num_resamples: int = 2000
) -> Summary:
    """Mean, standard deviation over the runs, and a 95% interval of the mean.

    Raises:
        ValueError: the configuration has no runs.
    """
    own = sorted(_of(runs, configuration), key=lambda run: (run.split, run.seed))
    if not own:
        raise ValueError(f"there are no runs of {configuration}")
    values = np.array([run.metrics[metric] for run in own])
    mean = float(values.mean())
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    rng = np.random.default_rng(0)
    means = np.zeros(num_resamples)
    for split in sorted({run.split for run in own}):
        rows = np.stack([_resampled(run, metric) for run in own if run.split == split])
        chosen = rng.integers(len(rows), size=(num_resamples, len(rows)))
        images = rng.integers(
            rows.shape[1], size=(num_resamples, 1)
        )  # one sample of test images for all seeds
        means += rows[chosen, images].sum(axis=1) / len(own)
    low, high = np.percentile(means, [2.5, 97.5])
    return Summary(mean, sd, (float(low), float(high)))


def compare(
    runs: Sequence[Run], configuration: str, comparators: Sequence[str], metrics: Sequence[str]
) -> list[Paired]:
    """The configuration against each comparator in each metric, corrected over all of these tests by Holm.

    Raises:
        ValueError: a comparator shares no split and seed with the configuration.
    """
    found = [
        _paired(runs, configuration, other, metric) for other in comparators for metric in metrics
    ]
    corrected = holm([paired.p for paired in found])
    return [replace(paired, p_corrected=p) for paired, p in zip(found, corrected, strict=True)]


def verdict(
    runs: Sequence[Run],
    winner: str,
    own_defaults: str,
    comparators: Sequence[str] = (),
    metric: str = "test_auroc",
) -> Verdict:
    """Whether the winner is better than its own method at defaults.

    `real`: the difference is significant after Holm's correction over all comparators, and above the noise
    floor. `worse`: the same with the other sign. Else `noise`, also when all differences are the same number.

    Args:
        comparators: the others that the winner is compared with in the same table; they only count in the
            correction. `own_defaults` need not be among them.
    """
    others = [own_defaults, *(name for name in comparators if name != own_defaults)]
    paired = compare(runs, winner, others, [metric])
    own = paired[0]
    name: VerdictName = "noise"
    if (
        own.p_corrected is not None
        and own.p_corrected < ALPHA
        and abs(own.difference) > own.noise_floor
    ):
        name = "real" if own.gain > 0 else "worse"
    return Verdict(name, _sentence(name, winner, own), tuple(paired))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number (Holm, 1979); a test that could not be made does not count."""
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        corrected[place] = largest
    return corrected


def t_test(
    differences: Sequence[Floats], test_variances: Sequence[float]
) -> tuple[float, float, float] | None:
    """Standard error, degrees of freedom and two-sided p of the mean of differences, given split by split.

    Args:
        differences: of each split an array (n_s,).
        test_variances: of each split the variance of its mean difference over samples of test images.

    Returns:
        None where there are fewer than two differences in all. With a standard error of 0, p is 1.
    """
    counts = np.array([len(of_split) for of_split in differences])
    n, num_splits = int(counts.sum()), len(differences)
    if n < 2:
        return None
    mean = float(np.concatenate(list(differences)).mean())
    means = np.array([of_split.mean() for of_split in differences])
    weight = counts / n
    test_variance = float((weight**2 * np.asarray(test_variances)).sum())
    candidates = []
    if n > num_splits:
        squares = sum(float(((of_split - of_split.mean()) ** 2).sum()) for of_split in differences)
        seeds = squares / (n - num_splits) / n
        variance = seeds + test_variance
        candidates.append(
            (variance, (n - num_splits) * (variance / seeds) ** 2 if seeds > 0 else math.inf)
        )
    if num_splits > 1:
        between = num_splits / (num_splits - 1) * float((weight**2 * (means - mean) ** 2).sum())
        candidates.append((max(between, test_variance), num_splits - 1.0))
    variance, df = max(candidates)
    if variance <= (1e-12 * max(1.0, abs(mean))) ** 2 or _constant(differences):
        return 0.0, df, 1.0
    se = math.sqrt(variance)
    return se, df, float(2 * stdtr(min(df, 1e9), -abs(mean) / se))


def _paired(runs: Sequence[Run], configuration: str, other: str, metric: str) -> Paired:
    theirs = {(run.split, run.seed): run for run in _of(runs, other)}
    own = {(run.split, run.seed): run for run in _of(runs, configuration)}
    shared = sorted(own.keys() & theirs.keys())
    if not shared:
        raise ValueError(f"{configuration} and {other} share no split and seed")
    splits = sorted({split for split, _ in shared})
    differences, test_variances = [], []
    for split in splits:
        pairs = [(own[key], theirs[key]) for key in shared if key[0] == split]
        differences.append(
            np.array([ours.metrics[metric] - their.metrics[metric] for ours, their in pairs])
        )
        resampled = [_resampled(ours, metric) - _resampled(their, metric) for ours, their in pairs]
        test_variances.append(float(np.mean(resampled, axis=0).var()))
    all_differences = np.concatenate(differences)
    mean = float(all_differences.mean())
    seed_variance = float(all_differences.var(ddof=1)) if len(shared) > 1 else 0.0
    tested = t_test(differences, test_variances)
    interval = None
    if tested is not None:
        half = float(stdtrit(min(tested[1], 1e9), 1 - ALPHA / 2)) * tested[0]
        interval = (mean - half, mean + half)
    return Paired(
        against=other,
        metric=metric,
        difference=mean,
        ci95=interval,
        p=None if tested is None else tested[2],
        p_corrected=None,
        noise_floor=math.sqrt(seed_variance + float(np.mean(test_variances))),
        num_pairs=len(shared),
        num_splits=len(splits),
    )


def _sentence(name: VerdictName, winner: str, own: Paired) -> str:
    pairs = f"{own.num_pairs} pair{'s' * (own.num_pairs != 1)} of runs"
    if own.p is None:
        return (
            f"Too few seeds: {pairs} of {winner} and {own.against} allow no test; "
            "two are the least, five are better."
        )
    measured = (
        f"{own.metric} {own.difference:+.4f} over {pairs}, corrected p {own.p_corrected:.2g}, "
        f"noise floor {own.noise_floor:.4f}"
    )
    if name == "real":
        return f"Real: {winner} is better than {own.against} ({measured})."
    if name == "worse":
        return f"Worse: {winner} falls behind {own.against} ({measured})."
    return f"Not distinguishable from noise: {winner} against {own.against} ({measured})."


def _of(runs: Iterable[Run], configuration: str) -> list[Run]:
    return [run for run in runs if run.configuration == configuration]


def _resampled(run: Run, metric: str) -> Floats:
    found = run.resampled.get(metric)
    return np.array([run.metrics[metric]]) if found is None else np.asarray(found, dtype=np.float64)


def _constant(differences: Sequence[Floats]) -> bool:
    values = np.concatenate(list(differences))
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))
