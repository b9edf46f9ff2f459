"""The figures of a report, each a function from the facts to a matplotlib figure, or to why there
is none.
"""

from __future__ import annotations

import io
import itertools
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
from lmoe_tune.records import TrialRecord, in_words
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
    return [_drawing(*plan, facts, compared) for plan in FIGURES]


def _drawing(
    name: str, title: str, caption: str, draw: _Draw, facts: Facts, compared: Compared
) -> Drawing:
    caption = caption.format(metric=facts.spec.objective.metric)
    try:
        with mpl.rc_context(STYLE):
            figure = draw(facts, compared)
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


def _history(facts: Facts, compared: Compared) -> Figure:
    valued = {trial.number: trial.value for trial in facts.trials if trial.value is not None}
    if not valued:
        raise _NothingToDraw("no trial has a result yet")

    figure, axes = _axes(WIDE)
    for state, marker, face, edge in (
        ("complete", "o", BLUE, BLUE),
        ("pruned", "o", "none", GREY),
        ("running", "^", GREEN, GREEN),
    ):
        some = [trial.number for trial in facts.trials if trial.state == state]
        some = [number for number in some if number in valued]
        look: dict[str, Any] = {"marker": marker, "facecolors": face, "edgecolors": edge, "s": 26}
        if some:
            look["label"] = in_words(state, str(facts.summary["state"]))
            axes.scatter(some, [valued[number] for number in some], zorder=3, **look)
    failed = [trial.number for trial in facts.trials if trial.state == "failed"]
    if failed:
        floor = [min(valued.values())] * len(failed)
        axes.scatter(failed, floor, marker="x", color=RED, label="failed (no value)", zorder=3)

    last = max(trial.number for trial in facts.trials)
    meeting = [trial.number for trial in _complete(facts) if trial.violation == 0]
    if meeting:
        best = best_so_far([valued[number] for number in meeting], facts)
        places, values = [*meeting, last], [*best, best[-1]]
        axes.step(places, values, where="post", color=ORANGE, linewidth=1.6, label="best so far")
    axes.set(xlabel="trial", ylabel=facts.spec.objective.metric)
    axes.set_xticks(range(0, last + 1, max(1, -(-(last + 1) // 16))))
    axes.legend(loc="best", ncols=2)
    return figure


def best_so_far(values: Sequence[float], facts: Facts) -> list[float]:
    """Of each value the best one up to there."""
    better = {"maximize": max, "minimize": min}[facts.spec.objective.direction]
    return list(itertools.accumulate(values, better))


def _complete(facts: Facts) -> list[TrialRecord]:
    """The complete trials that have a value."""
    complete = [trial for trial in facts.trials if trial.state == "complete"]
    return [trial for trial in complete if trial.value is not None]


def _importance(facts: Facts, compared: Compared) -> Figure:
    if not facts.importances:
        raise _NothingToDraw("too few complete trials differ")

    names = list(facts.importances)[::-1]
    shares = [facts.importances[name] for name in names]
    figure, axes = _axes((NARROW[0], 1.0 + 0.34 * len(names)))
    bars = axes.barh(names, shares, color=BLUE, height=0.6)
    axes.bar_label(bars, fmt="{:.2f}", padding=3)
    axes.set(xlim=(0, max(1.0, max(shares) + 0.1)), xlabel="share of the variance explained")
    axes.grid(axis="y", visible=False)
    return figure


def _slices(facts: Facts, compared: Compared) -> Figure:
    names = facts.searched[:MAX_SLICES]
    valued = [trial for trial in facts.trials if trial.value is not None]
    if not names or not valued:
        raise _NothingToDraw("no trial has a result yet")

    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.5 * columns + 0.9, 2.5 * rows))
    grid: Any = figure.subplots(rows, columns, sharey=True, squeeze=False)
    last = max(trial.number for trial in facts.trials)
    colours: dict[str, Any] = {"cmap": "Blues", "vmin": -0.5 * last - 1, "vmax": max(1, last)}
    for axes, name in zip(grid.flat, names, strict=False):
        some = [trial for trial in valued if name in trial.params]
        xs, ticks = _positions(facts, name, [trial.params[name] for trial in some])
        for state, marker, size in (
            ("complete", "o", 26),
            ("pruned", "x", 14),
            ("running", "x", 14),
        ):
            chosen = [place for place, trial in enumerate(some) if trial.state == state]
            axes.scatter(
                [xs[place] for place in chosen],
                [some[place].value for place in chosen],
                c=[some[place].number for place in chosen],
                s=size,
                marker=marker,
                **colours,
            )
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
    for axes in grid[:, 0]:
        axes.set_ylabel(facts.spec.objective.metric)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=BLUE, label="complete"),
        Line2D([], [], marker="x", linestyle="", color=BLUE, label="pruned or unfinished"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure


def _parallel(facts: Facts, compared: Compared) -> Figure:
    """A panel for each method that was tried, as a trial has the parameters of its method only."""
    complete = _complete(facts)
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


def _tradeoff(facts: Facts, compared: Compared) -> Figure:
    first, second = "val_accuracy", facts.spec.objective.metric
    if second == first:
        second = "val_auroc"
    complete = [trial for trial in facts.trials if trial.state == "complete"]
    complete = [trial for trial in complete if {first, second} <= trial.metrics.keys()]
    if not complete:
        raise _NothingToDraw("no complete trial has both")

    def points(trials: Sequence[TrialRecord]) -> tuple[list[float], list[float]]:
        return [one.metrics[first] for one in trials], [one.metrics[second] for one in trials]

    figure, axes = _axes(NARROW)
    meeting = [trial for trial in complete if trial.violation == 0]
    missing = [trial for trial in complete if trial.violation != 0]
    if meeting:
        axes.scatter(*points(meeting), color=BLUE, s=28, label="meets the constraints", zorder=3)
        look: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markersize": 9}
        front = points(_front(meeting, first, second))
        axes.plot(*front, color=ORANGE, linewidth=1.5, label="Pareto front", **look)
    if missing:
        empty: dict[str, Any] = {"facecolors": "none", "edgecolors": BLUE}
        axes.scatter(*points(missing), s=28, label="does not", zorder=3, **empty)
    if {first, second} <= facts.baseline.keys():
        cross = [facts.baseline[first]], [facts.baseline[second]]
        axes.scatter(*cross, marker="+", s=80, color="black", label="baseline")
    bound = facts.spec.objective.constraints.get(first)
    if bound is not None and bound.min is not None:
        least = bound.min.value(facts.baseline.get(first, math.nan))
        if math.isfinite(least):
            axes.axvline(least, color=RED, linestyle=":", label=f"constraint: at least {least:.4g}")
    if facts.best in complete:
        place = facts.best.metrics[first], facts.best.metrics[second]
        axes.annotate(_best_name(facts), place, xytext=(6, 6), textcoords="offset points")
    axes.set(xlabel=first, ylabel=second)
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


def _sides(facts: Facts, compared: Compared) -> list[tuple[str, Answers]]:
    """The best trial and the baseline, if its weights are there, with their names."""
    if compared.best is None:
        raise _NothingToDraw("; ".join(compared.lacking))
    sides = [(_best_name(facts), compared.best)]
    if compared.baseline is not None:
        sides.append(("baseline", compared.baseline))
    return sides


def _roc(facts: Facts, compared: Compared) -> Figure:
    return _rocs([(who, [answers.scores]) for who, answers in _sides(facts, compared)])


def _roc_test(facts: Facts, compared: Compared) -> Figure:
    found = _confirmed(facts)
    rows = (found.document["winner"]["name"], found.document["compared_with"])
    runs = {row: list(map(found.scores, found.jobs(row))) for row in rows}
    return _rocs(list(runs.items()))


def _rocs(sides: Sequence[tuple[str, Sequence[dict[str, Floats]]]]) -> Figure:
    """The curves of one side or two, solid and dashed, from the scores of its runs by set."""
    figure, axes = _axes((4.6, 4.2))
    for (who, runs), line in zip(sides, ("-", "--"), strict=False):
        areas: dict[str, list[float]] = {}
        thin: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.7} if len(runs) > 1 else {}
        for scores in runs:
            for name in (name for name in scores if name != "id" and len(scores[name])):
                kind = name.partition("_")[0]
                fpr, tpr, area = _curve(scores["id"], scores[name])
                axes.plot(fpr, tpr, line, color=OF_SET.get(kind, GREY), **thin)
                areas.setdefault(kind, []).append(area)
        for kind, of_kind in areas.items():
            what = "mean " if len(of_kind) > 1 else ""
            text = f"{who}, {kind}: {what}{np.mean(of_kind):.4f}"
            axes.plot([], [], line, color=OF_SET.get(kind, GREY), label=text)
    if not axes.lines:
        raise _NothingToDraw("the test scores are no longer kept")

    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="false positives (OOD taken as in-distribution)", ylabel="true positives")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(loc="lower right", fontsize=7.5, title="AUROC", title_fontsize=7.5)
    return figure


