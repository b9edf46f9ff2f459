"""How much of a difference between two configurations is noise: before and after common random numbers.

    python benchmarks/pairing.py [--seeds 6] [--processes 2] [--out FILE]

Trains the digits from one baseline, in two ways that differ in where the random numbers come from alone:

    before   one generator for the order of images, outliers and lambda, one after the other, and lambda from
             `Generator.beta`, which takes a number of draws that depends on alpha; the outliers of a step vary by one
    after    lmoe_tune.data.streams: a stream for each purpose, lambda as a quantile of common uniform numbers

Printed for both: the standard deviation of the final val_auroc over configurations that are nearly the same, with one
seed; and of pairs of configurations over the seeds: the standard deviation of the difference, and the correlation.
Nothing is timed, so a busy machine does not matter.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import machine  # noqa: E402 (after the checkout is on the path)
from lmoe_tune.data import SearchData, load_search_data  # noqa: E402
from lmoe_tune.data.batches import Batch, Epoch, PairedBatches  # noqa: E402
from lmoe_tune.data.image_source import ImageSource  # noqa: E402
from lmoe_tune.data.splits import IntArray  # noqa: E402
from lmoe_tune.data.streams import EpochDraws, Per, StepDraws  # noqa: E402
from lmoe_tune.methods.baseline import CrossEntropy  # noqa: E402
from lmoe_tune.methods.objective import Objective  # noqa: E402
from lmoe_tune.model import build_model  # noqa: E402
from lmoe_tune.spec import Dataset, DataSpec  # noqa: E402
from lmoe_tune.training import loop  # noqa: E402
from trainables import load_method  # noqa: E402

SETTINGS = loop.Settings(
    epochs=10,
    batch_size=32,
    lr=0.01,
    min_lr=1e-6,
    momentum=0.9,
    weight_decay=1e-4,
    bf16=False,
    seed=0,
)
NEAR = tuple(round(0.95 + 0.0125 * place, 4) for place in range(9))  # alphas
Config = tuple[str, tuple[tuple[str, Any], ...]]


def logit_mixoe(**params: Any) -> Config:
    return "logit_mixoe", tuple(params.items())


DEFAULT = logit_mixoe()
PAIRS: dict[str, tuple[Config, Config]] = {
    "alpha 1 and 1.05": (DEFAULT, logit_mixoe(mixing_alpha=1.05)),
    "consistency weight 1 and 1.1": (DEFAULT, logit_mixoe(consistency_weight=1.1)),
    "alpha .3 and 3": (logit_mixoe(mixing_alpha=0.3), logit_mixoe(mixing_alpha=3.0)),
    "outlier ratio 1 and .5": (DEFAULT, logit_mixoe(outlier_ratio=0.5)),
    "Logit MixOE and MixOE": (DEFAULT, ("mixoe", ())),
}


class BeforeBatches(PairedBatches):
    """The batches as they were: one generator for everything, with a state that goes on from epoch to epoch."""

    def __init__(
        self, images: ImageSource, *, batch_size: int, outlier_ratio: float, seed: int
    ) -> None:
        super().__init__(images, batch_size=batch_size, outlier_ratio=outlier_ratio, seed=seed)
        self.rng = np.random.default_rng(seed)
        self.ratio = outlier_ratio
        self.order = np.zeros(0, dtype=np.int64)

    def epoch(self, number: int) -> Iterator[Batch]:
        order = self.rng.permutation(self._images.num_train)
        seen = drawn = 0
        for step in range(self.steps_per_epoch):
            chosen = order[step * self._batch_size : (step + 1) * self._batch_size]
            seen += len(chosen)
            count = 0
            if self.ratio > 0:
                count = max(2, round(self.ratio * seen) - drawn)
                drawn += count

            one_step = Epoch(
                seed=0,
                number=number,
                images=chosen,
                outliers=self.next_outliers(count)[None, :],
                batch_size=len(chosen),
            )
            yield from self._images.batches(one_step)

    def next_outliers(self, count: int) -> IntArray:
        while len(self.order) < count:
            again = self.rng.permutation(self._images.num_outliers)
            self.order = np.concatenate([self.order, again])
        taken, self.order = self.order[:count], self.order[count:]
        return taken

    def draws(self, number: int) -> BeforeDraws:
        return BeforeDraws(self.rng)


class BeforeDraws(EpochDraws):
    """Lambda as it was drawn: from the generator that the batches use, too."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def at(self, step: int) -> StepDraws:
        return BeforeStep(self.rng)

    def seed_torch(self, step: int) -> None:
        """The digits' network draws nothing."""


