"""What a sweep on this machine would only meet once it has begun, looked at before it is made."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
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
    machine = this_machine()
    may_have_more = shutil.which("nvidia-smi") or any(map(os.path.exists, HINTS_OF_GPUS))
    if not machine.gpus and may_have_more:
        machine = replace(machine, gpus=spec.resources.gpu)
    refuse_too_large([machine], spec.resources)
    if _lacks_weights(spec) and not _has_baseline(spec, home):
        from lmoe_tune.weights import imagenet_file  # imports torch: seconds

        imagenet_file(spec.model.arch)


def this_machine() -> Capacity:
    """What this machine has, found without torch and Ray."""
    return Capacity(cpus=os.cpu_count() or 1, gpus=num_gpus())


def _has_baseline(spec: Spec, home: Path) -> bool:
    fingerprint = describe_splits(spec.data, home)["fingerprint"]
    record = read_baseline_record(home, baseline_key(spec, fingerprint))
    return record is not None and record["state"] == "complete"


def _lacks_weights(spec: Spec) -> bool:
    """Whether the spec starts from torchvision's weights, and they are not here."""
    name = IMAGENET_FILES.get(spec.model.arch)
    if spec.model.weights != "imagenet" or name is None:
        return False
    return not (_hub() / "checkpoints" / name).exists()


def _hub() -> Path:
    """torch's cache, as `torch.hub.get_dir` finds it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub"
