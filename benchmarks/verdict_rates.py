"""How often a verdict is wrong, how often it finds something, and how often its intervals hold: by simulation.

    python benchmarks/verdict_rates.py [--repetitions 20000] [--table NAME …]

Prints the tables of docs/evaluation.md. NumPy and SciPy only: the rules are written here a second time, from the
page and not from the package, for many repetitions at once; `tests/test_statistics.py` compares the two.

A training's value is  configuration + test images of the split + split + seed,  all differences in units of one
seed's standard deviation of a pair's difference. *Better* is a verdict of real or small.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
LOOKS = (5, 10, 20)
"""Seeds at each look at a question."""


@dataclass(frozen=True)
class Noise:
    """What differences of pairs vary by, in standard deviations of one seed's."""

    images: float = 0.0
    """Of a split's mean over samples of its test images: estimated by the bootstrap, here known."""
    splits: float = 0.0
    """Between splits, of what no resampling of test images shows."""
    tails: float | None = None
    """Degrees of freedom of a t distribution of the seeds' noise, scaled to variance 1; None: normal."""
    collapse: float = 0.0
    """How often a training of the winner falls by `fall`."""
    fall: float = 0.0

    def __str__(self) -> str:
        parts = [f"images {self.images:g}"] if self.images else []
        parts += [f"splits {self.splits:g}"] if self.splits else []
        parts += [f"t with {self.tails:g} df"] if self.tails else []
        return ", ".join(parts) or "normal"


def level_of(question: int, look: int = 1) -> float:
    """One-sided."""
    return 0.05 / (question * (question + 1)) * 0.8 * 0.2 ** (look - 1)


def draw(
    rng: np.random.Generator, shape: tuple[int, int, int], noise: Noise, effect: float = 0.0
) -> Floats:
    """Differences (repetitions, splits, seeds)."""
    repetitions, splits, _ = shape
    if noise.tails is None:
        seeds = rng.normal(size=shape)
    else:
        seeds = rng.standard_t(noise.tails, size=shape)
        seeds /= np.sqrt(noise.tails / (noise.tails - 2)) if noise.tails > 2 else 1.0
    shared = rng.normal(0, np.hypot(noise.images, noise.splits), (repetitions, splits, 1))
    fallen = rng.random(shape) < noise.collapse

    return effect + seeds + shared - noise.fall * fallen


def half_width(differences: Floats, noise: Noise, level: float) -> Floats:
    """Of the interval of each repetition's mean, at a two-sided level."""
    repetitions, splits, seeds = differences.shape
    count = splits * seeds
    half = np.zeros(repetitions)
    if count > splits:
        within = differences.var(axis=2, ddof=1).mean(axis=1) / count
        of_seeds = stdtrit(count - splits, 1 - level / 2) ** 2 * within
        half = np.sqrt(of_seeds + ndtri(1 - level / 2) ** 2 * noise.images**2 / splits)
    if splits > 1:
        between = differences.mean(axis=2).std(axis=1, ddof=1) / np.sqrt(splits)
        half = np.maximum(half, stdtrit(splits - 1, 1 - level / 2) * between)

    return half


def is_better(differences: Floats, noise: Noise, level: float) -> Bools:
    """Real or small, at a one-sided level."""
    means: Floats = differences.mean(axis=(1, 2))
    return means > half_width(differences, noise, 2 * level)


def is_real(differences: Floats, noise: Noise, level: float) -> Bools:
    """Better, and by more than the noise floor."""
    repetitions = len(differences)
    spread = differences.reshape(repetitions, -1).var(axis=1, ddof=1)
    floor: Floats = np.sqrt(spread + noise.images**2)
    means: Floats = differences.mean(axis=(1, 2))
    return is_better(differences, noise, level) & (means > floor)


