"""The spec, typed: what a search-space file says once it has been checked and its defaults are filled in.

The docstrings under the fields are the descriptions of the JSON Schema and carry the units. `findings.py`
turns what these models refuse into messages with a place; build a `Spec` with `load_spec`, not by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_serializer,
)

from lmoe_tune.readers import READERS
from lmoe_tune.spec.architectures import ARCHITECTURES, TIMM, is_architecture
from lmoe_tune.spec.declaration import Value
from lmoe_tune.spec.quantity import (
    DURATION,
    EXPRESSION,
    SIZE,
    BoundExpression,
    duration_s,
    duration_text,
    size_bytes,
    size_text,
)

FIRST_RUNG_FRAC = 0.2
"""Of the epochs, before a trial may be pruned; why, is in docs/decisions/0020."""


@dataclass(frozen=True)
class MustBe:
    """Metadata of a field: the words that follow "must be" in a message; where it takes one of a
    few words, or more, `options` are what may have been meant."""

    text: str
    options: tuple[str, ...] = ()


def _such(is_such: Callable[[str], object]) -> BeforeValidator:
    """Text that passes a test; what it must be is said by `MustBe`."""

    def validate(value: object) -> str:
        if not isinstance(value, str) or not is_such(value):
            raise ValueError
        return value

    return BeforeValidator(validate)


def _is_text(value: str) -> bool:
    return bool(value.strip()) and len(value) <= 500 and value.isprintable()


NAME_MUST_BE = "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first, without '..'"
NAME_PATTERN = r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Text = Annotated[str, _such(_is_text), MustBe("text of 1 to 500 printable characters")]
Name = Annotated[
    str,
    _such(re.compile(NAME_PATTERN).fullmatch),
    MustBe(NAME_MUST_BE),
    WithJsonSchema({"type": "string", "pattern": NAME_PATTERN}),
]
Trainable = Annotated[
    str,
    _such(_is_text),
    MustBe("the name of a method; to search several, give space.method {choices: [NAME, …]}"),
]
Duration = Annotated[
    float,
    BeforeValidator(duration_s),
    PlainSerializer(duration_text),
    MustBe(DURATION),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": "^[0-9]"},
            ]
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(size_bytes),
    PlainSerializer(size_text),
    MustBe(SIZE),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[0-9]"}]}
    ),
]
Arch = Annotated[
    str,
    _such(is_architecture),
    MustBe(f"one of {', '.join(ARCHITECTURES)}, or {TIMM}NAME of a model of timm", ARCHITECTURES),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(ARCHITECTURES)},
                {"type": "string", "pattern": f"^{TIMM}[a-z0-9_.]+$"},
            ]
        }
    ),
]
DatasetName = Annotated[
    str,
    _such(READERS.__contains__),
    MustBe(f"one of {', '.join(READERS)}", tuple(READERS)),
    WithJsonSchema({"type": "string", "enum": list(READERS)}),
]
Bound = Annotated[
    BoundExpression,
    BeforeValidator(BoundExpression.parse),
    PlainSerializer(BoundExpression.notation),
    MustBe(EXPRESSION),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^\s*baseline\s*([+-].*)?$"}]}
    ),
]
Count = Annotated[int, Ge(1), Le(10**9)]
Batch = Annotated[int, Ge(2), Le(10**6)]
Epochs = Annotated[int, Ge(1), Le(100_000)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
        json_schema_serialization_defaults_required=False,
    )


class Dataset(_Section):
    """A data set: one that is known by name, or a folder of class folders."""

    dataset: DatasetName
    """Its name; `folder` reads your own images as class/image.jpg."""
    root: Text | None = None
    """Its folder, relative to the working directory or else to the spec. Embedded sets have none."""
    limit: Count | None = None
    """Use a fixed subset of this many images; null: all."""
    exclude: Annotated[tuple[Text, ...], MaxLen(100_000)] = ()
    """What to leave out of outliers or coarse_ood: class names, synsets, image paths, or .txt files
    of these.
    """


class AugmentSpec(_Section):
    """How training images are varied; the defaults are those of the published protocol."""

    random_crop: bool = True
    """Whether the crop is taken at random; else from the centre, as it always is in validation."""
    flip: bool = True
    """Whether every second image is mirrored."""
    brightness: Annotated[float, Ge(0), Le(1)] = 32 / 255
    """The brightness is multiplied by a factor between 1 - this and 1 + this."""
    saturation: Annotated[float, Ge(0), Le(1)] = 0.5
    """The saturation is multiplied by a factor between 1 - this and 1 + this."""


class DataSpec(_Section):
    """What is in-distribution, what serves as outliers, and how they are split."""

    id: Dataset
    """The in-distribution set, whose classes are learnt."""
    outliers: Dataset | None = None
    """The auxiliary outliers, in disjoint pools: to train with, to validate with (val_coarse), to test with."""
    val_coarse: Dataset | None = None
    """The coarse images to validate with (val_coarse); null: a pool of the outliers, from the
    source trained with.
    """
    coarse_ood: tuple[Dataset, ...] = ()
    """The sealed coarse test sets, never looked at by a search; [] for none."""
    split: Annotated[int, Ge(0), Le(2**31 - 1)] = 0
    """Which of the random splits into classes and images."""
    resize: Count | None = None
    """Side in pixels of the square that images are resized to, whatever their aspect ratio, as the published
    protocol does (bilinear, antialiased). null: 8/7 of the crop, else 512; embedded data stay as they are."""
    crop: Count | None = None
    """Side in pixels of the square that is cut out of it and trained on; null: no crop."""
    augment: AugmentSpec | None = None
    """How training images are varied; null: as the published protocol does, and embedded data not at all."""
    normalise: Literal["imagenet", "train"] = "imagenet"
    """Mean and deviation for normalisation: ImageNet's, or those of the training images (as for
    embedded data).
    """
    num_id_classes: Annotated[int, Ge(2), Le(10**6)] | None = None
    """Classes that are in-distribution, the others being test-novel; null: the published number, else 75%."""
    num_val_novel: Count | None = None
    """In-distribution classes held out during the search; null: a tenth of them, at least one."""
    duplicates: Literal["drop", "refuse"] = "drop"
    """What to do with identical images inside the in-distribution set."""
    corrupt: Literal["skip", "refuse"] = "skip"
    """What to do with broken images; more than a tenth of a set are refused in any case."""
    cache: Literal["disk", "device", "off"] = "disk"
    """Where decoded images are kept: in a file that all trials of a node share, in addition in the
    memory of each trial's device, or nowhere (every epoch decodes again, about 50 times slower).
    The results are the same.
    """
    cache_dir: Text | None = None
    """Folder of that file, best on a local disk of the node; null: cache, in the home."""
    cache_limit: Size | None = None
    """How large the folder may become: bytes, or a text such as 200GB; null: what the disk has
    free.
    """

    @property
    def image_side(self) -> int:
        """Side in pixels that image files are resized to."""
        return self.resize or (round(self.crop * 8 / 7) if self.crop else 512)

    @property
    def image_crop(self) -> int:
        """Side in pixels of what is cut out of an image file and goes through the network."""
        return self.crop or self.image_side

    @property
    def augmentation(self) -> AugmentSpec:
        """How image files are varied in training."""
        return self.augment or AugmentSpec()


class BaselineSpec(_Section):
    """The classifier that every trial starts from: plain cross entropy, trained once."""

    epochs: Annotated[int, Ge(0), Le(100_000)]
    """Passes over the in-distribution images; 0 takes the weights as they are: your own
    classifier.
    """
    lr: Positive = 0.01
    """Learning rate at the start of the cosine."""
    weight_decay: NonNegative = 1e-5
    """L2 penalty of SGD."""
    batch_size: Batch = 32
    """Images per step."""


class ModelSpec(_Section):
    """The network."""

    arch: Arch
    """Its architecture: small_cnn, one of torchvision's, or timm/NAME (needs `pip install lmoe-tune[timm]`)."""
    weights: Text = "none"
    """Where it starts: `none` (random), `imagenet`, or a checkpoint's path; a head for other classes is not loaded."""
    baseline: BaselineSpec
    """How the baseline is trained."""


