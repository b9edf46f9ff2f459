"""Which drawing of typefaces makes a demonstration that is neither too easy nor too hard? By validation images alone.

    python benchmarks/demonstration.py FOLDER [NAME ...]     # the named candidates, else all; one line of JSON each
    python benchmarks/demonstration.py FOLDER --baselines    # their baselines only: a quarter of a minute each

Wanted: a baseline whose fine AUROC on validation images is between .7 and .9, and tuned settings that keep a lead over
the defaults when both are trained again with fresh seeds. For each candidate it trains the baseline; where its fine
AUROC is in the range, a search by random points and a reseeding of the best of them and of the defaults follow. One
process, one thread, no Ray. What was interrupted goes on where it was. Nothing here reads a test image.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

import lmoe_tune as lt
from benchmarks.typefaces import TYPEFACES, patch

LOW, HIGH = 0.7, 0.9
NUM_POINTS, NUM_SEEDS, FIRST_SEED = 12, 5, 7000
SETTINGS = ("model.baseline.epochs=20", "train.threads=1", "train.precision=fp32")


@dataclass(frozen=True)
class Candidate:
    """A way to draw the typefaces.

    Attributes:
        texts: one of them is drawn on each image.
        side: of the images, pixels; the network sees all of it.
        per_class: images.
        turn: the most that a text is turned, degrees.
    """

    name: str
    texts: tuple[str, ...]
    side: int = 20
    per_class: int = 48
    turn: float = 8.0
    typefaces: tuple[str, ...] = TYPEFACES


LETTERS = tuple("abdeghknprstyRGQ")
CANDIDATES = (
    Candidate("one of 16 letters", LETTERS),
    Candidate("the letter R", ("R",)),
    Candidate("the letter g", ("g",)),
    Candidate("the letter R, upright", ("R",), turn=0.0),
    Candidate("the letter g, upright", ("g",), turn=0.0),
    Candidate("the word Rag", ("Rag",), side=24),
    Candidate("the word Rag, upright", ("Rag",), side=24, turn=0.0),
    Candidate("R, a or g, 96 images", ("R", "a", "g"), per_class=96),
)

SPEC = """\
name: demonstration
trainable: logit_mixoe
data:
  id: {{dataset: folder, root: {root}/id}}
  outliers: {{dataset: folder, root: {root}/outliers}}
  coarse_ood: [{{dataset: folder, root: {root}/coarse}}]
  resize: {side}
  crop: {side}
  num_id_classes: 13
  num_val_novel: 3
  augment: {{flip: false, random_crop: false}}
  normalise: train
model: {{arch: small_cnn, weights: none, baseline: {{epochs: 20, lr: 0.1, weight_decay: 1e-4, batch_size: 32}}}}
train: {{epochs: 10, batch_size: 32, lr: 0.001, weight_decay: 1e-4}}
space:
  mixing_alpha: {{low: 0.1, high: 10, log: true}}
  mix_weight: {{low: 0.5, high: 10, log: true}}
  consistency_weight: {{low: 0.01, high: 10, log: true}}
  outlier_ratio: {{low: 0.25, high: 1}}
  lr: {{low: 0.0003, high: 0.01, log: true}}
resources: {{gpu: 0, cpu: 1}}
"""


def make(candidate: Candidate, root: Path) -> Path:
    """Write the images of a candidate and its spec, whose path is returned."""
    rng = np.random.default_rng(0)
    for typeface in candidate.typefaces:
        folder = root / "id" / typeface
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(candidate.per_class):
            drawn(candidate, typeface, rng).save(folder / f"{number:03d}.png")

    for name, photograph, count in (("outliers", "china.jpg", 500), ("coarse", "flower.jpg", 125)):
        folder = root / name / "patches"
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(load_sample_image(photograph))
        for number in range(count):
            patch(image, rng).resize((candidate.side, candidate.side)).save(
                folder / f"{number:03d}.png"
            )

    path = root / "demonstration.yaml"
    path.write_text(SPEC.format(root=root, side=candidate.side), encoding="utf-8")
    return path


def drawn(candidate: Candidate, typeface: str, rng: np.random.Generator) -> Image.Image:
    """A text, drawn at four times its size, turned a little and made small; colours and place vary."""
    large = 4 * candidate.side
    text = candidate.texts[rng.integers(len(candidate.texts))]
    height = rng.uniform(0.75, 1.0) * large / max(1.0, 0.55 * len(text))
    font = ImageFont.truetype(
        Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{typeface}.ttf", int(height)
    )
    paper, ink = (tuple(map(int, rng.integers(*ends, 3))) for ends in ((150, 256), (0, 110)))

    image = Image.new("RGB", (large, large), paper)
    place = large / 2 + rng.uniform(-large / 16, large / 16, 2)
    ImageDraw.Draw(image).text(tuple(place), text, ink, font=font, anchor="mm")
    turned = image.rotate(rng.uniform(-candidate.turn, candidate.turn), fillcolor=paper)

    small = turned.resize((candidate.side, candidate.side), Image.Resampling.LANCZOS)
    noisy = np.asarray(small, dtype=np.float64) + rng.normal(
        0, 6, (candidate.side, candidate.side, 3)
    )
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def measured(path: Path, home: Path, params: dict[str, Any], seed: int = 0) -> dict[str, float]:
    """The metrics of a trial's last epoch."""
    loaded = lt.load_spec(path, [*SETTINGS, f"train.seed={seed}"])
    trial = lt.train(loaded, params, home=home)
    for _ in trial:
        pass
    return dict(trial.metrics)


