"""What each sampler and each pruner does, and when to choose it: `check` and docs/search.md say so."""

from __future__ import annotations

SAMPLERS = {
    "tpe": "suggests more points where good trials were, and avoids regions that missed the "
    "constraints; choose it unless another one clearly fits better",
    "random": "draws every point independently; a reference for the others, or for hundreds of "
    "trials that run at once",
    "qmc": "spreads the points evenly over the space; for a first look at an unknown space, "
    "as its figures are not crowded where the sampler expected something",
    "grid": "tries every combination, in shuffled order; for a few choices that must all be compared",
    "cmaes": "moves a cloud of points towards the best ones; for ranges that depend on each other, "
    "one objective and 100 trials or more",
    "gp": "models the objective and tries the point where it may improve most; for a few long trials, "
    "up to about 100, as each suggestion costs more than the one before",
    "nsga2": "crosses the best points with each other; for several objectives and 100 trials or more",
}

PRUNERS = {
    "asha": "after a fifth of the epochs, then at three times as many, only the best third "
    "continues; choose it unless another one clearly fits better",
    "hyperband": "several ladders of ASHA side by side, which begin after a fifth of the epochs or "
    "later; for trainings whose first epochs say little about the end",
    "median": "stops trials that are worse than the median of the others at the same epoch; gentler, "
    "for sweeps of a dozen or two",
    "none": "every trial runs to its end; for short trials, for several objectives, and for figures "
    "in which all trials can be compared",
}
