"""What a reader of a verdict should know besides: sentences, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lmoe_tune.confirmation.plan import Plan
from lmoe_tune.spec import SHARED_PARAMETERS, Spec
from lmoe_tune.statistics import Paired, Run, Verdict, summarise
from trainables import load_method

FEW_SEEDS = 5
FEW_CLASSES = 5


def cautions_of(
    plan: Plan,
    spec: Spec,
    runs: Sequence[Run],
    verdict: Verdict,
    *,
    ci95_classes: tuple[float, float] | None,
    num_novel_classes: int,
    import_path: Path,
) -> list[str]:
    """All that applies.

    Args:
        ci95_classes: of the winner's gain, over other novel classes; None if that is not known.
        num_novel_classes: of one split.
    """
    found = [*_of_rivals(plan, verdict.paired), *_of_divergence(runs), *plan.notes]
    found += _of_accuracy(plan, spec, runs)
    found += _of_objective(spec)
    found += _of_fixed(plan, spec, import_path)

    is_better = verdict.name in ("real", "small")
    if is_better and ci95_classes is not None and ci95_classes[0] <= 0:
        low, high = ci95_classes
        found.append(
            f"the gain depends on which classes are novel: over other classes like the {num_novel_classes} "
            f"here it is between {low:+.4f} and {high:+.4f}"
        )
    if 0 < num_novel_classes < FEW_CLASSES:
        found.append(
            f"there are only {num_novel_classes} novel classes, so this says little about other ones"
        )
    found += _of_constant(verdict.paired)
    found += _of_near_duplicates(plan, runs)
    splits = {run.split for run in runs}
    if len(splits) > 1:
        found.append(
            f"the {len(splits)} splits share most of their images, so what they agree on is about "
            "this data set and not about others"
        )
    if spec.model.weights != "none":
        found.append(
            f"training starts from the weights '{spec.model.weights}', and what they were trained on "
            "may include the novel classes"
        )
    if 1 < verdict.paired[0].pairs < FEW_SEEDS:
        found.append(f"{verdict.paired[0].pairs} pairs are few: five find much more")
    return list(dict.fromkeys(found))


def _of_rivals(plan: Plan, paired: Sequence[Paired]) -> Iterator[str]:
    for one in paired[1:]:
        if one.gain < 0:
            p = "" if one.p is None else f" (p {one.p:.2g})"
            yield (
                f"{one.against} is ahead of the winner, {plan.winner.name}, by "
                f"{abs(one.difference):.4f} in {one.metric}{p}"
            )


def _of_constant(paired: Sequence[Paired]) -> Iterator[str]:
    names = [one.against for one in paired if one.p == 1.0 and one.seed_sd < 1e-12]
    if names:
        yield (
            f"p is 1 against {', '.join(names)}, whatever the interval: all pairs differ by the same amount, so "
            "nothing shows what other seeds would do"
        )


def _of_divergence(runs: Sequence[Run]) -> Iterator[str]:
    seeds: dict[str, list[str]] = {}
    for run in runs:
        if run.diverged:
            seeds.setdefault(run.configuration, []).append(f"split {run.split}, seed {run.seed}")
    for name, where in seeds.items():
        yield f"{name} diverged ({'; '.join(where)}): these trainings count as chance"


def _of_accuracy(plan: Plan, spec: Spec, runs: Sequence[Run]) -> Iterator[str]:
    if accuracy_bounds(spec) != (None, None):
        return
    rows = (plan.own_defaults, plan.winner)
    defaults, winner = (summarise(runs, row.name, "test_accuracy").mean for row in rows)
    fall = defaults - winner
    if fall > 0.02:
        yield (
            f"the winner's test accuracy is lower by {fall:.4f}, and the spec sets no bound for it "
            "(objective.constraints)"
        )


def _of_near_duplicates(plan: Plan, runs: Sequence[Run]) -> Iterator[str]:
    own = [run for run in runs if run.configuration == plan.winner.name]
    number = max((run.metrics.get("test_near_duplicates", 0.0) for run in own), default=0.0)
    if number > 0:
        yield (
            f"{number:.0f} test images are near-duplicates of images that were trained on or validated "
            "with; the metrics ending in _distinct are without them"
        )


def _of_objective(spec: Spec) -> Iterator[str]:
    if spec.objective.metric != "val_auroc":
        yield (
            f"the search optimised {spec.objective.metric}, while the verdict is about test_auroc: "
            "the other metrics of the table may say more"
        )


def _of_fixed(plan: Plan, spec: Spec, import_path: Path) -> Iterator[str]:
    shared = {parameter.name for parameter in SHARED_PARAMETERS}
    for row in (plan.own_defaults, *plan.others):
        if row.name.endswith(" tuned"):
            continue
        declared = load_method(row.method, import_path).declaration.all_parameters
        names = set(declared)
        if row != plan.own_defaults:
            names &= shared
        changed = [
            f"{name} at {value}"
            for name, value in spec.fixed.items()
            if name in names and declared[name].default not in (value, None)
        ]
        if changed:
            yield f"`fixed` holds {', '.join(changed)} in {row.name}, where the default is different"


def accuracy_bounds(spec: Spec) -> tuple[float | None, float | None]:
    """How far the winner's accuracy may be below its defaults', and the least it must be, by the
    spec.
    """
    bound = spec.objective.constraints.get("val_accuracy")
    if bound is None or bound.min is None:
        return None, None
    if bound.min.relative:
        return max(0.0, -bound.min.offset), None
    return None, bound.min.offset
