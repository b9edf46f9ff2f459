"""Before its first epoch on a node, a worker shows that its results will be comparable with the
others'.

The driver leaves a marker in the sweep's folder when a run begins (`leave_sign`). A worker that
does not find it sees no home, or a copy of it; one whose code or packages differ would give
different numbers. The driver leaves out the node of a worker that is not fit, and its trial goes
elsewhere.
"""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmoe_tune.durable import read_text, write_durably
from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.source_code import PACKAGES, changes, code_of
from lmoe_tune.spec import Spec
from lmoe_tune.wording import duration, first_few

SENT_MODULES = (
    "LMOE_TUNE_SENT_MODULES"  # where a worker finds the user's modules that the driver sent
)
SIGN = "run.json"  # in the sweep's folder
CLOCK_S = 120.0  # that a node's clock may be off
PATIENCE_S = 5.0  # with a shared disk, until it shows what was written elsewhere


@dataclass(frozen=True)
class Place:
    """Where a trial runs."""

    node: str
    """Ray's id of the node."""
    host: str
    device: str | None
    gpu: str | None


def leave_sign(folder: Path, code: Mapping[str, str]) -> str:
    """Say in the sweep's folder that a run begins, and with which code; returns what workers must
    find there.
    """
    nonce = uuid.uuid4().hex
    content = json.dumps({"nonce": nonce, "code": dict(code)}, indent=1)
    write_durably(folder / SIGN, content.encode())
    return nonce


def faults(nonce: str, folder: Path, home: Path, spec: Spec, import_path: Path) -> list[str]:
    """Why no trial may run in this process, one clause each: "it does not see the home …"."""
    sign = _find_sign(nonce, folder)
    if sign is None:
        return [f"it does not see the home {home}"]
    if sign["nonce"] != nonce:
        return [f"its {home} is another one than the driver's, or an old copy"]

    other = _differences(sign["code"], code_of(spec, import_path))
    return [*other, *_data_faults(spec, home)]


def device_faults(spec: Spec) -> list[str]:
    """Why this process cannot train on the device of the spec, and as precisely."""
    from lmoe_tune.training.trial import device_of

    try:
        device_of(spec)
    except UsageError as error:
        return [str(error)]
    return []


def clock_fault(asked_ms: int, answered_ms: int, its_ms: int) -> str | None:
    """What is wrong with a node's clock, or None.

    Args:
        asked_ms: by the driver's clock, before the node looked at its own.
        answered_ms: by the driver's clock, after that.
        its_ms: by the node's clock. However long the answer took, it lies between the two.
    """
    ahead_s = (its_ms - answered_ms) / 1000
    late_s = (asked_ms - its_ms) / 1000
    if ahead_s > CLOCK_S:
        return f"its clock is {duration(ahead_s)} ahead"
    if late_s > CLOCK_S:
        return f"its clock is {duration(late_s)} late"
    return None


def place(device: str | None = None) -> Place:
    """Where this process is.

    Args:
        device: on which trials are trained, `cpu` or `cuda`; None is not known.
    """
    import ray

    gpu = None
    if device is not None and device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_name()
    if ray.is_initialized():
        node = ray.get_runtime_context().get_node_id()
    else:
        node = ""
    return Place(node, socket.gethostname(), device, gpu)


def _find_sign(nonce: str, folder: Path) -> dict[str, Any] | None:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            sign: dict[str, Any] = json.loads(read_text(folder / SIGN))
        except (OSError, ValueError, LmoeTuneError):
            sign = {}
        if sign.get("nonce") == nonce or time.monotonic() > give_up:
            return sign or None
        time.sleep(0.2)


def _differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    differing = [line.partition(":")[0] for line in changes(wanted, found)]
    versions = [name for name in differing if name in PACKAGES]
    files = [name for name in differing if name not in PACKAGES]
    said = [f"it has {name} {found[name]}, and the driver {wanted[name]}" for name in versions]
    if files:
        verb = "differs" if len(files) == 1 else "differ"
        said.append(f"it runs other code: {first_few(files, 3)} {verb}")
    return said


def _data_faults(spec: Spec, home: Path) -> list[str]:
    from lmoe_tune.data import load_search_data

    try:
        load_search_data(spec.data, home)
    except (LmoeTuneError, OSError) as error:
        return [f"it cannot read the data: {error}"]
    return []
