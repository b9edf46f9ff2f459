"""The bare loop: what one has today without a tool, and the floor that a sweep is compared with.

Plain PyTorch as public code of this field writes it: data loaders over tensors, three forwards (in-
distribution images, outliers, mixed inputs), fp32, `torch.optim.SGD`, a learning rate per step,
`loss.item()` per step, scikit-learn's AUROC per epoch, one thread. No search, no records, no
checkpoints. Only the network and the random numbers come from lmoe_tune, so that both see the same
batches and the same lam.

    python bare_loop.py WORK.json NUMBER OF [--running-stats id]          (run by sweep_overhead.py)

trains every OF-th configuration of WORK.json, from NUMBER on, and prints each one's last metrics as
JSON. Process 0 trains the baseline that all start from; the others wait for its file.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from lmoe_tune.data.batches import PairedBatches
from lmoe_tune.model import build_model


class Counts:
    """What lmoe_tune's order of batches asks of a set of images."""

    device = torch.device("cpu")

    def __init__(self, data: dict[str, TensorDataset]) -> None:
        self.num_train, self.num_outliers = len(data["train"]), len(data["outliers"])


class Shuffled(Sampler[int]):
    """The order of the images in an epoch."""

    def __init__(self, batches: PairedBatches) -> None:
        self.batches, self.epoch = batches, 1

    def __iter__(self) -> Iterator[int]:
        return iter(self.batches.plan(self.epoch).images.tolist())

    def __len__(self) -> int:
        return len(self.batches.plan(self.epoch).images)


class OutlierBatches(Sampler[list[int]]):
    """The outliers of each step of an epoch."""

    def __init__(self, batches: PairedBatches) -> None:
        self.batches, self.epoch = batches, 1

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches.plan(self.epoch).outliers.tolist())


def load_data(work: dict[str, Any]) -> dict[str, TensorDataset]:
    """The arrays of WORK.json's data file, normalised, as data sets of (image, label) or (image,)."""
    arrays = np.load(work["data"])
    mean, std = (
        torch.from_numpy(arrays[name]).float().view(1, -1, 1, 1) for name in ("mean", "std")
    )

    def images(name: str) -> torch.Tensor:
        return (torch.from_numpy(arrays[name]).float() - mean) / std

    return {
        "train": TensorDataset(images("train"), torch.from_numpy(arrays["train_labels"])),
        "outliers": TensorDataset(images("outliers")),
        "val": TensorDataset(images("val"), torch.from_numpy(arrays["val_labels"])),
        "val_fine": TensorDataset(images("val_fine")),
        "val_coarse": TensorDataset(images("val_coarse")),
    }


def new_model(work: dict[str, Any]) -> nn.Module:
    return build_model(work["arch"], work["num_classes"], work["in_channels"])


def train(
    model: nn.Module,
    data: dict[str, TensorDataset],
    settings: dict[str, Any],
    config: dict[str, float] | None,
    running_stats: str = "all",
) -> Iterator[dict[str, float]]:
    """Train in place, yield the validation metrics of every epoch; without a config, cross-entropy alone."""
    batches = PairedBatches(
        Counts(data),  # type: ignore[arg-type]  # only its numbers are asked for
        batch_size=settings["batch_size"],
        outlier_ratio=config["outlier_ratio"] if config is not None else 0.0,
        seed=settings["seed"],
    )
    order, outlier_order = Shuffled(batches), OutlierBatches(batches)
    loader = DataLoader(data["train"], settings["batch_size"], sampler=order)
    outlier_loader = DataLoader(data["outliers"], batch_sampler=outlier_order)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings["lr"],
        momentum=settings["momentum"],
        nesterov=True,
        weight_decay=settings["weight_decay"],
    )
    last_step = len(loader) * settings["epochs"] - 1
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, last_step, eta_min=settings["min_lr"]
    )

    for epoch in range(1, settings["epochs"] + 1):
        model.train()
        train_loss = 0.0
        order.epoch = outlier_order.epoch = epoch
        draws = batches.draws(epoch)
        outlier_iter = iter(outlier_loader)
        for step, (images, labels) in enumerate(loader):
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            if config is not None:
                (outliers,) = next(outlier_iter)
                lam = float(draws.at(step).beta(config["mixing_alpha"], per="batch")[0])
                pairs = torch.arange(len(outliers)) % len(images)
                mixed = lam * images[pairs] + (1 - lam) * outliers
                if running_stats == "id":
                    set_momentum(model, 0.0)
                logits_out = model(outliers)
                logits_in = model(mixed)
                if running_stats == "id":
                    set_momentum(model, 0.1)
                logits_mix = lam * logits[pairs] + (1 - lam) * logits_out
                onehot = F.one_hot(labels[pairs], logits.shape[1]).float()
                target = lam * onehot + (1 - lam) / logits.shape[1]
                loss = loss + F.cross_entropy(logits_mix, target)
                loss = loss + config["consistency_weight"] * F.mse_loss(logits_in, logits_mix)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            train_loss += loss.item()
        yield {"train_loss": train_loss / len(loader), **evaluate(model, data)}


def set_momentum(model: nn.Module, momentum: float) -> None:
    """With 0, BatchNorm normalises by the batch as ever, and its running statistics stay as they are."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum


@torch.no_grad()
def evaluate(model: nn.Module, data: dict[str, TensorDataset]) -> dict[str, float]:
    """Accuracy, and AUROC of the largest softmax probability against held-out classes and outliers."""
    model.eval()
    scores, correct = {}, 0
    for name in ("val", "val_fine", "val_coarse"):
        parts = []
        for images, *labels in DataLoader(data[name], batch_size=256):
            probabilities = model(images).softmax(dim=1)
            parts.append(probabilities.amax(dim=1))
            if labels:
                correct += (probabilities.argmax(dim=1) == labels[0]).sum().item()
        scores[name] = torch.cat(parts).numpy()

    def auroc(ood: str) -> float:
        is_id = np.concatenate([np.ones(len(scores["val"])), np.zeros(len(scores[ood]))])
        return float(roc_auc_score(is_id, np.concatenate([scores["val"], scores[ood]])))

    fine, coarse = auroc("val_fine"), auroc("val_coarse")
    return {
        "val_accuracy": correct / len(data["val"]),
        "val_fine_auroc": fine,
        "val_coarse_auroc": coarse,
        "val_auroc": (fine + coarse) / 2,
    }


def train_baseline(work: dict[str, Any], data: dict[str, TensorDataset], path: Path) -> None:
    torch.manual_seed(work["baseline"]["seed"])
    model = new_model(work)
    for _ in train(model, data, work["baseline"], None):
        pass
    torch.save(model.state_dict(), path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train configurations with a bare PyTorch loop.")
    parser.add_argument("work", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("of", type=int)
    parser.add_argument("--running-stats", choices=("all", "id"), default="all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    work = json.loads(args.work.read_text(encoding="utf-8"))
    data = load_data(work)
    baseline = Path(work["baseline_path"])
    if args.number == 0:
        train_baseline(work, data, baseline)
    while not baseline.exists():
        time.sleep(0.02)
    for config in work["configurations"][args.number :: args.of]:
        model = new_model(work)
        model.load_state_dict(torch.load(baseline))
        *_, metrics = train(model, data, work["train"], config, args.running_stats)
        print(json.dumps({"params": config, "metrics": metrics}), flush=True)


if __name__ == "__main__":
    main()
