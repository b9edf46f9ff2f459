"""A small fine-grained image set that needs no download: letters of typefaces, against patches of two photographs.

    python benchmarks/typefaces.py FOLDER       # writes id/, outliers/ and coarse/ into it, and typefaces.yaml

A class is a typeface of those that matplotlib ships; which letters are drawn, their size, slant, place and colours
vary, so that a letter says nothing of its class. Regular, bold and italic cuts of a family differ as little as the
kinds of a bird do. The outliers are patches of scikit-learn's photograph of a temple, the coarse test set those of its
flower, all the same on every machine that has the same versions of matplotlib and Pillow.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

SEED = 0
SIDE = 28
LETTERS = "abdeghknprstyRGQ"
PER_CLASS = 48
PATCHES = 500
TYPEFACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "cmb10",
    "cmr10",
    "cmss10",
    "cmti10",
    "cmtt10",
)
SPEC = """\
name: typefaces
trainable: logit_mixoe
data:
  id: {{dataset: folder, root: {root}/id}}
  outliers: {{dataset: folder, root: {root}/outliers}}
  coarse_ood: [{{dataset: folder, root: {root}/coarse}}]
  resize: 16
  crop: 14
  num_id_classes: 13
  num_val_novel: 3
  augment: {{flip: false}}
  normalise: train
model: {{arch: small_cnn, weights: none, baseline: {{epochs: 20, lr: 0.1, weight_decay: 1e-4, batch_size: 32}}}}
train: {{epochs: 10, batch_size: 32, lr: 0.01, weight_decay: 1e-4, precision: bf16}}
space:
  mixing_alpha: {{low: 0.1, high: 10, log: true}}
  consistency_weight: {{low: 0, high: 5}}
  outlier_ratio: {{low: 0.25, high: 1}}
resources: {{gpu: 0, cpu: 1}}
"""


def make(root: Path) -> Path:
    """Write the images, where they are not there yet, and a spec that names them; its path is returned."""
    path = root / "typefaces.yaml"
    if path.exists():
        return path

    rng = np.random.default_rng(SEED)
    for typeface in TYPEFACES:
        folder = root / "id" / typeface
        folder.mkdir(parents=True)
        for number in range(PER_CLASS):
            letter(typeface, rng).save(folder / f"{number:03d}.png")

    for name, photograph in (("outliers", "china.jpg"), ("coarse", "flower.jpg")):
        folder = root / name / "patches"
        folder.mkdir(parents=True)
        image = Image.fromarray(load_sample_image(photograph))
        for number in range(PATCHES if name == "outliers" else PATCHES // 4):
            patch(image, rng).save(folder / f"{number:03d}.png")

    path.write_text(SPEC.format(root=root), encoding="utf-8")
    return path


def letter(typeface: str, rng: np.random.Generator) -> Image.Image:
    """One letter, drawn at four times its size, turned a little and made small."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    large = 4 * SIDE
    font = ImageFont.truetype(fonts / f"{typeface}.ttf", int(rng.integers(3 * SIDE, 4 * SIDE)))
    paper, ink = rng.integers(150, 256, 3), rng.integers(0, 110, 3)

    image = Image.new("RGB", (large, large), tuple(int(x) for x in paper))
    draw = ImageDraw.Draw(image)
    place = large / 2 + rng.uniform(-SIDE / 4, SIDE / 4, 2)
    chosen = LETTERS[rng.integers(len(LETTERS))]
    draw.text(tuple(place), chosen, tuple(int(x) for x in ink), font=font, anchor="mm")
    turned = image.rotate(rng.uniform(-8, 8), fillcolor=tuple(int(x) for x in paper))

    small = np.asarray(turned.resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    noisy = small + rng.normal(0, 6, small.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def patch(photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A square of the photograph, of 28 to 84 pixels, made small."""
    side = int(rng.integers(SIDE, 3 * SIDE))
    left = int(rng.integers(0, photograph.width - side))
    top = int(rng.integers(0, photograph.height - side))
    return photograph.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the images are written")
    print(make(parser.parse_args().folder.resolve()))
