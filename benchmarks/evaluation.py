"""What scoring and evaluating cost, as shares of an epoch of a search space (the digits by default).

    python benchmarks/evaluation.py [SPEC] [--epochs 10] [--repeats 30]

Trains as `lmoe-tune train` does, one trial at the defaults. An *epoch* is its training steps and its evaluation.
*Evaluation* is all validation images through the network, and the metrics; *scoring* is what is left without the
network: scores, confidence, classes and metrics from given logits. Each is the median of its repeats. *Before
scoring* is a bare argmax over the same logits: what a loop that only counts accuracy would do anyway.
Promised: scoring below 1% and evaluation below 15% of an epoch of the digits. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lmoe_tune.data import load_search_data
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.evaluation import outputs, validation_metrics
from lmoe_tune.model import build_model
from lmoe_tune.spec import load_spec
from lmoe_tune.training.baseline import acquire_baseline
from lmoe_tune.training.loop import EVALUATION_BATCH, evaluate, train
from lmoe_tune.training.platform import resolve_platform
from lmoe_tune.training.trial import settings_of
from trainables import configured, declarations, resolve_declaration

DIGITS = Path(__file__).resolve().parents[1] / "search_spaces" / "digits.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spec", nargs="?", type=Path, default=DIGITS)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()

    loaded = load_spec(
        arguments.spec,
        overrides=[f"train.epochs={arguments.epochs}"],
        declarations=declarations(),
        resolve=resolve_declaration,
    )
    spec = resolve_platform(loaded.spec, cuda=torch.cuda.is_available())
    torch.set_num_threads(spec.train.threads or 1)
    device = torch.device(spec.train.device)
    data = load_search_data(spec.data)
    images = ImageSource(data, device)
    method, params = configured(spec, {}, arguments.spec.parent)
    settings = settings_of(spec, params)
    model = build_model(spec.model.arch, data.num_classes, data.image_shape[0])
    with tempfile.TemporaryDirectory() as home:
        model.load_state_dict(acquire_baseline(spec, data, images, Path(home)).model)

    epochs_s = [
        result.metrics["epoch_s"]
        for result in train(model, method.objective(params), images, settings)
    ]
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
        logits = [model(chunk).float() for chunk in images.val_chunks(EVALUATION_BATCH)]

    def scoring() -> None:
        found = outputs(logits, settings.score)
        assert found.finite
        validation_metrics(found, images.val_labels, images.num_val_fine)

    def argmax() -> None:
        (
            torch.cat(logits)[: images.num_val].argmax(1).cpu() == images.val_labels.cpu()
        ).double().mean().item()

    epoch_s = statistics.median(epochs_s[1:] or epochs_s)  # the first one warms up
    rows = {
        "epoch": epoch_s,
        "evaluation": timed(
            lambda: evaluate(model, images, settings, 0), arguments.repeats, device
        ),
        "scoring": timed(scoring, arguments.repeats, device),
        "before scoring": timed(argmax, arguments.repeats, device),
    }
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {device}"
    )
    print(f"torch {torch.__version__}, {spec.train.precision}")
    print(
        f"{spec.name}: {sum(len(chunk) for chunk in logits)} validation images, {data.num_classes} classes"
    )
    for name, seconds in rows.items():
        print(f"{name:15} {1000 * seconds:9.2f} ms  {100 * seconds / epoch_s:6.2f}% of an epoch")


def timed(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """The median time of a call, seconds, after one that warms up."""
    found = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        with torch.inference_mode():
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


if __name__ == "__main__":
    main()
