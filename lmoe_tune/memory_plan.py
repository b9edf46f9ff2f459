"""Whether a sweep's trials fit into a GPU, before the first is started.

`check`, `search --dry-run` and `doctor` say it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmoe_tune.readers import READERS
from lmoe_tune.spec import METHOD, Spec
from lmoe_tune.spec.outliers import OUTLIER_RATIO
from lmoe_tune.wording import readable_size
from trainables import configured

SMALLEST_BATCH = 2  # BatchNorm needs two rows
MANY_CLASSES = 1000  # where their number is not known: a larger head makes little difference
SHARES = (0.25, 1 / 3, 0.5, 1.0)  # of a GPU that are advised


@dataclass(frozen=True)
class MemoryPlan:
    """What the largest trial of a sweep, its evaluation and the baseline need of a GPU at least, in
    bytes.
    """

    rows: int
    """That go through the network in the largest step."""
    training: int
    evaluation: int
    baseline: int
    share: float
    """Of a GPU, for each trial."""
    batch_size: int
    searches_ratio: bool
    fixed: int
    per_row: int

    @property
    def needed(self) -> int:
        """The most of all three."""
        return max(self.training, self.evaluation, self.baseline)

    def share_of(self, gpu_bytes: int) -> int:
        """What a trial may have of a GPU."""
        return int(gpu_bytes * min(1.0, self.share))

    def advice(self, gpu_bytes: int) -> str:
        """What to set for all of it to fit into a trial's share of such a GPU; empty if it fits."""
        available = self.share_of(gpu_bytes)
        if self.needed <= available:
            return ""

        alternatives = [" and ".join(self._smaller(available))]
        if self.searches_ratio and self.training == self.needed:
            alternatives.append("a narrower outlier_ratio")
        larger = [share for share in SHARES if self.needed <= gpu_bytes * share]
        if larger:
            alternatives.append(f"resources.gpu: {larger[0]:.2g}")
        return f"too little; set {', or '.join(alternatives)}"

    def _smaller(self, available: int) -> list[str]:
        settings = []
        if self.training > available:
            rows = max(0, available - self.fixed) // self.per_row
            batch_size = int(self.batch_size * rows / self.rows)
            if batch_size < SMALLEST_BATCH:
                return ["a smaller data.crop or model.arch"]
            settings.append(f"train.batch_size: {batch_size} at most")
        if self.baseline > available:
            settings.append("a smaller model.baseline.batch_size")
        if self.evaluation > available:
            settings.append("a smaller data.crop")
        return settings

    def compared(self, gpu_bytes: int | None) -> str:
        """All of it in words, against a GPU with so many bytes; None is not known."""
        if gpu_bytes is None:
            return f"{self}; no GPU can be asked here"

        said = f"{self}; its share of a GPU is {readable_size(self.share_of(gpu_bytes))}"
        advice = self.advice(gpu_bytes)
        if advice:
            return f"{said}: {advice}"

        return said

    def __str__(self) -> str:
        return (
            f"a trial needs at least {readable_size(self.training)} ({readable_size(self.fixed)} for "
            f"weights, gradients and momentum, {readable_size(self.per_row)} for each of the "
            f"{self.rows} rows of its largest step), its evaluation {readable_size(self.evaluation)}, "
            f"the baseline {readable_size(self.baseline)}"
        )


def memory_plan(spec: Spec, folder: Path) -> MemoryPlan | None:
    """What a sweep needs of each GPU; None if it trains on the CPU.

    Args:
        spec: with its platform resolved.
        folder: where the spec's own modules are looked for.
    """
    if spec.train.device != "cuda":
        return None

    from lmoe_tune.data.image_source import rows_evaluated
    from lmoe_tune.training.loop import EVALUATION_BATCH
    from lmoe_tune.training.memory import model_memory, rows_of_step

    reader = READERS[spec.data.id.dataset]
    in_channels, side = (1, 8) if reader.is_embedded else (3, spec.data.image_crop)
    bf16 = spec.train.precision == "bf16"
    num_classes = reader.num_classes or MANY_CLASSES
    model = model_memory(spec.model.arch, num_classes, in_channels, side, bf16=bf16)

    rows = 0
    for point in _largest_points(spec):
        method, params = configured(spec, point, folder)
        rows = max(rows, rows_of_step(method.objective(params), spec.train.batch_size))

    baseline = spec.model.baseline
    return MemoryPlan(
        rows=rows,
        training=model.of_training(rows),
        evaluation=model.of_evaluation(rows_evaluated(EVALUATION_BATCH, side)),
        baseline=model.of_training(baseline.batch_size) if baseline.epochs else 0,
        share=spec.resources.gpu,
        batch_size=spec.train.batch_size,
        searches_ratio=bool(_ratios(spec)),
        fixed=model.fixed,
        per_row=model.saved_per_row,
    )


def _largest_points(spec: Spec) -> list[dict[str, Any]]:
    """A point of each method that is searched, with the most outliers; the rest as it is by
    default.
    """
    most = _ratios(spec)
    if METHOD not in spec.space:
        return [most]
    return [{METHOD: method, **most} for method in spec.space[METHOD].choices or ()]


def _ratios(spec: Spec) -> dict[str, Any]:
    """The largest value of each ratio of outliers that is searched."""
    largest = {}
    for name, searched in spec.space.items():
        if name.rpartition(".")[2] == OUTLIER_RATIO:
            largest[name] = max(searched.choices) if searched.choices else searched.high
    return largest
