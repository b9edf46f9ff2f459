"""What `check` says about a search that can run, but perhaps not as the user expects. Imports
neither Optuna nor NumPy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

from lmoe_tune.readers import READERS
from lmoe_tune.spec import Spec
from lmoe_tune.spec.outliers import OUTLIER_RATIO, outliers_per_step
from lmoe_tune.sweep.points import num_points
from lmoe_tune.training.platform import MOST_COMPILED, is_large, numbers_of_rows
from lmoe_tune.wording import counted

IGNORING_CONSTRAINTS = ("random", "qmc", "grid", "cmaes")
"""Samplers whose suggestions take no account of constraints (read in Optuna 5.0.0)."""
POPULATION = 12
"""Of NSGA-II: its own default of 50 would leave most sweeps in the first, random generation."""
DRAWN_AT_RANDOM = {"tpe": 10, "gp": 10, "nsga2": POPULATION}
"""Trials before a sampler goes by results (`n_startup_trials` in Optuna 5.0.0)."""
NOT_FOR_EMBEDDED = ("normalise", "duplicates", "corrupt", "cache", "cache_dir", "cache_limit")
SCORES = ("msp", "maxlogit", "energy")


def remarks(spec: Spec, given: Collection[str] = (), num_images: int | None = None) -> list[str]:
    """One sentence each.

    Args:
        given: the settings that the spec or an override says, as "train.lr"; the others are
            defaults.
        num_images: that are trained on, about; None: not known.
    """
    return [
        *_about_the_space(spec),
        *_about_the_search(spec, given),
        *_about_the_budget(spec, given),
        *_about_the_objective(spec),
        *_about_training(spec, given),
        *_about_data(spec, given, num_images),
    ]


def _about_the_space(spec: Spec) -> Iterator[str]:
    points, trials = num_points(spec), spec.budget.trials
    if points is not None and (trials is None or points < trials):
        planned = "" if trials is None else f", not {trials}"
        yield (
            f"the space has only {counted(points, 'point')}, and none is trained twice: "
            f"the search ends after {counted(points, 'trial')}{planned}"
        )

    for name, entry in spec.space.items():
        if entry.choices is not None and len(entry.choices) == 1:
            yield f"space.{name} has one choice, so it is not searched; put it under fixed"

        if entry.choices is not None and name.rpartition(".")[2] == OUTLIER_RATIO:
            yield from _about_same_counts(spec, name, [float(value) for value in entry.choices])

    m_in, m_out = spec.fixed.get("m_in"), spec.fixed.get("m_out")
    if isinstance(m_in, int | float) and isinstance(m_out, int | float) and m_in > m_out:
        yield (
            f"fixed.m_in is {m_in:g} and fixed.m_out is {m_out:g}: the energies of outliers may lie below those of "
            "the known classes then; m_in is the lower one in every publication"
        )


def _about_same_counts(spec: Spec, name: str, ratios: list[float]) -> Iterator[str]:
    """Of choices that are one and the same number of outliers in a step."""
    by_count: dict[int, list[str]] = defaultdict(list)
    for ratio in ratios:
        by_count[outliers_per_step(ratio, spec.train.batch_size)].append(f"{ratio:g}")

    for count, same in by_count.items():
        if len(same) > 1:
            yield (
                f"space.{name}: {' and '.join(same)} are the same {counted(count, 'outlier')} beside "
                f"{spec.train.batch_size} images, so those trials differ only in their number"
            )


def _about_the_search(spec: Spec, given: Collection[str]) -> Iterator[str]:
    search, trials = spec.search, spec.budget.trials
    if spec.objective.constraints and search.sampler in IGNORING_CONSTRAINTS:
        names = ", ".join(spec.objective.constraints)
        yield (
            f"search.sampler: {search.sampler} suggests without regard to the constraint on {names}; "
            "the ranking and the pruner go by it, and so do the samplers tpe, gp and nsga2"
        )

    at_random = DRAWN_AT_RANDOM.get(search.sampler, 0)
    if trials is not None and trials <= at_random:
        yield (
            f"search.sampler: {search.sampler} draws its first {at_random} trials at random, and "
            f"budget.trials is {trials}: it learns nothing from results"
        )

    if search.pruner == "none":
        if "search.min_epochs" in given:
            yield "search.min_epochs changes nothing: search.pruner is none"
    elif spec.first_rung >= spec.train.epochs:
        yield (
            f"search.pruner: {search.pruner} stops no trial: the first "
            f"{counted(spec.first_rung, 'epoch')} of {spec.train.epochs} are given to each"
        )


def _about_the_budget(spec: Spec, given: Collection[str]) -> Iterator[str]:
    trials, at_a_time = spec.budget.trials, spec.search.max_concurrent
    if trials is None:
        return

    if at_a_time is not None and at_a_time > trials and "search.max_concurrent" in given:
        yield f"search.max_concurrent is {at_a_time}, but budget.trials is {trials}"
    if spec.budget.max_failed is not None and spec.budget.max_failed >= trials:
        yield (
            f"budget.max_failed is {spec.budget.max_failed}, but budget.trials is {trials}: "
            "the sweep never ends early for failures"
        )

    begun = len(spec.search.start_from)
    if begun > trials:
        yield (
            f"search.start_from has {begun} points, but budget.trials is {trials}: "
            "the others are not tried"
        )


def _about_the_objective(spec: Spec) -> Iterator[str]:
    score, metrics = spec.objective.score, spec.objective.metrics
    for metric in metrics:
        named = metric.rpartition("_")[2]
        if named in SCORES and named != score.replace("_", ""):
            yield (
                f"objective.metric: {metric} uses {named}, but an exported detector scores by "
                f"objective.score, {score}"
            )

    if spec.trainable == "energy_oe" and score != "energy" and "energy" not in metrics[0]:
        yield f"energy_oe separates energies, but objective.score is {score}: energy fits it better"

    weights = [name for name in spec.space if name.endswith("_weight")]
    if "train_loss" in metrics and weights:
        yield (
            f"objective.metric: train_loss falls with {', '.join(weights)}, whatever the model learns: "
            "use a validation metric"
        )


def _about_training(spec: Spec, given: Collection[str]) -> Iterator[str]:
    train, resources = spec.train, spec.resources
    for name in ("lr", "weight_decay"):
        for section, how in (("fixed", "fixed"), ("space", "searched")):
            if name in getattr(spec, section) and f"train.{name}" in given:
                yield f"train.{name} changes nothing: {name} is {how}"

    on_cpu = train.device == "cpu" or (train.device == "auto" and not resources.gpu)
    if train.device == "cpu" and resources.gpu:
        yield f"resources.gpu is {resources.gpu:g}, but train.device is cpu: the GPU is idle"
    if train.threads is not None and train.threads > resources.cpu:
        yield (
            f"train.threads is {train.threads}, but a trial is given {resources.cpu:g} CPU "
            "(resources.cpu): trials get in each other's way"
        )

    if train.tf32 and (on_cpu or train.precision == "bf16"):
        yield "train.tf32 changes nothing: it is for fp32 on a GPU"
    kinds = numbers_of_rows(spec)
    if kinds > MOST_COMPILED and not on_cpu and is_large(spec) and train.compile == "auto":
        yield (
            f"steps are not compiled, which would make them 1.4 times as fast on an H100: they have {kinds} different "
            f"numbers of images, and each takes a minute to compile; with at most {MOST_COMPILED} "
            "(outlier_ratio with a step, or choices) they are"
        )
    if spec.model.baseline.epochs == 0:
        settings = {name for name in given if name.startswith("model.baseline.")}
        idle = sorted(settings - {"model.baseline.epochs"})
        if idle:
            yield f"{', '.join(idle)} changes nothing: model.baseline.epochs is 0"

    if spec.data.cache == "device" and on_cpu and not READERS[spec.data.id.dataset].is_embedded:
        yield "data.cache: device keeps a copy in every trial's memory on a CPU; disk shares one"


def _about_data(spec: Spec, given: Collection[str], num_images: int | None) -> Iterator[str]:
    data, batch = spec.data, spec.train.batch_size
    if READERS[data.id.dataset].is_embedded:
        idle = [f"data.{key}" for key in NOT_FOR_EMBEDDED if f"data.{key}" in given]
        if idle:
            yield f"{', '.join(idle)} changes nothing: the embedded images are taken as they are"
    elif data.cache == "off":
        idle = [f"data.{key}" for key in ("cache_dir", "cache_limit") if f"data.{key}" in given]
        if idle:
            yield f"{', '.join(idle)} changes nothing: data.cache is off"

    if num_images is not None:
        sizes = {"train": batch, "model.baseline": spec.model.baseline.batch_size}
        for section, size in sizes.items():
            if size > num_images:
                yield (
                    f"{section}.batch_size is {size}, but some {num_images} images are trained on: "
                    "every epoch is a single step"
                )

    limit = data.outliers.limit if data.outliers is not None else None
    most = _most_outliers(spec)
    if limit is not None and most > limit:
        yield (
            f"a step has up to {most} outliers, but data.outliers.limit is {limit}: "
            "each comes more than once in a step"
        )


def _most_outliers(spec: Spec) -> int:
    """The most outliers that a step may have."""
    ratios: list[float] = []
    for name, value in {**spec.fixed, **spec.space}.items():
        if name.rpartition(".")[2] != OUTLIER_RATIO:
            continue

        if isinstance(value, int | float):
            ratios.append(float(value))
        elif not isinstance(value, str):
            ratios += [float(one) for one in value.choices or (value.high or 0.0,)]

    return outliers_per_step(max(ratios, default=1.0), spec.train.batch_size)
