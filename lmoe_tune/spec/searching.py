"""What each sampler and each pruner does, and when to choose it: `check` and docs/search.md say so."""

from __future__ import annotations

SAMPLERS = {
    "tpe": "suggests more where good trials were, and keeps away from what missed the constraints; "
    "the choice unless something below speaks for another",
    "random": "draws every point by itself; a reference for the others, or for hundreds of trials "
    "that run at once",
    "qmc": "spreads the points evenly over the space; for a first look at a space that nobody knows, "
    "as its figures are not crowded where the sampler expected something",
    "grid": "tries every combination, in shuffled order; for a few choices that all must be compared",
    "cmaes": "moves a cloud of points towards the best ones; for ranges that depend on each other, "
    "one objective and 100 trials or more",
    "gp": "models the objective and tries where it may improve most; for few trials that are long, "
    "up to about 100, as each suggestion costs more than the one before",
    "nsga2": "crosses the best points with each other; for several objectives and 100 trials or more",
}

PRUNERS = {
    "asha": "after a fifth of the epochs, then at three times as many, only the best third goes on; "
    "the choice unless something below speaks for another",
    "hyperband": "ladders side by side that begin after a fifth of the epochs or later; where the first "
    "epochs say little about the end",
    "median": "stops what is worse than the median of the others at the same epoch; gentler, for "
    "sweeps of a dozen or two",
    "none": "every trial goes to its end; where trials are short, for several objectives, and for "
    "figures in which all trials can be compared",
}