class TrainSpec(_Section):
    """A trial's training, where its parameters do not say otherwise."""

    epochs: Epochs
    """Passes over the in-distribution images."""
    batch_size: Batch
    """In-distribution images per step; the outliers come on top."""
    lr: Positive
    """Learning rate at the start of the cosine."""
    min_lr: NonNegative = 1e-6
    """Learning rate at the end of the cosine."""
    momentum: Annotated[float, Gt(0), Lt(1)] = 0.9
    """Nesterov momentum of SGD."""
    weight_decay: NonNegative
    """L2 penalty of SGD."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; `auto` takes bf16 where the hardware has it."""
    tf32: bool = False
    """Whether fp32 on a GPU may round to TF32 (10 bits after the point): faster, but different
    numbers.
    """
    compile: Literal["auto"] | bool = "auto"
    """Whether torch.compile compiles the network: 1.4 times as fast on an H100, after about a minute
    for each number of images in a step. `auto` does so on a GPU for images of 224 pixels and more,
    where there is a C compiler and `outlier_ratio` has at most six values.
    """
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; `auto` takes a GPU where the trials are given a share of one."""
    threads: Count | None = None
    """CPU threads of a trial; null: resources.cpu."""
    seed: Seed | None = None
    """Seed of the training; null: search.seed."""


class Distribution(_Section):
    """What values a parameter may take: a range or a choice, in Optuna's words."""

    low: float | None = None
    """The smallest value."""
    high: float | None = None
    """The largest value, included."""
    log: bool = False
    """Whether to search on a logarithmic scale."""
    step: Positive | None = None
    """Distance of the values from one another; null: continuous (for whole numbers 1)."""
    int_: bool = Field(default=False, alias="int")
    """Whether the values are whole numbers."""
    choices: Annotated[tuple[Value, ...], MaxLen(1000)] | None = None
    """The values to choose from, instead of a range."""
    only_for: tuple[str, ...] | None = None
    """The methods that have this parameter, if `method` is searched; filled in automatically. null:
    all.
    """

    @model_serializer
    def _notation(self) -> dict[str, Any]:
        if self.only_for is not None:
            condition = {"only_for": list(self.only_for)}
        else:
            condition = {}
        if self.choices is not None:
            return {"choices": list(self.choices)} | condition

        ends = {"low": self.low, "high": self.high, "step": self.step}
        numbers = {key: int(x) if self.int_ else x for key, x in ends.items() if x is not None}
        return numbers | {"log": self.log, "int": self.int_} | condition