def baseline_of(path: Path, home: Path) -> dict[str, float]:
    """The metrics of the baseline: what a trial of the method `baseline` with no epoch of its own begins with."""
    from lmoe_tune.data import describe_splits
    from lmoe_tune.training.baseline_record import baseline_key, read_baseline_record
    from lmoe_tune.training.platform import resolve_platform

    loaded = lt.load_spec(path, [*SETTINGS, "train.seed=0", "train.epochs=1"])
    for _ in lt.train(loaded, {}, home=home):
        break
    spec = resolve_platform(loaded.spec)
    key = baseline_key(spec, describe_splits(spec.data, home)["fingerprint"])
    record = read_baseline_record(home, key)
    assert record is not None, "a baseline that was trained has a record"
    return dict(record["epochs"][-1]["metrics"])


def point(rng: np.random.Generator) -> dict[str, float]:
    return {
        "mixing_alpha": float(10 ** rng.uniform(-1, 1)),
        "mix_weight": float(10 ** rng.uniform(np.log10(0.5), 1)),
        "consistency_weight": float(10 ** rng.uniform(-2, 1)),
        "outlier_ratio": float(rng.uniform(0.25, 1)),
        "lr": float(10 ** rng.uniform(np.log10(0.0003), -2)),
    }


def judged(candidate: Candidate, folder: Path, *, searches: bool = True) -> dict[str, Any]:
    """All figures of a candidate."""
    root, started = folder / candidate.name.replace(" ", "-").replace(",", ""), time.monotonic()
    path, home = make(candidate, root), root / "home"
    baseline = baseline_of(path, home)
    found: dict[str, Any] = {
        "candidate": candidate.name,
        "baseline_accuracy": round(baseline["val_accuracy"], 3),
        "baseline_fine_auroc": round(baseline["val_fine_auroc"], 3),
        "baseline_auroc": round(baseline["val_auroc"], 3),
    }
    if searches and LOW <= baseline["val_fine_auroc"] <= HIGH:
        found |= searched(path, home, baseline["val_accuracy"] - 0.02)
    return found | {"seconds": round(time.monotonic() - started)}


def searched(path: Path, home: Path, least_accuracy: float) -> dict[str, Any]:
    """A search by random points, and what is left of its best one's lead with fresh seeds."""
    rng = np.random.default_rng(1)
    points = [point(rng) for _ in range(NUM_POINTS)]
    begun = time.monotonic()
    trials = [(params, measured(path, home, params)) for params in points]
    trial_s = (time.monotonic() - begun) / len(trials)
    feasible = [one for one in trials if one[1]["val_accuracy"] >= least_accuracy]
    best = max(feasible or trials, key=lambda one: one[1]["val_auroc"])[0]

    seeds = range(FIRST_SEED, FIRST_SEED + NUM_SEEDS)
    gaps = [
        measured(path, home, best, seed)["val_auroc"] - measured(path, home, {}, seed)["val_auroc"]
        for seed in seeds
    ]
    return {
        "trial_s": round(trial_s, 1),
        "feasible": len(feasible),
        "best": {name: round(value, 4) for name, value in best.items()},
        "val_auroc_of_points": [round(one[1]["val_auroc"], 4) for one in trials],
        "val_auroc_of_defaults": round(measured(path, home, {})["val_auroc"], 4),
        "reseeded_gap": round(statistics.mean(gaps), 4),
        "gap_sd": round(statistics.stdev(gaps), 4),
        "gaps": [round(gap, 4) for gap in gaps],
    }


def main() -> None:
    """Print the figures of each candidate as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where images and records are kept")
    parser.add_argument("names", nargs="*", help="of candidates; all by default")
    parser.add_argument("--baselines", action="store_true", help="train only those")
    given = parser.parse_args()

    folder = given.folder.resolve()
    for candidate in CANDIDATES:
        if not given.names or candidate.name in given.names:
            found = judged(candidate, folder, searches=not given.baselines)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
