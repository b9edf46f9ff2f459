"""From logits to what is measured: a score, a confidence and a predicted class per image.

N images, K classes. Scores are float64, as probabilities near 1 would otherwise collapse into ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ScoreName = Literal["msp", "max_logit", "energy"]
Score = ScoreName | Callable[[Tensor], Tensor]
"""A score by name, or a function from logits (N, K) to scores (N,), higher for in-distribution."""
SCORES: dict[ScoreName, str] = {"msp": "msp", "max_logit": "maxlogit", "energy": "energy"}
"""The scores that are always computed, and how the names of their metrics end."""

NUM_BINS = 15  # of the calibration error, as usual since Guo et al. (2017)


def score(logits: Tensor, name: Score) -> Tensor:
    """Confidence (N,) in float64 from logits (N, K).

    `msp`: largest softmax probability (Hendrycks & Gimpel, 2017). `max_logit`: largest logit
    (Hendrycks et al., 2022). `energy`: logsumexp of the logits, the negative energy (Liu et al.,
    2020).
    """
    logits = logits.double()
    if name == "msp":
        return logits.softmax(dim=1).amax(dim=1)
    if name == "max_logit":
        return logits.amax(dim=1)
    if name == "energy":
        return logits.logsumexp(dim=1)
    if isinstance(name, str):
        raise ValueError(f"score is '{name}', but must be msp, max_logit or energy")
    return name(logits).double()


@dataclass(frozen=True)
class Outputs:
    """What is kept of the logits of N images: a few numbers each instead of K."""

    scores: Tensor
    """(N,) float64, the chosen score."""
    named: Tensor
    """(3, N) float64, each of `SCORES` in that order."""
    predicted: Tensor
    """(N,) int64."""
    finite: Tensor
    """(), whether all logits were finite."""

    @property
    def confidence(self) -> Tensor:
        """(N,) float64, the largest softmax probability."""
        return self.named[0]


def outputs(logits: Tensor | Iterable[Tensor], name: Score) -> Outputs:
    """Reduce logits (N, K), or chunks of them as they come out of a network, on their device."""
    chunks = [
        _reduced(chunk, name) for chunk in ([logits] if isinstance(logits, Tensor) else logits)
    ]
    return joined(chunks)


def joined(chunks: Sequence[Outputs]) -> Outputs:
    """The outputs of several chunks, one after the other."""
    if len(chunks) == 1:
        return chunks[0]

    return Outputs(
        torch.cat([chunk.scores for chunk in chunks]),
        torch.cat([chunk.named for chunk in chunks], dim=1),
        torch.cat([chunk.predicted for chunk in chunks]),
        torch.stack([chunk.finite for chunk in chunks]).all(),
    )


def _reduced(logits: Tensor, name: Score) -> Outputs:
    logits = logits.double()
    named = torch.stack([score(logits, one) for one in SCORES])
    places = list(SCORES)
    if name in places:
        scores = named[places.index(name)]
    else:
        scores = score(logits, name)

    return Outputs(scores, named, logits.argmax(dim=1), logits.isfinite().all())


def calibration_errors(confidence: Tensor, correct: Tensor) -> Tensor:
    """Expected calibration error (Guo et al., 2017) of confidences and bools (..., N), for each
    leading index.

    The mean over images of |accuracy - mean confidence| of the image's bin, of 15 bins of equal
    width, closed above. A bin's share cancels its count, so nothing is 0 / 0.
    """
    bounds = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.float64, device=confidence.device)[1:-1]
    bins = torch.bucketize(confidence, bounds)
    surplus = correct.double() - confidence
    # scatter_add would add in any order on a GPU, and a model would measure differently each time
    per_bin = torch.stack(
        [torch.where(bins == number, surplus, 0.0).sum(dim=-1) for number in range(NUM_BINS)]
    )
    return per_bin.abs().sum(dim=0) / confidence.shape[-1]