def _curve(known: Floats, unknown: Floats) -> tuple[Floats, Floats, float]:
    """False- and true-positive rates at every threshold, from the strictest on, and the area below,
    ties halved.
    """
    thresholds = np.unique(np.concatenate([known, unknown]))[::-1]
    tpr = 1 - np.searchsorted(np.sort(known), thresholds, side="left") / len(known)
    fpr = 1 - np.searchsorted(np.sort(unknown), thresholds, side="left") / len(unknown)
    fpr, tpr = np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])
    return fpr, tpr, float(np.trapezoid(tpr, fpr))


def _scores(facts: Facts, compared: Compared) -> Figure:
    sides = _sides(facts, compared)
    return _histograms(facts, [(who, answers.scores) for who, answers in sides])


def _scores_test(facts: Facts, compared: Compared) -> Figure:
    found = _confirmed(facts)
    winner = found.document["winner"]
    jobs = [job for job in found.jobs(winner["name"]) if job["job"] == winner["job"]]
    for scores in map(found.scores, jobs):
        # `coarse` is all coarse sets together, where a confirmation says so: the single ones would be there twice
        sets = {name: values for name, values in scores.items() if len(values)}
        if sets:
            return _histograms(facts, [(f"{winner['name']}, seed {winner['seed']}", sets)])

    raise _NothingToDraw("the test scores are no longer kept")


