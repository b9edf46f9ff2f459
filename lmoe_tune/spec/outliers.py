"""How many outliers a step has: a whole number, the same in every step of a trial."""

from __future__ import annotations

from dataclasses import dataclass

from lmoe_tune.spec.model import Spec

MIN_OUTLIERS = 2  # BatchNorm over one outlier's constant channel would divide by zero
OUTLIER_RATIO = "outlier_ratio"
MANY = 10_000  # numbers that are not counted one by one


def outliers_per_step(outlier_ratio: float, batch_size: int) -> int:
    """M = round(ratio B), at least two; 0 where the ratio is 0."""
    if outlier_ratio == 0:
        return 0
    return max(MIN_OUTLIERS, round(outlier_ratio * batch_size))


@dataclass(frozen=True)
class NumbersOfOutliers:
    """How many outliers a step may have in a search: from the fewest to the most, `count` different
    numbers (at least so many, where there are thousands).
    """

    fewest: int
    most: int
    count: int


def numbers_of_outliers(spec: Spec) -> NumbersOfOutliers | None:
    """None where the ratio is not searched."""
    batch, found = spec.train.batch_size, set[int]()
    for name, searched in spec.space.items():
        if name.rpartition(".")[2] != OUTLIER_RATIO:
            continue
        if searched.choices is not None:
            found |= {outliers_per_step(float(value), batch) for value in searched.choices}
            continue

        low, high, step = searched.low, searched.high, searched.step
        assert low is not None and high is not None, "a range has two ends"
        fewest, most = (outliers_per_step(end, batch) for end in (low, high))
        if step is not None and (high - low) / step < MANY:
            values = range(int((high - low) / step + 1e-9) + 1)
            found |= {outliers_per_step(low + value * step, batch) for value in values}
        else:
            found |= {most, *range(fewest, most + 1)[:MANY]}
    if not found:
        return None
    return NumbersOfOutliers(min(found), max(found), len(found))


def mean_outlier_ratio(spec: Spec) -> float:
    """Outliers for each in-distribution image, on average over the space."""
    searched = spec.space.get(OUTLIER_RATIO)
    if searched is None:
        return float(spec.fixed.get(OUTLIER_RATIO, 1.0))
    values = searched.choices or (searched.low or 0.0, searched.high or 0.0)
    return sum(map(float, values)) / len(values)


def outliers_in_words(spec: Spec) -> str | None:
    """What a searched ratio means in whole outliers, on one line; None if it is not searched."""
    found = numbers_of_outliers(spec)
    if found is None:
        return None

    batch = spec.train.batch_size

    return (
        f"{found.fewest} to {found.most} beside {batch} images in every step; "
        f"a ratio is rounded to whole outliers (1/{batch} each), and outlier_ratio_used records it"
    )
