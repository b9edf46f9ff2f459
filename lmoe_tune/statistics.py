"""Whether one configuration is better than another, or only luckier; docs/evaluation.md explains it
at length.

A *run* is one training of a configuration, measured on the test images of its split. Runs of two
configurations with the same split and seed are a *pair*: they share the training images, the
baseline and the test images. Let d[s, r] be the difference of pair r in split s, n pairs in S
splits, the weight of a split its share of the pairs, W the variance of d within splits and T_s the
bootstrap variance of split s's mean over test images. The half-width of an interval of the mean
difference at a level is the larger of

    sqrt( t(n - S)^2 W / n  +  z^2 sum_s weight_s^2 T_s )                              seeds and test images
    t(S - 1) sqrt( S / (S - 1) sum_s weight_s^2 (mean_s - mean)^2 )                    splits, where S > 1

with t(df) and z the quantiles of Student's and the normal distribution. So seeds that share a
split's test images do not count as if they were independent, and with several splits the splits are
the unit. The p-value is the level at which the interval just reaches 0. The mean of one
configuration has its interval in the same way.

If you ask often enough, you find something in the end. So a *question* (a test set, a winner) has a
level of its own, and so has each *look* at it with more runs: see `Asked`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import chdtri, ndtri, stdtrit

from lmoe_tune.wording import counted

Floats = npt.NDArray[np.float64]
VerdictName = Literal["real", "small", "noise", "worse"]

ALPHA = 0.05
"""How often, over all questions of a home together, a winner that is not better may be called
better.
"""
FIRST_LOOKS_SHARE = 0.8
"""What a look may use of the level that the looks before it have left of its question's."""
COUNTS = ("_near_duplicates",)
"""Endings of the names of metrics that are not shares between 0 and 1."""
LOWER_IS_BETTER = ("_ece",)
"""Endings of the names of metrics of which less is better."""


@dataclass(frozen=True)
class Run:
    """One training's test metrics."""

    configuration: str
    split: int
    seed: int
    metrics: Mapping[str, float]
    resampled: Mapping[str, Floats] = field(default_factory=dict)
    """The same metrics on R resamples of the test images, (R,) each; resample r must mean the same
    images for every run of a split (`evaluation.resampled_test_metrics` with one seed per split).
    Empty: the sampling of test images is left out of account."""
    diverged: bool = False
    """Whether the training diverged to non-finite numbers; its metrics are then those of chance."""


@dataclass(frozen=True)
class Asked:
    """The question that a verdict answers, and how often it has been looked at.

    Question k of a home has the one-sided level .05 / (k (k + 1)): .025, .0083, .0042, …, together
    .05. The looks at a question, each with more runs than the one before, share its level: each may
    use four fifths of what is left. Whatever is asked and however often, a winner that is not
    better is then called `real` or `small` in at most 5% of homes, by the union bound.
    """

    question: int = 1
    look: int = 1

    @property
    def level(self) -> float:
        """One-sided."""
        of_question = ALPHA / (self.question * (self.question + 1))
        return of_question * FIRST_LOOKS_SHARE * (1 - FIRST_LOOKS_SHARE) ** (self.look - 1)

    def __str__(self) -> str:
        return f"question {self.question}, look {self.look}"


@dataclass(frozen=True)
class Summary:
    """A configuration's metric over its runs."""

    mean: float
    sd: float | None
    """Over the runs; None for a single one."""
    ci95: tuple[float, float] | None
    """Of the mean, by Student, cut off where a metric ends, at 0 and 1; None for a single run,
    which says nothing of other seeds."""
    median: float
    minimum: float


@dataclass(frozen=True)
class Paired:
    """The first configuration's metric minus another's, over their pairs."""

    against: str
    metric: str
    difference: float
    ci95: tuple[float, float] | None
    """The interval that goes with p; None if there is no test."""
    p: float | None
    """Two-sided, uncorrected; None: fewer than two pairs."""
    p_corrected: float | None
    """Of the first comparator p itself; of the others by Holm's method among them, and no less than
    the first's.
    """
    noise_floor: float
    """The error of a single pair on other seeds and other test images, one standard deviation."""
    seed_sd: float
    """Standard deviation of a pair's difference over seeds."""
    image_sd: float
    """Standard deviation of a split's mean difference over samples of its test images: no seeds
    reduce it.
    """
    correlation: float | None
    """Of the two configurations' values over the pairs of a split; None if there is none."""
    pairs: int
    splits: int

    @property
    def spreads(self) -> Spreads:
        """What the seeds of later comparisons are planned with."""
        return Spreads(self.seed_sd, self.image_sd, self.pairs, self.splits)

    @property
    def gain(self) -> float:
        """The difference, with the sign that makes more better."""
        if self.metric.endswith(LOWER_IS_BETTER):
            return -self.difference

        return self.difference