def _histograms(facts: Facts, sides: Sequence[tuple[str, dict[str, Floats]]]) -> Figure:
    figure = Figure(figsize=(max(5.6, 3.8 * len(sides)), 3.6))
    grid: Any = figure.subplots(1, len(sides), squeeze=False)
    for axes, (title, scores) in zip(grid.flat, sides, strict=True):
        every = np.concatenate(list(scores.values()))
        bins = np.linspace(float(every.min()), float(every.max()) + 1e-12, 41)
        for name, values in scores.items():
            colour = OF_SET.get(name.partition("_")[0], GREY)
            weights = np.full(len(values), 1 / len(values))
            label = NAMED.get(name, name.replace("_", ": ", 1))
            axes.hist(values, bins, weights=weights, alpha=0.3, color=colour)
            axes.hist(values, bins, weights=weights, histtype="step", color=colour, label=label)
        kept = np.sort(scores["id"])[::-1][max(0, int(np.ceil(0.95 * len(scores["id"]))) - 1)]
        axes.axvline(float(kept), color="black", linestyle=":", linewidth=1)
        axes.set(xlabel=f"{facts.spec.objective.score} score", yscale="log")
        axes.set_title(title, fontsize=9)
    grid[0, 0].set_ylabel("share of images")
    _legend_below(figure, ncols=1 + len(sides), fontsize=7.5)
    return figure


def _pca(facts: Facts, compared: Compared) -> Figure:
    sides = _sides(facts, compared)
    figure = Figure(figsize=(3.9 * len(sides), 3.8))
    grid: Any = figure.subplots(1, len(sides), squeeze=False)
    for axes, (title, answers) in zip(grid.flat, sides, strict=True):
        sets = {name: rows for name, rows in answers.logits.items() if len(rows)}
        every = np.concatenate(list(sets.values()))
        centred = every - every.mean(axis=0)
        _, singular, directions = np.linalg.svd(centred, full_matrices=False)
        shares = singular**2 / max(1e-300, float((singular**2).sum()))
        ends = np.cumsum([len(rows) for rows in sets.values()])
        for name, some in zip(sets, np.split(centred @ directions[:2].T, ends), strict=False):
            label = {"id": "in-distribution", "coarse": "outliers", "mixed": "mixtures"}[name]
            look: dict[str, Any] = {"s": 7, "alpha": 0.5, "linewidths": 0}
            axes.scatter(some[:, 0], some[:, -1], color=OF_SET[name], label=label, **look)
        axes.set_title(title, fontsize=9)
        axes.set(
            xlabel=f"component 1 ({shares[0]:.0%})", ylabel=f"component 2 ({shares[:2][-1]:.0%})"
        )
    _legend_below(figure, ncols=3, fontsize=8, markerscale=2)
    return figure