class BeforeStep(StepDraws):
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def beta(
        self, a: float, b: float | None = None, *, per: Per = "sample", name: str = "lam"
    ) -> torch.Tensor:
        assert per == "batch"
        return torch.from_numpy(self.rng.beta(a, a, size=1)).float()


@cache
def digits() -> SearchData:
    outliers = Dataset(dataset="photo_china")
    return load_search_data(DataSpec(id=Dataset(dataset="digits"), outliers=outliers))


@cache
def baseline() -> dict[str, torch.Tensor]:
    """The classifier that all trials start from."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = ImageSource(digits(), torch.device("cpu"))
    model = build_model("small_cnn", digits().num_classes, 1)
    settings = dataclasses.replace(SETTINGS, lr=0.1)
    list(loop.train(model, CrossEntropy(), images, settings))
    return dict(model.state_dict())


def objective_of(config: Config) -> Objective:
    name, params = config
    method = load_method(name)
    return method.objective(method.declaration.resolve(dict(params)))


def final_auroc(job: tuple[str, Config, int]) -> float:
    """The last val_auroc of one training."""
    streams, config, seed = job
    start = baseline()
    torch.set_num_threads(1)
    batches = {"before": BeforeBatches, "after": PairedBatches}[streams]
    loop.PairedBatches = batches  # type: ignore[attr-defined]  # not a name that the loop exports
    images = ImageSource(digits(), torch.device("cpu"))
    model = build_model("small_cnn", digits().num_classes, 1)
    model.load_state_dict(start)
    settings = dataclasses.replace(SETTINGS, seed=seed)
    *_, last = loop.train(model, objective_of(config), images, settings)
    return last.metrics["val_auroc"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    seeds = range(options.seeds)
    configs = sorted({config for pair in PAIRS.values() for config in pair})
    jobs = [
        *itertools.product(("before", "after"), configs, seeds),
        *(
            (streams, logit_mixoe(mixing_alpha=a), 0)
            for streams in ("before", "after")
            for a in NEAR
        ),
    ]
    with ProcessPoolExecutor(options.processes) as pool:
        found = dict(zip(jobs, pool.map(final_auroc, jobs), strict=True))

    text = "\n".join([*machine("torch"), "", *table(found, options.seeds)]) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def table(found: dict[tuple[str, Config, int], float], num_seeds: int) -> Iterator[str]:
    yield f"final val_auroc of the digits after {SETTINGS.epochs} epochs from one baseline"
    yield ""
    yield f"{'':48}{'before':>10}{'after':>10}"
    sides = ("before", "after")
    near = [
        np.std([found[side, logit_mixoe(mixing_alpha=a), 0] for a in NEAR], ddof=1)
        for side in sides
    ]
    yield f"{f'sd over {len(NEAR)} alphas from .95 to 1.05, one seed':48}" + figures(near, ".5f")
    alone = [np.std([found[side, DEFAULT, s] for s in range(num_seeds)], ddof=1) for side in sides]
    yield f"{f'sd over {num_seeds} seeds, the defaults':48}" + figures(alone, ".5f")

    yield ""
    yield f"pairs over {num_seeds} seeds: sd of the difference"
    correlations = []
    for name, (one, other) in PAIRS.items():
        values = {
            side: np.array([[found[side, c, s] for s in range(num_seeds)] for c in (one, other)])
            for side in sides
        }
        apart = [np.std(values[side][0] - values[side][1], ddof=1) for side in sides]
        yield f"  {name:46}" + figures(apart, ".5f")
        of_pair = [np.corrcoef(values[side])[0, 1] for side in sides]
        correlations.append(f"  {name:46}" + figures(of_pair, ".2f"))
    yield "the same pairs: correlation over the seeds"
    yield from correlations


def figures(values: list[Any], form: str) -> str:
    return "".join(f"{float(value):>10{form}}" for value in values)


if __name__ == "__main__":
    main()