class BoundSpec(_Section):
    """Bounds on a metric of the trial: a number, or one relative to the baseline's value of it."""

    min: Bound | None = None
    """The smallest feasible value."""
    max: Bound | None = None
    """The largest feasible value."""


def _default_constraints() -> dict[str, BoundSpec]:
    return {"val_accuracy": BoundSpec(min=BoundExpression(relative=True, offset=-0.02))}


class FurtherObjective(_Section):
    """One more metric to optimise."""

    metric: str
    """A metric of the validation set."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """Which way is better; left out: the metric's own."""


class ObjectiveSpec(_Section):
    """What the search optimises, and what it must not give up for it. A list of several gives a Pareto front."""

    metric: str = "val_auroc"
    """A metric of the validation set."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """Which way is better; left out: the metric's own."""
    constraints: dict[str, BoundSpec] = Field(default_factory=_default_constraints)
    """Bounds by metric, else a trial is infeasible. Left out: val_accuracy at least baseline - 0.02, or none
    where val_accuracy is itself an objective."""
    score: Literal["msp", "max_logit", "energy"] = "msp"
    """The score that separates in- from out-of-distribution, computed from the logits."""
    also: Annotated[tuple[FurtherObjective, ...], MaxLen(3)] = ()
    """Further objectives: what the later entries of a list of objectives become."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that is optimised, the first one first."""
        return (self.metric, *(further.metric for further in self.also))

    @property
    def directions(self) -> tuple[Literal["maximize", "minimize"], ...]:
        """The directions of `metrics`."""
        return (self.direction, *(further.direction for further in self.also))