def _legend_below(figure: Figure, **look: Any) -> None:
    """One for all panels, by what the first one shows."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", **look)


def _lambda(facts: Facts, compared: Compared) -> Figure:
    sides = _sides(facts, compared)
    best = sides[0][1]
    if not best.confidence.size:
        raise _NothingToDraw("the spec has no outliers to mix with")

    figure, axes = _axes(NARROW)
    for (who, answers), colour in zip(sides, (BLUE, ORANGE), strict=False):
        low, high = np.percentile(answers.confidence, [10, 90], axis=1)
        axes.fill_between(LAMBDAS, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(LAMBDAS, answers.confidence.mean(axis=1), color=colour, linewidth=1.8, label=who)
    target, label = LAMBDAS + (1 - LAMBDAS) / best.num_classes, "target of the mixture"
    axes.plot(LAMBDAS, target, color="black", linestyle=":", linewidth=1, label=label)
    axes.set(xlabel="λ: 0 is the outlier, 1 the in-distribution image", ylabel="confidence")
    axes.set_ylim(0, 1.02)
    axes.legend(loc="best")
    return figure


def _seeds(facts: Facts, compared: Compared) -> Figure:
    found = _confirmed(facts)
    metric, winner = found.document["metric"], found.document["winner"]["name"]
    rows = [row["name"] for row in found.document["rows"] if found.jobs(row["name"])]
    rows = rows[:MAX_SEEDS_ROWS][::-1]
    figure, axes = _axes((WIDE[0], 0.9 + 0.36 * len(rows)))
    for place, row in enumerate(rows):
        values = [job["metrics"][metric] for job in found.jobs(row) if metric in job["metrics"]]
        if not values:
            continue
        colour = {winner: BLUE}.get(row, GREY)
        axes.scatter(values, [place] * len(values), s=22, color=colour, alpha=0.75, zorder=3)
        axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel(metric)
    return figure


# What they share


def _axes(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size)
    return figure, figure.subplots()


def _best_name(facts: Facts) -> str:
    assert facts.best is not None, "no best trial"
    return f"trial {facts.best.number}"


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
    known = searched.choices if searched is not None else None
    choices = list(dict.fromkeys(map(str, known or values)))
    return [choices.index(str(value)) for value in values], choices


_Draw = Callable[[Facts, Compared], Figure]
FIGURES: tuple[tuple[str, str, str, _Draw], ...] = (
    (
        "history", "Optimisation history",
        ("Every trial's last {metric}, in the order of their starts, and the best so far of the "
        "complete ones that meet the constraints. Pruned trials were stopped early, so they had fewer epochs."),
        _history,
    ),
    (
        "importance", "Parameter importance",
        ("The share of the variance of {metric} that each parameter explains, by fANOVA over the complete trials. "
        "With fewer than about twenty of them it is only a hint."),
        _importance,
    ),
    (
        "slices", "Slices",
        "{metric} over each searched parameter; the others vary too. Darker is later.",
        _slices,
    ),
    (
        "parallel", "Parallel coordinates",
        (f"A line per complete trial over the parameters of its method (at most the {MAX_AXES} that matter most), "
        "coloured by {metric}; the best one is drawn bold. An axis has the same ends for all methods."),
        _parallel,
    ),
    (
        "tradeoff", "Accuracy against AUROC",
        ("Validation accuracy and validation AUROC of the complete trials, the constraint, and the "
        "Pareto front of the two among those that meet it. The cross is the baseline."),
        _tradeoff,
    ),
    (
        "roc", "ROC curves (validation)",
        ("In-distribution is positive. Solid is the best trial, dashed the baseline that all trials start from. "
        "The search has used these images."),
        _roc,
    ),
    (
        "roc_test", "ROC curves (sealed test)",
        "The confirmed winner (solid) and its method's defaults (dashed), a thin line per seed.",
        _roc_test,
    ),
    (
        "scores", "Scores",
        ("Distributions of the score of the best trial and of the baseline over validation images. The dotted line "
        "keeps 95% of the in-distribution images."),
        _scores,
    ),
    (
        "scores_test", "Scores (sealed test)",
        ("Distributions of the score of the confirmed winner's first seed over the sealed test images. The dotted "
        "line keeps 95% of the in-distribution ones."),
        _scores_test,
    ),
    (
        "pca", "Logits",
        ("The first two principal components of the logits of in-distribution images, outliers and mixtures of "
        "the two (0.2 < λ < 0.8), each network with its own axes."),
        _pca,
    ),
    (
        "lambda", "Confidence along λ",
        ("The largest probability for λ · in-distribution image + (1 − λ) · outlier: mean and 10th to 90th "
        "percentile over pairs of validation images. The method's promise is a smooth decay from right to left; "
        "the dotted line is its target, λ + (1 − λ) / K."),
        _lambda,
    ),
    (
        "seeds", "Seed spread",
        "Test AUROC of every fresh training of each row of the confirmation; the bar is the mean.",
        _seeds,
    ),
)  # fmt: skip
"""Name, title and caption of each, and what draws it."""
