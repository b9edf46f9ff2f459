"""A loaded detector, and what it says about an image.

N images, C channels, H W pixels of the network's input, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmoe_tune.data.decode import CorruptImageError, Picture, UInt8Array
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.detector.scoring import BATCH, is_ood, score_pixels
from lmoe_tune.errors import UsageError
from lmoe_tune.evaluation.scores import SCORES, ScoreName

DEVICE = "LMOE_TUNE_DEVICE"
"""Environment variable: where detectors run. `cpu` by default, where they were measured; a GPU's
last bits differ.
"""

Item = TypeVar("Item")


class Prediction(NamedTuple):
    """What a detector says about one image: `label, score, is_ood = detector("photo.jpg")`."""

    label: str
    """The class, as `detector.json` names it."""
    score: float
    """Higher: more in-distribution."""
    is_ood: bool | None
    """score < threshold, exactly; None if no threshold has been measured, as for a trial's
    checkpoint.
    """


@dataclass(frozen=True, eq=False)
class Detector:
    """A network with all that is needed to use it."""

    classes: tuple[str, ...]
    score: ScoreName
    threshold: float | None
    preprocessing: Preprocessing
    network: Callable[[Tensor], Tensor]
    """From pixels (N, C, H, W) in 0-255 to logits (N, K)."""
    device: torch.device
    about: dict[str, Any]
    """All of `detector.json`: metrics and provenance too."""
    folder: Path | None = None
    """Where it was exported to; None for a trial's checkpoint."""

    def __reduce__(self) -> str | tuple[Any, ...]:
        """To be copied and pickled, as for a pool of processes; an exported network is loaded again
        from its folder.
        """
        if self.folder is None:
            return super().__reduce__()

        from lmoe_tune.detector.folder import load_detector

        return load_detector, (self.folder.resolve(), str(self.device))

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a text is a path, not a sequence of them
        self, images: Path | str | bytes
    ) -> Prediction: ...

    @overload
    def __call__(self, images: Sequence[Picture]) -> list[Prediction]: ...

    @overload
    def __call__(self, images: Picture) -> Prediction | list[Prediction]: ...

    def __call__(self, images: Any) -> Prediction | list[Prediction]:
        """The predictions for one image, or several.

        Args:
            images: one, or a sequence of them. An image is a path, the content of a file, a Pillow
                image, or uint8 pixels (H, W), (H, W, 3) or (H, W, 4) of any size; (N, H, W, 3) is N
                images.

        Returns:
            A `Prediction` for one image, a list of them for several.

        Raises:
            CorruptImageError: the first image that cannot be read.
            UsageError: something is no image.
        """
        is_single_array = isinstance(images, np.ndarray) and images.ndim < 4
        if is_single_array or not isinstance(images, np.ndarray | list | tuple):
            return self([images])[0]
        return [_or_raised(found) for found in self.each(images)]

    def each(self, images: Iterable[Picture]) -> Iterator[Prediction | CorruptImageError]:
        """One answer per image, in order, a few images at a time; the error for an image that
        cannot be read.
        """
        if isinstance(images, str | bytes | Path) or not isinstance(images, Iterable):
            raise UsageError("each takes several images: for one, call the detector itself")
        for some in _batches(images, BATCH):
            read = [self._read(image) for image in some]
            whole = [pixels for pixels in read if not isinstance(pixels, CorruptImageError)]
            found = iter(self.predict(np.stack(whole)) if whole else [])
            for pixels in read:
                yield pixels if isinstance(pixels, CorruptImageError) else next(found)

    def predict(self, pixels: npt.NDArray[Any], score: ScoreName | None = None) -> list[Prediction]:
        """One prediction for each image (N, C, H, W), values in 0-255; the same for one image and
        for many.

        Args:
            score: another score than the detector's own; it has no threshold.

        Raises:
            UsageError: another shape, not an array, no such score, or a pixel that is not a finite
                number.
        """
        shape = self.preprocessing.shape
        if not hasattr(pixels, "ndim") or not hasattr(pixels, "shape"):
            raise UsageError(f"pixels are given as {type(pixels).__name__}, but must be an array")
        if pixels.ndim != 4 or pixels.shape[1:] != shape:
            wanted = f"(N, {str(shape)[1:]}"
            raise UsageError(f"the images have the shape {pixels.shape}, but must be {wanted}")

        if score is not None and not (isinstance(score, str) and score in SCORES):
            raise UsageError(f"score is {score!r}, but must be {', '.join(SCORES)} or None")

        found = score_pixels(self.network, pixels, score or self.score, self.device)
        scores = found.scores.numpy()
        decided: Sequence[bool | None] = [None] * len(scores)
        if self.threshold is not None and score in (None, self.score):
            decided = is_ood(scores, self.threshold).tolist()

        labels = [self.classes[number] for number in found.predicted.tolist()]
        return [Prediction(*one) for one in zip(labels, scores.tolist(), decided, strict=True)]

    def _read(self, image: Picture) -> UInt8Array | CorruptImageError:
        try:
            return self.preprocessing.read(image)
        except CorruptImageError as error:
            return error


def device_of(device: str | None) -> torch.device:
    """The given device, else the environment's, else the CPU.

    Raises:
        UsageError: there is none of that name, or not here.
    """
    asked = device or os.environ.get(DEVICE) or "cpu"
    try:
        found = torch.device(asked)
        torch.empty(1, device=found).cpu()  # which "meta" cannot
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        why = str(error).splitlines()[0]
        raise UsageError(f"the device {asked!r} cannot be used here: {why}") from error
    return found


def _or_raised(found: Prediction | CorruptImageError) -> Prediction:
    if isinstance(found, CorruptImageError):
        raise found
    return found


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    waiting = iter(items)
    while some := list(islice(waiting, size)):
        yield some
