"""`lmoe-tune doctor SPEC --address A`: what every node of a cluster would say at the handshake,
before anything starts.

A run asks the same of each worker before its first epoch (`trainables.handshake`).
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.source_code import code_of
from lmoe_tune.spec import Spec
from lmoe_tune.sweep.cluster import started
from lmoe_tune.sweep.ledger import system_ms
from lmoe_tune.sweep.nodes import Capacity
from lmoe_tune.sweep.shipping import sent
from lmoe_tune.training.platform import BF16_CAPABILITY, Gpu, gpus_here, smallest_memory
from lmoe_tune.wording import readable_size
from trainables.handshake import clock_fault, faults, leave_sign

ANSWERS_WITHIN_S = 120.0  # a node may have to import torch first


@dataclass(frozen=True)
class NodeFinding:
    """What was found out about a node of the cluster.

    Attributes:
        host: its name.
        has: its processors, memory and GPUs, in words.
        faults: why no trial may run there, one clause each.
        is_large: whether a trial fits on it.
    """

    host: str
    has: str
    faults: tuple[str, ...]
    is_large: bool = True


@dataclass(frozen=True)
class Answer:
    """What a process on a node has found there."""

    faults: tuple[str, ...]
    memory: int
    """Bytes, of the machine."""
    gpus: tuple[Gpu, ...]
    time_ms: int
    """By its clock."""


def look_at_nodes(
    address: str | None, spec: Spec, home: Path, import_path: Path, needed: int | None = None
) -> list[NodeFinding]:
    """Ask every node. A marker is left in the home for as long as that takes.

    Args:
        needed: bytes of a GPU that the largest trial needs; None is not known.

    Raises:
        LmoeTuneError: the cluster cannot be joined, or the home cannot be written.
    """
    folder = home / f".doctor-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise LmoeTuneError(f"{folder}: cannot be created ({error.strerror})") from error

    try:
        with started(address, lambda: sent(spec, import_path)):
            nonce = leave_sign(folder, code_of(spec, import_path))
            return _asked(nonce, folder, home, spec, import_path, needed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _asked(
    nonce: str, folder: Path, home: Path, spec: Spec, import_path: Path, needed: int | None
) -> list[NodeFinding]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(_look_here)
    asked_ms = system_ms()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    answers = []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        place = ask.options(scheduling_strategy=there, max_retries=0)
        answers.append(place.remote(nonce, folder, home, spec, import_path))

    ray.wait(answers, num_returns=len(answers), timeout=ANSWERS_WITHIN_S)
    found = []
    for node, answer in zip(nodes, answers, strict=True):
        resources = node["Resources"]
        capacity = Capacity(resources.get("CPU", 0.0), resources.get("GPU", 0.0))
        host, reply = node["NodeManagerHostname"], _reply(answer)
        found.append(judged(host, capacity, reply, spec, needed, asked_ms))
    return found


def _look_here(nonce: str, folder: Path, home: Path, spec: Spec, import_path: Path) -> Answer:
    from trainables.worker import import_path_of  # where the driver's modules are, if it sent some

    own = import_path_of({"import_path": str(import_path)})
    found = faults(nonce, folder, home, spec, own)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Answer(tuple(found), memory, tuple(gpus_here()), time.time_ns() // 1_000_000)


def _reply(answer: Any) -> Answer | str:
    """What a node has answered, or why it has not."""
    import ray

    try:
        reply: Answer = ray.get(answer, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"it does not answer within {ANSWERS_WITHIN_S:g} s"
    except ray.exceptions.RayError as error:
        return f"a process there fails: {str(error).strip().splitlines()[-1]}"
    return reply


def judged(
    host: str,
    capacity: Capacity,
    reply: Answer | str,
    spec: Spec,
    needed: int | None,
    asked_ms: int,
) -> NodeFinding:
    """Whether a node can run trials of this spec, and why not.

    Args:
        reply: the node's, or why there is none.
        needed: bytes of a GPU that the largest trial needs.
        asked_ms: when it was asked, by the driver's clock.
    """
    has = f"{capacity.cpus:g} CPUs, {capacity.gpus:g} GPUs"
    if isinstance(reply, str):
        return NodeFinding(host, has, (reply,))

    has += f", {readable_size(reply.memory)} of memory"
    has += "".join(f", {gpu}" for gpu in reply.gpus)
    if not capacity.slots(spec.resources):
        return NodeFinding(host, f"{has}; too small for a trial", (), is_large=False)

    clock = clock_fault(asked_ms, system_ms(), reply.time_ms)
    found = [*reply.faults, *([clock] if clock is not None else [])]
    if spec.train.device == "cuda":
        found += _gpu_faults(reply.gpus, spec, needed)
    return NodeFinding(host, has, tuple(found))


def _gpu_faults(gpus: tuple[Gpu, ...], spec: Spec, needed: int | None) -> list[str]:
    if not gpus:
        return ["nvidia-smi there names no GPU"]

    found = [
        f"its {gpu.name} has no bf16: set train.precision to fp32"
        for gpu in gpus
        if spec.train.precision == "bf16" and gpu.capability < BF16_CAPABILITY
    ]
    memory = smallest_memory(gpus)
    if needed is None or memory is None:
        return found
    room = int(min(1.0, spec.resources.gpu or 1.0) * memory)
    if needed > room:
        found.append(
            f"a trial needs {readable_size(needed)} of a GPU, and its share there is {readable_size(room)}"
        )
    return found
