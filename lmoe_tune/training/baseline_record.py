"""Which baseline a spec means, and its record; needs no torch, so the driver can use it."""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from lmoe_tune.durable import read_object
from lmoe_tune.spec import Spec

RECORD = "record.json"


def baseline_key(spec: Spec, fingerprint: str) -> str:
    """The content hash of everything the baseline depends on; `spec` with its platform resolved."""
    content = {
        "data": fingerprint,
        "arch": spec.model.arch,
        "weights": _weights_identity(spec.model.weights),
        "training": spec.model.baseline.model_dump(mode="json"),
        "platform": [
            spec.train.device,
            spec.train.precision,
            spec.train.threads,
            spec.train.tf32,
            spec.train.compile,
        ],
        "optimizer": [spec.train.momentum, spec.train.min_lr],
        "score": spec.objective.score,
        "seed": spec.train.seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _weights_identity(weights: str) -> str:
    """A word stands for itself, a file for its content, as it may be overwritten."""
    try:
        status = os.stat(weights)
    except OSError:
        return weights
    return _content_hash(weights, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _content_hash(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def baseline_folder(home: Path, key: str) -> Path:
    """Where a baseline's checkpoints and its record are kept, shared by all sweeps of a home."""
    return home / "baselines" / key


def read_baseline_record(home: Path, key: str) -> dict[str, Any] | None:
    """The record of a baseline: its settings, state and epochs so far; None before its first epoch."""
    return read_object(baseline_folder(home, key) / RECORD) or None
