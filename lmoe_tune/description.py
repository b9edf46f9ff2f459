"""What must be known about a model to use its weights alone; it is in every checkpoint, beside
them.

N images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.errors import UsageError
from lmoe_tune.evaluation.scores import ScoreName
from lmoe_tune.model import build_model

KEY = "describes"
"""Where a checkpoint has it."""

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class ModelDescription:
    """Architecture, classes, and how an image becomes the input."""

    arch: str
    """The name that `lmoe_tune.model.build_model` knows it by."""
    classes: tuple[str, ...]
    """(K,), in the order of the logits."""
    score: ScoreName
    """What the search went by."""
    precision: Precision
    """In which the model was evaluated while it was trained; a detector always answers in fp32."""
    preprocessing: Preprocessing

    def build(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """The model with these weights: normalised images (N, C, H, W) to logits (N, K)."""
        channels, height, _ = self.preprocessing.shape
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced
            model = build_model(self.arch, len(self.classes), channels, height)
        model.load_state_dict(weights)
        return model

    def document(self) -> dict[str, Any]:
        """As it is written into a checkpoint: plain texts, numbers and lists."""
        return {
            "arch": self.arch,
            "classes": list(self.classes),
            "score": self.score,
            "precision": self.precision,
            "preprocessing": self.preprocessing.document(),
        }

    @classmethod
    def of_record(cls, document: object, *, whose: str, fix: str) -> ModelDescription:
        """What a checkpoint says about its model.

        Args:
            document: what it has under `KEY`; None if it has nothing.
            whose: whose checkpoint it is, for the message.
            fix: what to do where it is not enough.

        Raises:
            UsageError: something is missing: the model would be given different pixels from those
                it was trained on.
        """
        try:
            if not isinstance(document, Mapping):
                raise ValueError("it has no such record")
            return cls(
                arch=str(document["arch"]),
                classes=tuple(str(name) for name in document["classes"]),
                score=cast(ScoreName, document["score"]),
                precision=cast(Precision, document["precision"]),
                preprocessing=Preprocessing.of_document(document["preprocessing"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            what = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else error
            raise UsageError(
                f"the checkpoint of {whose} does not say how images become the network's input ({what}), so "
                f"it would be given different pixels from those it was trained on; {fix}"
            ) from error
