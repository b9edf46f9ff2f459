"""`lmoe-tune doctor SPEC --address A`: what every node of a cluster would say at the handshake, before anything starts.

A run asks the same of each worker before its first epoch (`trainables.handshake`).
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.source_code import code_of
from lmoe_tune.spec import Spec
from lmoe_tune.sweep.cluster import started
from lmoe_tune.sweep.shipping import sent
from trainables.handshake import faults, leave_sign

ANSWERS_WITHIN_S = 120.0  # a node may have to import torch first


@dataclass(frozen=True)
class NodeFinding:
    """What a node of the cluster was found to be.

    Attributes:
        host: its name.
        has: its processors and GPUs, in words.
        faults: why no trial may run there, a clause each.
    """

    host: str
    has: str
    faults: tuple[str, ...]


def look_at_nodes(
    address: str | None, spec: Spec, home: Path, import_path: Path
) -> list[NodeFinding]:
    """Ask every node. A sign is left in the home for as long as that takes.

    Raises:
        LmoeTuneError: the cluster cannot be joined, or the home cannot be written.
    """
    folder = home / f".doctor-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise LmoeTuneError(f"{folder}: cannot be made ({error.strerror})") from error

    try:
        with started(address, lambda: sent(spec, import_path)):
            nonce = leave_sign(folder, code_of(spec, import_path))
            return _asked(nonce, folder, home, spec, import_path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _asked(
    nonce: str, folder: Path, home: Path, spec: Spec, import_path: Path
) -> list[NodeFinding]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(_faults_here)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    answers = []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        place = ask.options(scheduling_strategy=there, max_retries=0)
        answers.append(place.remote(nonce, folder, home, spec, import_path))

    ray.wait(answers, num_returns=len(answers), timeout=ANSWERS_WITHIN_S)
    return [_finding(node, answer) for node, answer in zip(nodes, answers, strict=True)]


def _faults_here(nonce: str, folder: Path, home: Path, spec: Spec, import_path: Path) -> list[str]:
    from trainables.worker import import_path_of  # where the driver's modules are, if it sent some

    own = import_path_of({"import_path": str(import_path)})
    return faults(nonce, folder, home, spec, own)


def _finding(node: dict[str, Any], answer: Any) -> NodeFinding:
    import ray

    resources = node["Resources"]
    has = f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
    try:
        found = tuple(ray.get(answer, timeout=0))
    except ray.exceptions.GetTimeoutError:
        found = (f"it does not answer within {ANSWERS_WITHIN_S:g} s",)
    except ray.exceptions.RayError as error:
        found = (f"a process there fails: {str(error).strip().splitlines()[-1]}",)
    return NodeFinding(node["NodeManagerHostname"], has, found)
