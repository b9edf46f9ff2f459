"""How many outliers a step has: a whole number, the same in every step of a trial."""

from __future__ import annotations

from lmoe_tune.spec.model import Spec

MIN_OUTLIERS = 2  # BatchNorm over one outlier's constant channel would divide by zero
OUTLIER_RATIO = "outlier_ratio"


def outliers_per_step(outlier_ratio: float, batch_size: int) -> int:
    """M = round(ratio B), at least two; 0 where the ratio is 0."""
    if outlier_ratio == 0:
        return 0
    return max(MIN_OUTLIERS, round(outlier_ratio * batch_size))


def searched_outliers(spec: Spec) -> tuple[int, int] | None:
    """The fewest and the most outliers of a step that a search may ask for; None if it is not
    searched.
    """
    ratios: list[float] = []
    for name, searched in spec.space.items():
        if name.rpartition(".")[2] == OUTLIER_RATIO:
            ratios += [float(value) for value in searched.choices or ()]
            ratios += [bound for bound in (searched.low, searched.high) if bound is not None]

    if not ratios:
        return None

    fewest, most = (outliers_per_step(end(ratios), spec.train.batch_size) for end in (min, max))

    return fewest, most


def outliers_in_words(spec: Spec) -> str | None:
    """What a searched ratio means in whole outliers, on one line; None if it is not searched."""
    found = searched_outliers(spec)
    if found is None:
        return None

    batch = spec.train.batch_size

    return (
        f"{found[0]} to {found[1]} beside {batch} images in every step; the ratio moves in steps of 1/{batch}, "
        "and outlier_ratio_used records it"
    )