# --- tables ---


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}\n")
    print(f"| {' | '.join(columns)} |")
    print(f"|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def share(found: npt.NDArray[np.bool_]) -> str:
    return share_of(found, 3)


def share_of(found: npt.NDArray[np.bool_], digits: int) -> str:
    return f"{found.mean():.{digits}f}".lstrip("0") if found.mean() < 1 else "1"


def one_question(rng: np.random.Generator, repetitions: int) -> None:
    """Equals, asked once."""
    cases = [
        (1, 2, Noise()), (1, 3, Noise()), (1, 5, Noise()), (1, 10, Noise()),
        (1, 2, Noise(images=0.5)), (1, 5, Noise(images=0.5)), (1, 5, Noise(images=2.0)),
        (1, 5, Noise(tails=3.0)),
        (2, 5, Noise()), (2, 5, Noise(splits=1.0)), (3, 5, Noise(splits=1.0)),
        (3, 3, Noise(images=1.0, splits=1.0)), (5, 1, Noise(splits=1.0)),
    ]  # fmt: skip
    rows = []
    for splits, seeds, noise in cases:
        found = draw(rng, (repetitions, splits, seeds), noise)
        row = [str(splits), str(seeds), str(noise)]
        row.append(share(is_better(found, noise, level_of(1))))
        row.append(share(is_real(found, noise, level_of(1))))
        rows.append(row)
    title = "Equals, the first question of a home, asked once (level .02 of its .025)"
    table(title, ("splits", "seeds", "noise", "better", "real"), rows)


def asked_until(
    rng: np.random.Generator, repetitions: int, noise: Noise, next_count: Callable[[float], int]
) -> npt.NDArray[np.bool_]:
    """One question, looked at with growing numbers of seeds until it suits, or forty have been trained.

    `next_count` says from the share of the needed difference that was reached how many seeds to add: whoever
    asks may look before deciding.
    """
    found = np.zeros(repetitions, dtype=bool)
    everything = draw(rng, (repetitions, 1, 40), noise)
    for place in range(repetitions):
        count, look = 3, 1
        while count <= 40 and not found[place]:
            some = everything[place : place + 1, :, :count]
            level = level_of(1, look)
            found[place] = is_better(some, noise, level)[0]
            reached = some.mean() / half_width(some, noise, 2 * level)[0]
            count, look = count + next_count(reached), look + 1

    return found


def repeated_asking(rng: np.random.Generator, repetitions: int) -> None:
    """Equals, asked again and again: the share of homes in which anything was ever called better."""
    few = max(200, repetitions // 10)
    rows = []
    for noise in (Noise(), Noise(images=0.5), Noise(tails=3.0)):
        one_more = asked_until(rng, few, noise, lambda reached: 1)
        rows.append(["one question, a seed more each time", str(noise), share(one_more)])
        near = asked_until(rng, few, noise, lambda reached: 1 if reached > 0.7 else 10)
        rows.append(["one question, more seeds where it was close", str(noise), share(near)])

        ever = np.zeros(repetitions, dtype=bool)
        for question in range(1, 31):
            found = draw(rng, (repetitions, 1, 5), noise)
            ever |= is_better(found, noise, level_of(question))
        rows.append(["thirty winners, five seeds each", str(noise), share(ever)])

        # The same test images: what they favour, they favour in every sweep.
        shared = rng.normal(0, noise.images, (repetitions, 1, 1))
        of_seeds, ever = Noise(tails=noise.tails), np.zeros(repetitions, dtype=bool)
        for question in range(1, 31):
            found = shared + draw(rng, (repetitions, 1, 5), of_seeds)
            ever |= is_better(found, noise, level_of(question))
        rows.append(["thirty sweeps on the same test images", str(noise), share(ever)])

        ever, splits = np.zeros(repetitions, dtype=bool), draw(rng, (repetitions, 8, 5), noise)
        for question in range(1, 9):
            found = splits[:, :question]
            ever |= is_better(found, noise, level_of(question))
        rows.append(["one split more each time, up to eight", str(noise), share(ever)])

        # Two more looks at each of five questions, the seeds of the first kept.
        ever = np.zeros(repetitions, dtype=bool)
        for question in range(1, 6):
            found = draw(rng, (repetitions, 1, 20), noise)
            for look, count in enumerate(LOOKS, start=1):
                ever |= is_better(found[:, :, :count], noise, level_of(question, look))
        rows.append(["five winners, looked at with 5, 10 and 20 seeds", str(noise), share(ever)])
    title = (
        "Equals, asked until it suits: homes in which anything was ever called better (at most .05)"
    )
    table(title, ("what was asked", "noise", "better"), rows)


def sharing(rng: np.random.Generator, repetitions: int) -> None:
    """What share of its level the first look at question 1 takes, when up to three are made."""
    rules = {
        f"{share:g} of what is left": [
            0.025 * share * max(1 - share, 1e-6) ** look for look in range(len(LOOKS))
        ]
        for share in (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
    }
    rules["a look counts as a question"] = [level_of(number) / 0.8 for number in (1, 2, 3)]
    rules["each look has all of it"] = [0.025] * len(LOOKS)
    rows = []
    for name, levels in rules.items():
        row = [name]
        for effect in (0.0, 1.0, 1.5, 2.0):
            found = draw(rng, (repetitions, 1, LOOKS[-1]), Noise(), effect)
            ever, shares = np.zeros(repetitions, dtype=bool), []
            for count, level in zip(LOOKS, levels, strict=True):
                ever |= is_better(found[:, :, :count], Noise(), level)
                shares.append(share_of(ever, 4 if effect == 0 else 3))
            row.append(" ".join(shares))
        rows.append(row)
    title = "Better after a look at 5, at 10 and at 20 seeds: equals, and an effect"
    table(title, ("a look takes", "equals", "effect 1", "1.5", "2"), rows)


def power(rng: np.random.Generator, repetitions: int) -> None:
    """An effect that is there."""
    rows = []
    for seeds in (3, 5, 10, 20):
        for effect in (0.5, 1.0, 1.5, 2.0, 3.0):
            row = [str(seeds), f"{effect:g}"]
            for noise in (Noise(), Noise(images=0.5), Noise(images=1.0)):
                found = draw(rng, (repetitions, 1, seeds), noise, effect)
                row.append(share(is_better(found, noise, level_of(1))))
                row.append(share(is_real(found, noise, level_of(1))))
            rows.append(row)
    columns = ("seeds", "effect", "better", "real", "images .5: better", "real")
    title = "An effect, in standard deviations of one seed's difference; the first look at the first question"
    table(title, (*columns, "images 1: better", "real"), rows)


def later_questions(rng: np.random.Generator, repetitions: int) -> None:
    """What asking costs."""
    rows = []
    for question in (1, 2, 3, 5, 10):
        row = [str(question), f"{level_of(question):.5f}"]
        for seeds in (5, 10, 20):
            found = draw(rng, (repetitions, 1, seeds), Noise(), 2.0)
            row.append(share(is_better(found, Noise(), level_of(question))))
        rows.append(row)
    columns = ("question", "level of its first look", "5 seeds", "10 seeds", "20 seeds")
    table("An effect of 2, found at a later question of a home", columns, rows)


def correlation(rng: np.random.Generator, repetitions: int) -> None:
    """What pairs that correlate are worth; the effect in standard deviations of one configuration's seed."""
    rows = []
    for reached in (0.0, 0.5, 0.9):
        row = [f"{reached:g}"]
        for seeds in (3, 5, 10):
            effect = 1.0 / np.sqrt(2 * (1 - reached))
            found = draw(rng, (repetitions, 1, seeds), Noise(), float(effect))
            row.append(share(is_better(found, Noise(), level_of(1))))
        rows.append(row)
    columns = ("correlation", "3 seeds", "5 seeds", "10 seeds")
    table("An effect of one standard deviation of a configuration's seeds, found", columns, rows)


def collapses(rng: np.random.Generator, repetitions: int) -> None:
    """A winner that is better by a little, except when it collapses: no better on average."""
    rows = []
    for collapse in (0.02, 0.05, 0.1, 0.2):
        for effect in (1.0, 2.0, 4.0):
            noise = Noise(collapse=collapse, fall=effect / collapse)
            row = [f"{collapse:g}", f"{effect:g}", f"{noise.fall:g}"]
            for seeds in (5, 10, 20):
                found = draw(rng, (repetitions, 1, seeds), noise, effect)
                row.append(share(is_real(found, noise, level_of(1))))
            rows.append(row)
    columns = ("collapses", "better by", "falls by", "5 seeds: real", "10", "20")
    table("A winner that collapses now and then, and is no better on average", columns, rows)


def coverage(rng: np.random.Generator, repetitions: int) -> None:
    """95% intervals of means."""
    rows = []
    images = (0.0, 0.25, 0.5, 1.0, 2.0)
    for splits, seeds in ((1, 2), (1, 3), (1, 5), (1, 10), (2, 3), (3, 5), (5, 1), (5, 5)):
        row = [str(splits), str(seeds)]
        for size in images:
            worst = 1.0
            for between in (0.0,) if splits == 1 else (0.0, 0.5, 2.0):
                noise = Noise(images=size, splits=between)
                found = draw(rng, (repetitions, splits, seeds), noise)
                held = np.abs(found.mean(axis=(1, 2))) <= half_width(found, noise, 0.05)
                worst = min(worst, float(held.mean()))
            row.append(f"{worst:.3f}".lstrip("0"))
        rows.append(row)
    title = "Coverage of the 95% interval of a mean; over splits the least of three sizes of what splits differ by"
    table(title, ("splits", "seeds", *(f"images {size:g}" for size in images)), rows)


TABLES = (
    one_question, repeated_asking, sharing, power, later_questions, correlation, collapses, coverage,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [one.__name__ for one in TABLES]
    parser.add_argument("--repetitions", type=int, default=20_000)
    parser.add_argument("--table", choices=names, action="append", help="only this one")
    arguments = parser.parse_args()

    for one in TABLES:
        if not arguments.table or one.__name__ in arguments.table:
            one(np.random.default_rng(0), arguments.repetitions)


if __name__ == "__main__":
    main()
