"""The best trial and the baseline run again, on validation images: what the figures of scores and
logits show.

N images, C channels, H W pixels, K classes. Nothing of a test is read here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmoe_tune import checkpoint
from lmoe_tune.data import load_search_data
from lmoe_tune.data.decode import UInt8Array
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.description import KEY, ModelDescription
from lmoe_tune.detector.network import Network
from lmoe_tune.evaluation import score
from lmoe_tune.records import TrialRecord
from lmoe_tune.report.answers import LAMBDAS, Answers, Compared, Floats
from lmoe_tune.spec import DataSpec
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.training.baseline_record import baseline_folder

MAX_IMAGES = 1000
"""Of each set that are looked at."""
MAX_PAIRS = 64
"""An in-distribution image with an outlier each, mixed at every lambda."""
_AT_ONCE = 1 << 22  # pixels of a forward


def compare_networks(ledger: Ledger, best: TrialRecord) -> Compared:
    """Run both over at most `MAX_IMAGES` of each validation set. Raises UsageError if the data
    cannot be read.
    """
    state = checkpoint.load_after(ledger.folder.checkpoints(best.number), len(best.epochs))
    if state is None:
        return Compared.without_weights(best)
    whose = f"trial {best.number}"
    describes = ModelDescription.of_record(state.get(KEY), whose=whose, fix="train it again")
    sets = _pixels(ledger.spec.data, ledger.folder.home, describes.preprocessing)
    found = _answers(state["model"], describes, sets)
    key = ledger.attrs.get("baseline")
    if key:
        before = checkpoint.load_newest(baseline_folder(ledger.folder.home, key))
    else:
        before = None
    if before is None:
        return Compared(found, None, ("the weights of the baseline are gone",))
    return Compared(found, _answers(before["model"], describes, sets), ())


def _pixels(data: DataSpec, home: Path, preprocessing: Preprocessing) -> dict[str, UInt8Array]:
    """uint8 (N, C, H, W) of each validation set: at most `MAX_IMAGES`, and about a gigabyte."""
    found = load_search_data(data, home)
    sets = {"id": found.val, "fine": found.val_fine, "coarse": found.val_coarse}
    bytes_of_one = math.prod(preprocessing.shape)
    limit = max(MAX_PAIRS, min(MAX_IMAGES, (1 << 30) // bytes_of_one))

    pixels = {}
    for name, images in sets.items():
        if len(images):
            chosen = images.some(_spread(len(images), limit))
            pixels[name] = np.concatenate(list(chosen.chunks(preprocessing, data, home, 64)))
    return pixels


def _spread(count: int, limit: int) -> npt.NDArray[np.int64]:
    """At most `limit` places of `count`, evenly over them."""
    return np.arange(min(count, limit)) * count // max(1, min(count, limit))


@torch.inference_mode()
def _answers(
    weights: dict[str, Tensor], describes: ModelDescription, sets: dict[str, UInt8Array]
) -> Answers:
    num_classes = len(describes.classes)
    network = Network(describes.build(weights), describes.preprocessing)
    logits = {name: _through(network, images) for name, images in sets.items()}
    confidence, mixed = np.zeros((0, 0)), torch.zeros(0, num_classes)
    if "coarse" in sets:
        confidence, mixed = _along_lambda(network, sets["id"], sets["coarse"])
    shown = logits | {"mixed": mixed}
    return Answers(
        scores={name: score(found, describes.score).numpy() for name, found in logits.items()},
        logits={name: found.double().numpy() for name, found in shown.items() if name != "fine"},
        confidence=confidence,
        num_classes=num_classes,
    )


def _along_lambda(
    network: Network, images: UInt8Array, outliers: UInt8Array
) -> tuple[Floats, Tensor]:
    """The confidences (L, pairs), and the logits of the mixtures in the middle of the way."""
    pairs = min(len(images), len(outliers), MAX_PAIRS)
    known = torch.from_numpy(images[_spread(len(images), pairs)]).float()
    unknown = torch.from_numpy(outliers[_spread(len(outliers), pairs)]).float()
    rows, mixed = [], []
    for weight in LAMBDAS.tolist():
        logits = _through(network, (weight * known + (1 - weight) * unknown).numpy())
        rows.append(logits.double().softmax(dim=1).amax(dim=1).numpy())
        if 0.2 < weight < 0.8:
            mixed.append(logits[::2])
    return np.stack(rows), torch.cat(mixed)


def _through(network: Network, images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> Tensor:
    def chunks() -> Iterator[Tensor]:
        size = max(1, _AT_ONCE // (images.shape[2] * images.shape[3]))
        for start in range(0, len(images), size):
            yield network(torch.from_numpy(images[start : start + size])).float()

    return torch.cat(list(chunks()))
