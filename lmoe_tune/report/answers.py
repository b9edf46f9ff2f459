"""What two networks said about validation images, in a form that can be drawn without torch, which
takes longer to import than most pages to write.

N images, K classes, L points along lambda.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmoe_tune.records import TrialRecord

LAMBDAS = np.linspace(0, 1, 21)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answers:
    """What one network says about the validation images."""

    scores: dict[str, Floats]
    """(N,) of `id`, `fine` and `coarse`, those that there are."""
    logits: dict[str, Floats]
    """(N, K) of `id`, `coarse` and `mixed`."""
    confidence: Floats
    """(L, pairs): largest probability along lambda from outlier (0) to in-distribution (1); L = 0
    without outliers.
    """
    num_classes: int


@dataclass(frozen=True)
class Compared:
    """The best trial and the baseline; None for one whose weights are not there."""

    best: Answers | None
    baseline: Answers | None
    lacking: tuple[str, ...]
    """Why something is missing, a sentence each."""

    @classmethod
    def without_weights(cls, best: TrialRecord) -> Compared:
        """Where only the numbers of the best trial are there."""
        return cls(None, None, (f"the weights of trial {best.number} are not kept",))
