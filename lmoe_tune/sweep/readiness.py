"""What a sweep on this machine would only meet once it has begun, looked at before it is made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lmoe_tune.data import describe_splits
from lmoe_tune.spec import Resources, Spec
from lmoe_tune.spec.architectures import IMAGENET_FILES
from lmoe_tune.sweep.nodes import Capacity, refuse_too_large
from lmoe_tune.training.baseline_record import baseline_key, read_baseline_record

HINTS_OF_GPUS = ("/dev/dxg", "/dev/kfd")
"""Devices of GPUs that Ray may find though there is no /dev/nvidia0: of WSL, of AMD."""


def refuse_unready(spec: Spec, home: Path) -> None:
    """Raises UsageError if no trial fits on this machine, or the weights to start from are neither
    here nor to be downloaded; a baseline that is trained already needs none.
    """
    machine_for(spec.resources)
    if _lacks_weights(spec) and not _has_baseline(spec, home):
        from lmoe_tune.weights import imagenet_file  # imports torch: seconds

        imagenet_file(spec.model.arch)


def machine_for(resources: Resources) -> Capacity:
    """What this machine has for such trials, found without torch and Ray.

    Where they ask for a GPU and something hints at one, it counts: Ray looks again at a start.
    Raises UsageError if not even one trial fits.
    """
    gpus = num_gpus()
    if resources.gpu and not gpus and hint_of_gpu() is not None:
        gpus = 1

    machine = Capacity(cpus=os.cpu_count() or 1, gpus=gpus)
    refuse_too_large([machine], resources)
    return machine


def num_gpus() -> int:
    """The GPUs of this machine that have a device of NVIDIA's."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def hint_of_gpu() -> str | None:
    """What hints at a GPU that may be found where there is no /dev/nvidia0; None if nothing does."""
    devices = [device for device in HINTS_OF_GPUS if os.path.exists(device)]
    return next(iter(devices), shutil.which("nvidia-smi"))


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
