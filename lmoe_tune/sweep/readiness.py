"""What a sweep on this machine would only meet once it has begun, looked at before it is made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lmoe_tune.cost import num_gpus
from lmoe_tune.data import describe_splits
from lmoe_tune.spec import Spec
from lmoe_tune.spec.architectures import IMAGENET_FILES
from lmoe_tune.sweep.nodes import Capacity, refuse_too_large
from lmoe_tune.training.baseline_record import baseline_key, read_baseline_record

HINTS_OF_GPUS = ("/dev/dxg", "/dev/kfd")
"""Devices of GPUs that Ray may find though there is no /dev/nvidia0: of WSL, of AMD."""


def refuse_unready(spec: Spec, home: Path) -> None:
    """Raises UsageError if no trial fits on this machine, or the weights to start from are neither
    here nor to be downloaded; a baseline that is trained already needs none.
    """
    gpus = float(num_gpus())
    may_have_more = shutil.which("nvidia-smi") or any(map(os.path.exists, HINTS_OF_GPUS))
    if not gpus and may_have_more:
        gpus = spec.resources.gpu
    refuse_too_large([Capacity(cpus=os.cpu_count() or 1, gpus=gpus)], spec.resources)
    if not _has_baseline(spec, home):
        _fetch_weights(spec)


def _has_baseline(spec: Spec, home: Path) -> bool:
    fingerprint = describe_splits(spec.data, home)["fingerprint"]
    record = read_baseline_record(home, baseline_key(spec, fingerprint))
    return record is not None and record["state"] == "complete"


def _fetch_weights(spec: Spec) -> None:
    """Download torchvision's weights, if the spec starts from them and they are not here."""
    name = IMAGENET_FILES.get(spec.model.arch)
    if spec.model.weights != "imagenet" or name is None or (_hub() / "checkpoints" / name).exists():
        return

    from lmoe_tune.weights import imagenet_file  # imports torch: seconds

    imagenet_file(spec.model.arch)


def _hub() -> Path:
    """torch's cache, as `torch.hub.get_dir` finds it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub"
