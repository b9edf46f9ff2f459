"""Whether a sweep's trials fit into the GPU, before the first is started: `search --dry-run` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmoe_tune.readers import READERS
from lmoe_tune.spec import Spec
from lmoe_tune.spec.outliers import OUTLIER_RATIO
from lmoe_tune.training.platform import gpu_bytes
from lmoe_tune.wording import readable_size
from trainables import configured

if TYPE_CHECKING:
    from lmoe_tune.training.memory import TrialMemory


def memory_in_words(
    spec: Spec, points: Sequence[Mapping[str, Any]], num_classes: int, folder: Path
) -> str | None:
    """What the largest trial needs of the GPU, and what to set where it does not fit; None on a CPU.

    Args:
        spec: with its platform resolved.
        points: some configurations of the search, of each method that it has; their ratio of
            outliers is taken at its upper end.
        folder: where the spec's own modules are looked for.
    """
    needed = memory_needed(spec, points, num_classes, folder)
    if needed is None:
        return None
    return f"{needed}{_compared(spec, needed)}"


def memory_needed(
    spec: Spec, points: Sequence[Mapping[str, Any]], num_classes: int, folder: Path
) -> TrialMemory | None:
    """What the largest trial needs of the GPU, of the same arguments; None on a CPU."""
    if spec.train.device != "cuda":
        return None
    from lmoe_tune.training.memory import model_memory, rows_of_step, trial_memory

    rows = 0
    for point in points:
        method, params = configured(spec, _with_most_outliers(point, spec), folder)
        rows = max(rows, rows_of_step(method.objective(params), spec.train.batch_size))

    is_embedded = READERS[spec.data.id.dataset].is_embedded
    in_channels, side = (1, 8) if is_embedded else (3, spec.data.image_crop)
    model = model_memory(
        spec.model.arch, num_classes, in_channels, side, bf16=spec.train.precision == "bf16"
    )
    return trial_memory(model, rows)


def _with_most_outliers(point: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    largest = dict(point)
    for name, searched in spec.space.items():
        if name in point and name.rpartition(".")[2] == OUTLIER_RATIO:
            largest[name] = max(searched.choices) if searched.choices else searched.high
    return largest


def _compared(spec: Spec, needed: TrialMemory) -> str:
    memory = gpu_bytes()
    if memory is None:
        return ""
    share = int(memory * min(1.0, spec.resources.gpu or 1.0))
    said = f"; its share of this GPU is {readable_size(share)}"
    if needed.total <= share:
        return said
    batch = needed.largest_batch(spec.train.batch_size, share)
    return (
        f"{said}: too little, set train.batch_size to {batch} at most, a larger resources.gpu, or a "
        "narrower outlier_ratio"
    )