class SearchSpec(_Section):
    """How the space is searched."""

    sampler: Literal["tpe", "random", "grid", "qmc", "cmaes", "gp", "nsga2"] = "tpe"
    """Optuna's sampler; `grid` needs choices or a step for every parameter, `nsga2` evolves a Pareto front."""
    pruner: Literal["asha", "hyperband", "median", "none"] = "asha"
    """Which trials are stopped early. Left out: asha, or none with several objectives."""
    min_epochs: Count | None = None
    """Epochs every trial is given before it may be pruned; null: a fifth of them."""
    seed: Seed = 0
    """Seed of the suggestions, and of the training where train.seed is not given."""
    start_from: Annotated[tuple[dict[str, Value], ...], MaxLen(1000)] = ()
    """Points to try first; what one leaves out is sampled."""
    max_concurrent: Count | None = None
    """Trials at a time; null: as many as the resources allow. On a cluster that can grow: as many
    as it should grow to.
    """


class Budget(_Section):
    """When the sweep ends: whichever comes first."""

    trials: Count | None = None
    """Number of trials, pruned ones included."""
    time: Duration | None = None
    """Wall time, added up over resumes: seconds, or a text such as 30m, 8h, 2d."""
    gpu_hours: Positive | None = None
    """GPU-hours of all trials together."""
    max_failed: Annotated[int, Ge(0), Le(10**9)] | None = None
    """End early once more than this many trials failed; null: never."""


class Resources(_Section):
    """What one trial is given."""

    gpu: NonNegative = 0.0
    """GPUs, 1 at most: a fraction shares one GPU between trials."""
    cpu: Positive = 1.0
    """CPU cores."""
    max_retries: Annotated[int, Ge(0), Le(1000)] = 3
    """How often a trial whose process died is started again, from its last checkpoint."""
    epoch_timeout: Duration | None = None
    """An epoch that takes longer counts as stuck, and its trial is started again; null: never."""


class TrackingSpec(_Section):
    """Where the sweep is shown in MLflow."""

    experiment: Text | None = None
    """MLflow's experiment; null: the spec's name."""
    uri: Text | None = None
    """The tracking server, without credentials; null: MLFLOW_TRACKING_URI, else a database under the home."""
    best_checkpoints: Count = 3
    """How many of the best trials keep their last checkpoint, here and as MLflow models."""


class Spec(_Section):
    """A search-space file of lmoe-tune."""

    name: Name
    """The sweep's name and folder."""
    trainable: Trainable
    """The method: one that `lmoe-tune methods` lists, or your own package.module:Class."""
    data: DataSpec
    model: ModelSpec
    train: TrainSpec
    fixed: dict[str, Value] = Field(default_factory=dict)
    """Parameters of the trainable held at one value, the same in all trials."""
    space: dict[str, Distribution]
    """Parameters of the trainable that are searched."""
    objective: ObjectiveSpec = Field(default_factory=ObjectiveSpec)
    search: SearchSpec = Field(default_factory=SearchSpec)
    warm_start: Annotated[tuple[Name, ...], MaxLen(20)] = ()
    """Other sweeps of this home, by name: the best points of each are tried after those of search.start_from. They
    are taken when the sweep starts, and are part of its search.start_from from then on."""
    budget: Budget
    resources: Resources = Field(default_factory=Resources)
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)

    @property
    def first_rung(self) -> int:
        """Epochs before a trial may be pruned."""
        return self.search.min_epochs or max(1, round(FIRST_RUNG_FRAC * self.train.epochs))
