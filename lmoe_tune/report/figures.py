"""The figures of a report, each a function from the facts to a matplotlib figure, or to why there
is none.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lmoe_tune import advice
from lmoe_tune.records import TrialRecord
from lmoe_tune.report.answers import LAMBDAS, Answers, Compared
from lmoe_tune.report.facts import Confirmation, Facts, Floats
from lmoe_tune.spec import METHOD
from lmoe_tune.wording import counted

# Okabe and Ito's palette: distinguishable with any colour vision
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#7F7F7F",
)
OF_SET = {"id": BLUE, "fine": ORANGE, "coarse": RED, "mixed": PURPLE}
NAMED = {
    "id": "in-distribution",
    "fine": "fine OOD (held-out classes)",
    "coarse": "coarse OOD (outliers)",
}
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "lmoe-tune",
}
DPI = 130
WIDE, NARROW = (7.2, 3.6), (5.4, 3.6)
MAX_SLICES, MAX_SEEDS_ROWS, MAX_AXES = 12, 16, 8


@dataclass(frozen=True)
class Drawing:
    """A figure of the page: `png` where it could be drawn, else `missing` says why not."""

    name: str
    title: str
    caption: str
    png: bytes | None
    missing: str | None


class _NothingToDraw(Exception):
    """Says why."""


def draw_all(facts: Facts, compared: Compared) -> list[Drawing]:
    """All figures, in the order of the page."""
    answers = "; ".join(compared.lacking) or "no trial is complete yet"

    def of_networks(
        draw: Callable[[Facts, Answers, Answers | None], Figure],
    ) -> Callable[[], Figure]:
        def drawn() -> Figure:
            if compared.best is None:
                raise _NothingToDraw(answers)
            return draw(facts, compared.best, compared.baseline)

        return drawn

    metric = facts.spec.objective.metric
    plans: list[tuple[str, str, str, Callable[[], Figure]]] = [
        (
            "history", "Optimisation history",
            (f"Every trial's last {metric}, in the order of their starts, and the best so far of the "
            "complete ones that meet the constraints. Pruned trials were stopped early, so they had fewer epochs."),
            lambda: _history(facts),
        ),
        (
            "importance", "Parameter importance",
            (f"The share of the variance of {metric} that each parameter explains, by fANOVA over the complete trials. "
            "With fewer than about twenty of them it is only a hint."),
            lambda: _importance(facts),
        ),
        (
            "slices", "Slices",
            f"{metric} over each searched parameter; the others vary too. Darker is later.",
            lambda: _slices(facts),
        ),
        (
            "parallel", "Parallel coordinates",
            (f"A line per complete trial over the parameters of its method (at most the {MAX_AXES} that matter most), "
            f"coloured by {metric}; the best one is drawn bold. An axis has the same ends for all methods."),
            lambda: _parallel(facts),
        ),
        (
            "tradeoff", "Accuracy against AUROC",
            ("Validation accuracy and validation AUROC of the complete trials, the constraint, and the "
            "Pareto front of the two among those that meet it. The cross is the baseline."),
            lambda: _tradeoff(facts),
        ),
        (
            "roc", "ROC curves (validation)",
            ("In-distribution is positive. Solid is the best trial, dashed the baseline that all trials start from. "
            "The search has used these images."),
            of_networks(_roc),
        ),
        (
            "roc_test", "ROC curves (sealed test)",
            "The confirmed winner (solid) and its method's defaults (dashed), a thin line per seed.",
            lambda: _roc_test(facts),
        ),
        (
            "scores", "Scores",
            ("Distributions of the score of the best trial and of the baseline over validation images. The dotted line "
            "keeps 95% of the in-distribution images."),
            of_networks(_scores),
        ),
        (
            "scores_test", "Scores (sealed test)",
            ("Distributions of the score of the confirmed winner's first seed over the sealed test images. The dotted "
            "line keeps 95% of the in-distribution ones."),
            lambda: _scores_test(facts),
        ),
        (
            "pca", "Logits",
            ("The first two principal components of the logits of in-distribution images, outliers and mixtures of "
            "the two (0.2 < λ < 0.8), each network with its own axes."),
            of_networks(_pca),
        ),
        (
            "lambda", "Confidence along λ",
            ("The largest probability for λ · in-distribution image + (1 − λ) · outlier: mean and 10th to 90th "
            "percentile over pairs of validation images. The method's promise is a smooth decay from right to left; "
            "the dotted line is its target, λ + (1 − λ) / K."),
            of_networks(_lambda),
        ),
        (
            "seeds", "Seed spread",
            "Test AUROC of every fresh training of each row of the confirmation; the bar is the mean.",
            lambda: _seeds(facts),
        ),
    ]  # fmt: skip
    return [_drawing(*plan) for plan in plans]


def _drawing(name: str, title: str, caption: str, draw: Callable[[], Figure]) -> Drawing:
    try:
        with mpl.rc_context(STYLE):
            figure = draw()
            buffer = io.BytesIO()
            figure.savefig(
                buffer,
                format="png",
                dpi=DPI,
                metadata={"Software": None},
                pil_kwargs={"compress_level": 3},  # as small as 6, in half the time
            )
    except _NothingToDraw as why:
        return Drawing(name, title, caption, None, str(why))
    return Drawing(name, title, caption, buffer.getvalue(), None)


# The search


def _history(facts: Facts) -> Figure:
    figure, axes = _axes(WIDE)
    shown = {
        "complete": ("o", BLUE, "complete"),
        "pruned": ("o", "none", "pruned"),
        "running": ("^", GREEN, "running"),
    }
    for state, (marker, face, label) in shown.items():
        some = [trial for trial in facts.trials if trial.state == state and trial.value is not None]
        if some:
            axes.scatter(
                [trial.number for trial in some],
                [float(trial.value or 0.0) for trial in some],
                marker=marker,
                facecolors=face,
                edgecolors=GREY if face == "none" else face,
                s=26,
                label=label,
                zorder=3,
            )
    valued = [trial for trial in facts.trials if trial.value is not None]
    failed = [trial.number for trial in facts.trials if trial.state == "failed"]
    if not valued:
        raise _NothingToDraw("no trial has a result yet")
    if failed:
        floor = min(float(trial.value or 0.0) for trial in valued)
        axes.scatter(
            failed,
            [floor] * len(failed),
            marker="x",
            color=RED,
            label="failed (no value)",
            zorder=3,
        )
    places, values = _best_so_far(facts)
    if places:
        axes.step(places, values, where="post", color=ORANGE, linewidth=1.6, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(facts.spec.objective.metric)
    _whole_numbers(axes, max(trial.number for trial in facts.trials))
    axes.legend(loc="best", ncols=2)
    return figure


def _best_so_far(facts: Facts) -> tuple[list[int], list[float]]:
    if facts.spec.objective.direction == "maximize":
        sign = 1
    else:
        sign = -1
    places: list[int] = []
    values: list[float] = []
    best: float | None = None
    for trial in facts.trials:
        value = trial.value
        if trial.state == "complete" and trial.violation == 0 and value is not None:
            if best is None or sign * value > sign * best:
                best = value
            else:
                best = best
        if best is not None:
            places.append(trial.number)
            values.append(best)
    return places, values


def _importance(facts: Facts) -> Figure:
    if not facts.importances:
        raise _NothingToDraw("too few complete trials differ")
    names = list(facts.importances)[::-1]
    figure, axes = _axes((NARROW[0], 1.0 + 0.34 * len(names)))
    shares = [facts.importances[name] for name in names]
    axes.barh(names, shares, color=BLUE, height=0.6)
    for place, share in enumerate(shares):
        axes.text(share + 0.01, place, f"{share:.2f}", va="center")
    axes.set_xlim(0, max(1.0, max(shares) + 0.1))
    axes.set_xlabel("share of the variance explained")
    axes.grid(axis="y", visible=False)
    return figure


def _slices(facts: Facts) -> Figure:
    names = facts.searched[:MAX_SLICES]
    valued = [trial for trial in facts.trials if trial.value is not None]
    if not names or not valued:
        raise _NothingToDraw("no trial has a result yet")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.5 * columns + 0.9, 2.5 * rows))
    grid: Any = figure.subplots(rows, columns, sharey=True, squeeze=False)
    last = max(trial.number for trial in facts.trials)
    points = None
    for place, (axes, name) in enumerate(zip(grid.flat, names, strict=False)):
        some = [trial for trial in valued if name in trial.params]
        xs, ticks = _positions(facts, name, [trial.params[name] for trial in some])
        for state, faces in (("complete", True), ("pruned", False), ("running", False)):
            chosen = [number for number, trial in enumerate(some) if trial.state == state]
            if not chosen:
                continue
            found = axes.scatter(
                [xs[number] for number in chosen],
                [some[number].value for number in chosen],
                c=[some[number].number for number in chosen],
                cmap="Blues",
                vmin=-0.5 * last - 1,
                vmax=max(1, last),
                s=26 if faces else 14,
                marker="o" if faces else "x",
            )
            points = found if faces or points is None else points
        if ticks is not None:
            axes.set_xticks(range(len(ticks)), ticks, rotation=20, ha="right")
            axes.set_xlim(-0.5, len(ticks) - 0.5)
        elif _is_log(facts, name):
            axes.set_xscale("log")
            is_wide = max(xs, default=1.0) > 300 * min(xs, default=1.0)
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 3.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(name)
        if place % columns == 0:
            axes.set_ylabel(facts.spec.objective.metric)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=BLUE, label="complete"),
        Line2D([], [], marker="x", linestyle="", color=BLUE, label="pruned or running"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure


def _parallel(facts: Facts) -> Figure:
    """A panel for each method that was tried, as a trial has the parameters of its method only."""
    complete = [
        trial for trial in facts.trials if trial.state == "complete" and trial.value is not None
    ]
    panels: dict[Any, list[TrialRecord]] = {}
    for trial in complete:
        panels.setdefault(trial.params.get(METHOD), []).append(trial)
    names = {method: _shared(facts, trials) for method, trials in panels.items()}
    panels = {method: trials for method, trials in panels.items() if names[method]}
    if len(complete) < 2 or not panels:
        raise _NothingToDraw("it takes two complete trials with the same parameters")

    most = max(len(names[method]) for method in panels)
    figure = Figure(figsize=(max(WIDE[0], 1.25 * (most + 1)), 0.5 + 2.8 * len(panels)))
    grid: Any = figure.subplots(len(panels), squeeze=False)
    metric = facts.spec.objective.metric
    of_metric = _Scale([trial.value for trial in complete])
    for axes, (method, trials) in zip(grid.flat, panels.items(), strict=True):
        scales = {name: _scale_of(facts, name, complete) for name in names[method]}
        _draw_lines(axes, trials, [*scales.values(), of_metric], names[method], facts.best)
        labels = [name.removeprefix(f"{method}.") for name in (*names[method], metric)]
        axes.set_xticks(range(len(labels)), map(_on_two_lines, labels))
        if method is not None:
            axes.set_title(f"{method}, {counted(len(trials), 'trial')}", loc="left", fontsize=10)
    return figure


def _shared(facts: Facts, trials: Sequence[TrialRecord]) -> list[str]:
    """The searched parameters that all of these trials have; of more than can be read beside each
    other those that matter most.
    """
    names = [name for name in facts.searched if all(name in trial.params for trial in trials)]
    names = [name for name in names if name != METHOD]
    kept = sorted(names, key=lambda name: facts.importances.get(name, 0.0), reverse=True)
    return [name for name in names if name in kept[:MAX_AXES]]


def _draw_lines(
    axes: Axes,
    trials: Sequence[TrialRecord],
    scales: Sequence[_Scale],
    names: Sequence[str],
    best: TrialRecord | None,
) -> None:
    """A line for each trial over these parameters and the metric, which has the last scale."""
    for trial in trials:
        values = [*(trial.params[name] for name in names), trial.value]
        heights = [scale.place(value) for scale, value in zip(scales, values, strict=True)]
        colour = mpl.colormaps["viridis"](0.9 * heights[-1])
        if best is not None and trial.number == best.number:
            axes.plot(heights, color=colour, linewidth=2.6, zorder=3)
        else:
            axes.plot(heights, color=colour, linewidth=1.0, alpha=0.7)

    paper = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6}
    for place, scale in enumerate(scales):
        axes.axvline(place, color=GREY, linewidth=0.8, zorder=1)
        for height, text in scale.marks().items():
            axes.text(place + 0.04, height, text, fontsize=8, va="center", bbox=paper, zorder=4)
    axes.set(xlim=(-0.1, len(names) + 0.5), ylim=(-0.08, 1.08), yticks=[])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _on_two_lines(name: str) -> str:
    """A long name, with a break after one of its underscores, so that its neighbours have room."""
    middle = name.find("_", len(name) // 2 - 2) + 1
    if len(name) <= 14 or not middle:
        return name

    return f"{name[:middle]}\n{name[middle:]}"


def _scale_of(facts: Facts, name: str, trials: Sequence[TrialRecord]) -> _Scale:
    values = [trial.params[name] for trial in trials if name in trial.params]
    return _Scale(values, _positions(facts, name, values)[1], log=_is_log(facts, name))


class _Scale:
    """The heights of values between 0 and 1, and what is written there."""

    def __init__(
        self, values: Sequence[Any], choices: list[str] | None = None, *, log: bool = False
    ) -> None:
        self._choices, self._log = choices, log
        self._ends: Sequence[Any] = choices or (min(values), max(values))

    def place(self, value: Any) -> float:
        low, high = self._scaled(self._ends[0]), self._scaled(self._ends[-1])
        if high > low:
            return (self._scaled(value) - low) / (high - low)

        return 0.5

    def marks(self) -> dict[float, str]:
        if self._choices is not None:
            return {self.place(choice): choice for choice in self._choices}

        return {self.place(end): f"{end:.4g}" for end in self._ends}

    def _scaled(self, value: Any) -> float:
        if self._choices is not None:
            return float(self._choices.index(str(value)))
        if self._log:
            return math.log(value)

        return float(value)


def _tradeoff(facts: Facts) -> Figure:
    first, second = "val_accuracy", facts.spec.objective.metric
    if second == first:
        second = "val_auroc"
    complete = [
        trial
        for trial in facts.trials
        if trial.state == "complete" and {first, second} <= set(trial.metrics)
    ]
    if not complete:
        raise _NothingToDraw("no complete trial has both")
    figure, axes = _axes(NARROW)
    for meets, face, label in ((True, BLUE, "meets the constraints"), (False, "none", "does not")):
        some = [trial for trial in complete if (trial.violation == 0) == meets]
        if some:
            axes.scatter(
                [trial.metrics[first] for trial in some],
                [trial.metrics[second] for trial in some],
                facecolors=face,
                edgecolors=BLUE,
                s=28,
                label=label,
                zorder=3,
            )
    front = _front([trial for trial in complete if trial.violation == 0], first, second)
    if front:
        axes.plot(
            [trial.metrics[first] for trial in front],
            [trial.metrics[second] for trial in front],
            color=ORANGE,
            linewidth=1.5,
            marker="o",
            markerfacecolor="none",
            markersize=9,
            label="Pareto front",
        )
    if first in facts.baseline and second in facts.baseline:
        axes.scatter(
            [facts.baseline[first]],
            [facts.baseline[second]],
            marker="+",
            s=80,
            color="black",
            label="baseline",
        )
    bound = facts.spec.objective.constraints.get(first)
    if bound is not None and bound.min is not None:
        least = bound.min.value(facts.baseline.get(first, float("nan")))
        if np.isfinite(least):
            axes.axvline(least, color=RED, linestyle=":", label=f"constraint: at least {least:.4g}")
    if facts.best is not None and facts.best.state == "complete" and first in facts.best.metrics:
        axes.annotate(
            f"trial {facts.best.number}",
            (facts.best.metrics[first], facts.best.metrics[second]),
            xytext=(6, 6),
            textcoords="offset points",
        )
    axes.set_xlabel(first)
    axes.set_ylabel(second)
    axes.legend(loc="best", fontsize=8)
    return figure


def _front(trials: Sequence[TrialRecord], first: str, second: str) -> list[TrialRecord]:
    """Those that no other betters in both, by the first."""
    pairs = [(trial.metrics[first], trial.metrics[second], trial) for trial in trials]
    pairs.sort(key=lambda pair: pair[:2], reverse=True)
    found: list[TrialRecord] = []
    kept = (math.inf, -math.inf)
    for a, b, trial in pairs:
        if b > kept[1] or (a, b) == kept:
            kept = (a, b)
            found.append(trial)
    return found[::-1]


# The networks


def _roc(facts: Facts, best: Answers, baseline: Answers | None) -> Figure:
    figure, axes = _axes((4.6, 4.2))
    sides = [(best, "-", _best_name(facts))]
    if baseline is not None:
        sides.append((baseline, "--", "baseline"))
    for answers, line, who in sides:
        for name in ("fine", "coarse"):
            if name in answers.scores:
                fpr, tpr, area = _curve(answers.scores["id"], answers.scores[name])
                axes.plot(
                    fpr,
                    tpr,
                    line,
                    color=OF_SET[name],
                    linewidth=1.6,
                    label=f"{who}, {name}: {area:.4f}",
                )
    _as_roc(axes)
    return figure


def _roc_test(facts: Facts) -> Figure:
    found = _confirmed(facts)
    document = found.document
    rows = [(document["winner"]["name"], "-"), (document["compared_with"], "--")]
    figure, axes = _axes((4.6, 4.2))
    drawn = False
    for row, line in rows:
        areas: dict[str, list[float]] = {}
        for job in found.jobs(row):
            scores = found.scores(job)
            for name in (name for name in scores if name != "id" and len(scores[name])):
                kind = name.partition("_")[0]
                fpr, tpr, area = _curve(scores["id"], scores[name])
                label = None
                axes.plot(
                    fpr,
                    tpr,
                    line,
                    color=OF_SET.get(kind, GREY),
                    linewidth=0.9,
                    alpha=0.7,
                    label=label,
                )
                areas.setdefault(kind, []).append(area)
                drawn = True
        for kind, found_areas in areas.items():
            text = f"{row}, {kind}: mean {np.mean(found_areas):.4f}"
            axes.plot([], [], line, color=OF_SET.get(kind, GREY), label=text)
    if not drawn:
        raise _NothingToDraw("the test scores are not kept any more")
    _as_roc(axes)
    return figure


def _as_roc(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    axes.set_xlabel("false positives (OOD taken as in-distribution)")
    axes.set_ylabel("true positives")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.legend(loc="lower right", fontsize=7.5, title="AUROC", title_fontsize=7.5)


def _curve(known: Floats, unknown: Floats) -> tuple[Floats, Floats, float]:
    """False- and true-positive rates at every threshold, from the strictest on, and the area below,
    ties halved.
    """
    thresholds = np.unique(np.concatenate([known, unknown]))[::-1]
    tpr = 1 - np.searchsorted(np.sort(known), thresholds, side="left") / len(known)
    fpr = 1 - np.searchsorted(np.sort(unknown), thresholds, side="left") / len(unknown)
    fpr, tpr = np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])
    return fpr, tpr, float(np.trapezoid(tpr, fpr))


def _scores(facts: Facts, best: Answers, baseline: Answers | None) -> Figure:
    sides = [(_best_name(facts), best.scores)] + (
        [("baseline", baseline.scores)] if baseline is not None else []
    )
    return _histograms(facts, sides)


def _scores_test(facts: Facts) -> Figure:
    found = _confirmed(facts)
    winner = found.document["winner"]
    job = next((job for job in found.jobs(winner["name"]) if job["job"] == winner["job"]), None)
    scores = found.scores(job) if job is not None else {}
    if not scores:
        raise _NothingToDraw("the test scores are not kept any more")
    # `coarse` is all coarse sets together, where a confirmation says so: the single ones would be there twice
    sets = {name: values for name, values in scores.items() if len(values)}
    return _histograms(facts, [(f"{winner['name']}, seed {winner['seed']}", sets)])


def _histograms(facts: Facts, sides: Sequence[tuple[str, dict[str, Floats]]]) -> Figure:
    figure = Figure(figsize=(max(5.6, 3.8 * len(sides)), 3.6))
    grid: Any = figure.subplots(1, len(sides), squeeze=False)
    for axes, (title, scores) in zip(grid.flat, sides, strict=True):
        every = np.concatenate(list(scores.values()))
        bins = np.linspace(float(every.min()), float(every.max()) + 1e-12, 41)
        for name, values in scores.items():
            kind = name.partition("_")[0]
            if name in NAMED:
                label = NAMED[name]
            else:
                label = name.replace("_", ": ", 1)
            weights = np.full(len(values), 1 / len(values))
            axes.hist(
                values,
                bins,
                weights=weights,
                histtype="stepfilled",
                alpha=0.3,
                color=OF_SET.get(kind, GREY),
            )
            axes.hist(
                values,
                bins,
                weights=weights,
                histtype="step",
                color=OF_SET.get(kind, GREY),
                label=label,
            )
        kept = np.sort(scores["id"])[::-1][max(0, int(np.ceil(0.95 * len(scores["id"]))) - 1)]
        axes.axvline(float(kept), color="black", linestyle=":", linewidth=1)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(f"{facts.spec.objective.score} score")
        axes.set_yscale("log")
    grid.flat[0].set_ylabel("share of images")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3 if len(sides) > 1 else 2, fontsize=7.5
    )
    return figure


def _pca(facts: Facts, best: Answers, baseline: Answers | None) -> Figure:
    sides = [(_best_name(facts), best)] + ([("baseline", baseline)] if baseline is not None else [])
    figure = Figure(figsize=(3.9 * len(sides), 3.8))
    grid: Any = figure.subplots(1, len(sides), squeeze=False)
    for axes, (title, answers) in zip(grid.flat, sides, strict=True):
        sets = {name: rows for name, rows in answers.logits.items() if len(rows)}
        every = np.concatenate(list(sets.values()))
        centred = every - every.mean(axis=0)
        _, singular, directions = np.linalg.svd(centred, full_matrices=False)
        shares = singular**2 / max(1e-300, float((singular**2).sum()))
        plane = centred @ directions[:2].T
        start = 0
        for name, rows in sets.items():
            some = plane[start : start + len(rows)]
            start += len(rows)
            label = {"id": "in-distribution", "coarse": "outliers", "mixed": "mixtures"}[name]
            axes.scatter(
                some[:, 0],
                some[:, -1],
                s=7,
                alpha=0.5,
                color=OF_SET[name],
                label=label,
                linewidths=0,
            )
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(f"component 1 ({shares[0]:.0%})")
        axes.set_ylabel(f"component 2 ({shares[min(1, len(shares) - 1)]:.0%})")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, markerscale=2)
    return figure


def _lambda(facts: Facts, best: Answers, baseline: Answers | None) -> Figure:
    if not best.confidence.size:
        raise _NothingToDraw("the spec has no outliers to mix with")
    figure, axes = _axes(NARROW)
    sides = [(_best_name(facts), best, BLUE)] + (
        [("baseline", baseline, ORANGE)] if baseline is not None else []
    )
    for who, answers, colour in sides:
        low, high = np.percentile(answers.confidence, [10, 90], axis=1)
        axes.fill_between(LAMBDAS, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(LAMBDAS, answers.confidence.mean(axis=1), color=colour, linewidth=1.8, label=who)
    target = LAMBDAS + (1 - LAMBDAS) / best.num_classes
    axes.plot(
        LAMBDAS, target, color="black", linestyle=":", linewidth=1, label="target of the mixture"
    )
    axes.set_xlabel("λ: 0 is the outlier, 1 the in-distribution image")
    axes.set_ylabel("confidence")
    axes.set_ylim(0, 1.02)
    axes.legend(loc="best")
    return figure


def _seeds(facts: Facts) -> Figure:
    found = _confirmed(facts)
    metric = found.document["metric"]
    rows = [row["name"] for row in found.document["rows"] if found.jobs(row["name"])][
        :MAX_SEEDS_ROWS
    ]
    figure, axes = _axes((WIDE[0], 0.9 + 0.36 * len(rows)))
    for place, row in enumerate(rows[::-1]):
        values = [job["metrics"][metric] for job in found.jobs(row) if metric in job["metrics"]]
        if not values:
            continue
        if row == found.document["winner"]["name"]:
            colour = BLUE
        else:
            colour = GREY
        axes.scatter(values, [place] * len(values), s=22, color=colour, alpha=0.75, zorder=3)
        axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
    axes.set_yticks(range(len(rows)), rows[::-1])
    axes.set_xlabel(metric)
    return figure


# What they share


def _axes(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size)
    return figure, figure.subplots()


def _best_name(facts: Facts) -> str:
    if facts.best:
        return f"trial {facts.best.number}"

    return "best trial"


def _confirmed(facts: Facts) -> Confirmation:
    if facts.confirmation is None:
        how = advice.confirm(str(facts.summary["sweep"]), home=facts.home)
        raise _NothingToDraw(f"the sweep is not confirmed; to do that: {how}")
    return facts.confirmation


def _is_log(facts: Facts, name: str) -> bool:
    searched = facts.spec.space.get(name)
    return searched is not None and searched.log


def _positions(
    facts: Facts, name: str, values: Sequence[Any]
) -> tuple[list[Any], list[str] | None]:
    """The positions of values on an axis; with tick labels if the values are not numbers."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return list(values), None
    searched = facts.spec.space.get(name)
    if searched is not None:
        known = [str(choice) for choice in (searched.choices or ())]
    else:
        known = []
    choices = known or list(dict.fromkeys(map(str, values)))
    return [choices.index(str(value)) for value in values], choices


def _whole_numbers(axes: Axes, last: int) -> None:
    step = max(1, -(-(last + 1) // 16))
    axes.set_xticks(range(0, last + 1, step))