@dataclass(frozen=True)
class Verdict:
    """`name` in one word, `sentence` in one line, and the comparisons it was made with, its own one
    first.
    """

    name: VerdictName
    sentence: str
    paired: tuple[Paired, ...]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, test images and splits, with what it varies by; see the head of this file."""

    mean: float
    seed_variance: float
    """Of the mean, over seeds."""
    seed_df: int
    image_variance: float
    """Of the mean, over test images."""
    split_variance: float
    """Of the mean, over splits; 0 for a single one."""
    split_df: int
    is_constant: bool
    """Whether all values were the same number."""

    def half_width(self, level: float) -> float:
        """Of the interval that misses the truth in this share of cases, on either side together."""
        quantile, half = 1 - level / 2, 0.0
        if self.seed_df > 0:
            of_seeds = float(stdtrit(self.seed_df, quantile)) ** 2 * self.seed_variance
            half = math.sqrt(of_seeds + float(ndtri(quantile)) ** 2 * self.image_variance)
        if self.split_df > 0:
            of_splits = float(stdtrit(self.split_df, quantile)) * math.sqrt(self.split_variance)
            half = max(half, of_splits)
        return half

    @property
    def p(self) -> float:
        """Two-sided, of the mean being 0; 1 where there is no variance to judge by."""
        size = abs(self.mean)
        if self.is_constant or self.half_width(0.5) <= 1e-12 * max(1.0, size):
            return 1.0

        least = -15.0  # below, quantiles are no longer exact
        if self.half_width(10**least) <= size:
            return float(10**least)
        if size == 0:
            return 1.0
        return float(10 ** brentq(lambda x: self.half_width(10**x) - size, least, 0.0))

    def interval(self, level: float = 0.05) -> tuple[float, float]:
        """Both ends."""
        half = self.half_width(level)
        return self.mean - half, self.mean + half


def estimate(values: Sequence[Floats], image_variances: Sequence[float]) -> Estimate | None:
    """What the mean of values, given split by split, says about others like them.

    Args:
        values: of each split an array (n_s,).
        image_variances: of each split the variance of its mean over samples of test images.

    Returns:
        None if there are fewer than two values in all.
    """
    counts = np.array([len(of_split) for of_split in values])
    n, num_splits = int(counts.sum()), len(values)
    if n < 2:
        return None

    together = np.concatenate(list(values))
    mean = float(together.mean())
    weight = counts / n
    split_means = np.array([of_split.mean() for of_split in values])
    squares = sum(float(((of_split - of_split.mean()) ** 2).sum()) for of_split in values)
    seed_df, split_df = n - num_splits, num_splits - 1
    seed_variance = split_variance = 0.0
    if seed_df > 0:
        seed_variance = squares / seed_df / n
    if split_df > 0:
        off = float((weight**2 * (split_means - mean) ** 2).sum())
        split_variance = num_splits / split_df * off

    return Estimate(
        mean=mean,
        seed_variance=seed_variance,
        seed_df=seed_df,
        image_variance=float((weight**2 * np.asarray(image_variances)).sum()),
        split_variance=split_variance,
        split_df=split_df,
        is_constant=bool(np.ptp(together) <= 1e-12 * max(1.0, float(np.abs(together).max()))),
    )


def summarise(runs: Iterable[Run], configuration: str, metric: str) -> Summary:
    """Mean, standard deviation over the runs, 95% interval of the mean, median and minimum.

    Raises:
        ValueError: the configuration has no runs.
    """
    own = _of(runs, configuration)
    if not own:
        raise ValueError(f"there are no runs of {configuration}")

    values = np.array([run.metrics[metric] for run in own])
    by_split, variances = [], []
    for split in sorted({run.split for run in own}):
        of_split = [run for run in own if run.split == split]
        by_split.append(np.array([run.metrics[metric] for run in of_split]))
        resampled = [_resampled(run, metric) for run in of_split]
        variances.append(float(np.mean(resampled, axis=0).var()))
    found = estimate(by_split, variances)

    return Summary(
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if len(values) > 1 else None,
        ci95=_within(found.interval(), metric) if found is not None else None,
        median=float(np.median(values)),
        minimum=float(values.min()),
    )


def _within(interval: tuple[float, float], metric: str) -> tuple[float, float]:
    """The part of it that a metric can reach: no mean of shares is beyond 0 and 1, so this covers
    as often.
    """
    if metric.endswith(COUNTS):
        return interval

    low, high = interval
    return max(0.0, low), min(1.0, high)


def compare(
    runs: Sequence[Run],
    configuration: str,
    comparators: Sequence[str],
    metrics: Sequence[str],
    *,
    in_order: bool = True,
) -> list[Paired]:
    """The configuration against each comparator in each metric, metric by metric.

    The first comparator is tested at the full level. The others count only once it is passed, and
    then by Holm's method among them (a fixed sequence; Holm, 1979).

    Args:
        in_order: False where the first comparator is the same configuration: then the others count
            without it.

    Raises:
        ValueError: a comparator shares no split and seed with the configuration.
    """
    found: list[Paired] = []
    for metric in metrics:
        of_metric = [_paired(runs, configuration, other, metric) for other in comparators]
        corrected = in_sequence([paired.p for paired in of_metric], in_order=in_order)
        found += [
            replace(paired, p_corrected=p) for paired, p in zip(of_metric, corrected, strict=True)
        ]
    return found


def verdict(
    runs: Sequence[Run],
    winner: str,
    own_defaults: str,
    comparators: Sequence[str] = (),
    metric: str = "test_auroc",
    *,
    asked: Asked | None = None,
    missing: Sequence[str] = (),
    accuracy_margin: float | None = None,
    accuracy_least: float | None = None,
    in_order: bool = True,
) -> Verdict:
    """Whether the winner is better than its own method at defaults.

    `real`: beyond the level of what was asked, and by more than the noise floor. `small`: beyond
    the level, but by less. `worse`: beyond it on the other side, or better at the price of an
    accuracy that the spec does not allow. Else `noise`: also when the winner is its own defaults,
    when all differences are the same number, when results are missing, and when the winner's
    trainings diverge more often than those of its defaults.

    Args:
        comparators: the others that the winner is compared with in the same table. `own_defaults`
            need not be among them.
        asked: the question and the look, which have the level; the first of a home by default.
        missing: trainings of the winner or its defaults that have no result yet, a phrase each.
        accuracy_margin: how far below its defaults' the winner's `test_accuracy` may be; None:
            anything goes.
        accuracy_least: the least mean `test_accuracy`; None: any.
        in_order: as for `compare`.
    """
    asked = asked or Asked()
    others = [own_defaults, *(name for name in comparators if name != own_defaults)]
    paired = tuple(compare(runs, winner, others, [metric], in_order=in_order))
    own = paired[0]
    if own.p is None:
        sentence = (
            f"Too few seeds: {counted(own.pairs, 'pair')} of runs of {winner} and {own.against} "
            "allow no test; two are the least, five are better."
        )
        return Verdict("noise", sentence, paired)

    measured = _measured(runs, winner, own, asked)
    if missing:
        sentence = (
            f"Not finished: {counted(len(missing), 'training')} of {winner} or {own.against} "
            f"without a result ({missing[0]}), so nothing is called real yet ({measured})."
        )
        return Verdict("noise", sentence, paired)

    if not in_order:
        sentence = (
            f"Not distinguishable from noise: {winner} is {own.against} itself, with its method's "
            "defaults, so there is no difference to test."
        )
        return Verdict("noise", sentence, paired)

    is_beyond = own.p / 2 < asked.level
    if not is_beyond:
        sentence = f"Not distinguishable from noise: {winner} against {own.against} ({measured})."
        return Verdict("noise", sentence, paired)
    if own.gain < 0:
        return Verdict("worse", f"Worse: {winner} falls behind {own.against} ({measured}).", paired)

    objection = _objection(runs, winner, own.against, margin=accuracy_margin, least=accuracy_least)
    if objection is not None:
        name, why = objection
        return Verdict(name, f"{name.capitalize()}: {why} ({measured}).", paired)
    if abs(own.difference) > own.noise_floor:
        return Verdict("real", f"Real: {winner} is better than {own.against} ({measured}).", paired)
    sentence = (
        f"Small: {winner} is better than {own.against}, but by less than the noise floor "
        f"({measured})."
    )
    return Verdict("small", sentence, paired)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number (Holm, 1979); a test that could not be made does not
    count.
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        corrected[place] = largest
    return corrected


def in_sequence(p_values: Sequence[float | None], *, in_order: bool = True) -> list[float | None]:
    """The first p-value as it is; the others by Holm among them, none below the first if they come
    after it.
    """
    first, others = list(p_values[:1]), holm(p_values[1:])
    least = 1.0 if not first or first[0] is None else first[0]
    if not in_order:
        least = 0.0
    return [*first, *(None if p is None else max(least, p) for p in others)]


def _paired(runs: Sequence[Run], configuration: str, other: str, metric: str) -> Paired:
    pairs = _pairs(runs, configuration, other)
    if not pairs:
        raise ValueError(f"{configuration} and {other} share no split and seed")

    differences, variances, off_own, off_theirs = [], [], [], []
    splits = sorted({own.split for own, _ in pairs})
    for split in splits:
        of_split = [pair for pair in pairs if pair[0].split == split]
        own_values = np.array([own.metrics[metric] for own, _ in of_split])
        their_values = np.array([their.metrics[metric] for _, their in of_split])
        differences.append(own_values - their_values)
        off_own.append(own_values - own_values.mean())
        off_theirs.append(their_values - their_values.mean())
        resampled = [_resampled(own, metric) - _resampled(their, metric) for own, their in of_split]
        variances.append(float(np.mean(resampled, axis=0).var()))

    together = np.concatenate(differences)
    found = estimate(differences, variances)
    spread = within = 0.0
    if found is not None:
        spread = float(together.var(ddof=1))
        within = math.sqrt(found.seed_variance * len(pairs))
    return Paired(
        against=other,
        metric=metric,
        difference=float(together.mean()),
        ci95=None if found is None else found.interval(),
        p=None if found is None else found.p,
        p_corrected=None,
        noise_floor=math.sqrt(spread + float(np.mean(variances))),
        seed_sd=within,
        image_sd=math.sqrt(float(np.mean(variances))),
        correlation=_correlation(np.concatenate(off_own), np.concatenate(off_theirs)),
        pairs=len(pairs),
        splits=len(splits),
    )


def _pairs(runs: Sequence[Run], configuration: str, other: str) -> list[tuple[Run, Run]]:
    """The runs of both with the same split and seed, in their order."""
    own = {(run.split, run.seed): run for run in _of(runs, configuration)}
    theirs = {(run.split, run.seed): run for run in _of(runs, other)}
    return [(own[key], theirs[key]) for key in sorted(own.keys() & theirs.keys())]


def _objection(
    runs: Sequence[Run], winner: str, other: str, *, margin: float | None, least: float | None
) -> tuple[VerdictName, str] | None:
    """Why a winner with the better metric is not called better all the same."""
    own, theirs = zip(*_pairs(runs, winner, other), strict=True)
    diverged = sum(run.diverged for run in own)
    if diverged > sum(run.diverged for run in theirs):
        why = (
            f"{winner} is better than {other} on average, but {diverged} of its "
            f"{len(own)} trainings diverged, against {sum(run.diverged for run in theirs)}"
        )
        return "noise", why

    accuracy = "test_accuracy"
    if all(accuracy in run.metrics for run in (*own, *theirs)):
        mean = float(np.mean([run.metrics[accuracy] for run in own]))
        fall = float(np.mean([run.metrics[accuracy] for run in theirs])) - mean
        if margin is not None and fall > margin:
            why = (
                f"{winner} detects novelty better than {other}, but its test accuracy is lower by "
                f"{fall:.4f}, more than the margin of {margin:g}"
            )
            return "worse", why
        if least is not None and mean < least:
            why = (
                f"{winner} detects novelty better than {other}, but its test accuracy of {mean:.4f} "
                f"is below {least:g}"
            )
            return "worse", why
    return None


def _measured(runs: Sequence[Run], winner: str, own: Paired, asked: Asked) -> str:
    assert own.p is not None, "no test"
    of_winner = summarise(runs, winner, own.metric)
    return (
        f"{own.metric} {own.difference:+.4f} over {counted(own.pairs, 'pair')} of runs; "
        f"one-sided p {own.p / 2:.2g} against {asked.level:.2g} at {asked}; "
        f"noise floor {own.noise_floor:.4f}; mean {of_winner.mean:.4f}, minimum "
        f"{of_winner.minimum:.4f} and median {of_winner.median:.4f} over its seeds"
    )


def _correlation(own: Floats, theirs: Floats) -> float | None:
    scale = math.sqrt(float((own**2).sum()) * float((theirs**2).sum()))
    if scale > 1e-15:
        return float((own * theirs).sum()) / scale

    return None


def _of(runs: Iterable[Run], configuration: str) -> list[Run]:
    return [run for run in runs if run.configuration == configuration]


def _resampled(run: Run, metric: str) -> Floats:
    found = run.resampled.get(metric)
    if found is None:
        return np.array([run.metrics[metric]])

    return np.asarray(found, dtype=np.float64)


# --- planning ---

POWER = 0.8
"""How often a difference is found that is called findable."""
SURE = 0.8
"""How sure a plan is that pairs do not vary more than it says."""
MAX_SEEDS = 1000
EFFECTS = (0.001, 0.003, 0.01, 0.03)
"""Differences for which it is said how many seeds they need."""


@dataclass(frozen=True)
class Spreads:
    """How much the pairs of two configurations varied, from which seeds are planned."""

    seed_sd: float
    """As in `Paired`."""
    image_sd: float | None
    """As in `Paired`; None if it is not known, and then nothing can be planned."""
    pairs: int
    splits: int

    @property
    def seed_df(self) -> int:
        """Degrees of freedom of `seed_sd`."""
        return self.pairs - self.splits

    @property
    def can_plan(self) -> bool:
        """Whether seeds can be planned with them."""
        is_shown = self.seed_df > 0 and self.seed_sd > 0 and math.isfinite(self.seed_sd)
        return is_shown and self.image_sd is not None

    @property
    def seed_sd_at_most(self) -> float:
        """What the standard deviation over seeds is below, in SURE of cases: 4 times what one
        degree of freedom found, 2.1 times with two, 1.6 with four, 1.3 with nine.

        A plan with the value itself would be too hopeful in every second case (Browne, Statistics
        in Medicine 14, 1995).

        Raises:
            ValueError: there are no degrees of freedom.
        """
        if self.seed_df < 1:
            raise ValueError(f"{self.pairs} pairs in {self.splits} splits show no spread")

        return self.seed_sd * math.sqrt(self.seed_df / float(chdtri(self.seed_df, SURE)))


def needs_of(spreads: Spreads | None, level: float) -> Iterator[tuple[float, int]]:
    """The seeds that each of EFFECTS needs, if any number of seeds finds it; none where nothing can
    be planned.
    """
    if spreads is None or not spreads.can_plan or spreads.image_sd is None:
        return

    for effect in EFFECTS:
        seeds = seeds_needed(effect, spreads.seed_sd_at_most, spreads.image_sd, level)
        if seeds is not None:
            yield effect, seeds


def least_difference(seeds: int, seed_sd: float, image_sd: float, level: float) -> float:
    """The difference that so many pairs of one split find with POWER at a one-sided level.

    Args:
        seed_sd, image_sd: as in `Paired`.
    """
    of_seeds, of_images = seed_sd**2 / seeds, image_sd**2
    critical = float(stdtrit(seeds - 1, 1 - level)) ** 2 * of_seeds
    critical += float(ndtri(1 - level)) ** 2 * of_images
    return math.sqrt(critical) + float(ndtri(POWER)) * math.sqrt(of_seeds + of_images)


def least_shown(image_sd: float, level: float) -> float:
    """The difference below which no number of seeds finds anything with POWER: that of the test
    images alone.
    """
    return (float(ndtri(1 - level)) + float(ndtri(POWER))) * image_sd


def seeds_needed(effect: float, seed_sd: float, image_sd: float, level: float) -> int | None:
    """The least number of seeds that find a difference with POWER; None if MAX_SEEDS do not."""
    if least_difference(MAX_SEEDS, seed_sd, image_sd, level) > effect:
        return None

    counts = range(2, MAX_SEEDS + 1)
    return counts[
        bisect_left(
            counts, True, key=lambda n: least_difference(n, seed_sd, image_sd, level) <= effect
        )
    ]
