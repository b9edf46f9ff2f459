"""What a GPU does to trials, without a GPU: its memory does not suffice, or its context is lost.

Ray is told that this machine has a GPU, of which each trial gets half; the trials compute on the CPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.end_to_end.conftest import Command

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(300)]

MODULE = """
import os
from pathlib import Path

import ray
import torch

from lmoe_tune.methods.baseline import CrossEntropy
from lmoe_tune.spec import Declaration, Parameter
from trainables import Method

HERE = Path(__file__).parent
WAYS = ("small", "large", "huge", "lost")


class AcceleratorError(RuntimeError):
    pass


class Crowded(Method):
    declaration = Declaration(
        name="crowded",
        summary="cross-entropy that meets the errors of a GPU",
        parameters=(Parameter("way", "choice", "small", "what it meets", choices=WAYS),),
        needs_outliers=False,
    )

    def objective(self, params):
        return Loss(params["way"])


class Loss(CrossEntropy):
    def __init__(self, way):
        self.way = way

    def loss(self, model, batch, draws):
        share = ray.get_runtime_context().get_assigned_resources()["GPU"]
        with (HERE / "steps.txt").open("a") as file:
            print(self.way, share, os.getpid(), file=file)
        if self.way == "huge" or (self.way == "large" and share < 1):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.way == "lost" and not (HERE / "lost").exists():
            (HERE / "lost").touch()
            raise AcceleratorError("CUDA error: an illegal memory access was encountered")
        return super().loss(model, batch, draws)
"""
SPEC = """
name: digits
trainable: crowded:Crowded
data: {id: {dataset: digits}}
train: {epochs: 1, device: cpu}
model: {baseline: {epochs: 1}}
space: {way: {choices: [small, large, huge, lost]}}
search: {sampler: grid, pruner: none}
resources: {gpu: 0.5}
"""
SEARCH = """
import json
import ray
import lmoe_tune as lt

class Heard(lt.Observer):
    def on_message(self, text): said.append(text)

if __name__ == "__main__":
    said = []
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    sweep = lt.search(lt.load_spec("spec.yaml"), home="lmoe_runs", observer=Heard())
    print(json.dumps([sweep.state, said]))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The sweep's trials by what they met, what was said, and each step's share of the GPU and process."""
    command = Command(tmp_path_factory.mktemp("gpu"))
    files = {"crowded.py": MODULE, "spec.yaml": SPEC, "search.py": SEARCH}
    for name, text in files.items():
        (command.cwd / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "search.py"],
        cwd=command.cwd,
        env=command.environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    state, said = json.loads(done.stdout.splitlines()[-1])
    lines = (command.cwd / "steps.txt").read_text(encoding="utf-8").splitlines()
    steps = [line.split() for line in lines]
    trials = {trial.params["way"]: trial for trial in command.trials()}
    return {"state": state, "said": said, "steps": steps, "trials": trials}


def test_a_trial_without_memory_gets_the_gpu_to_itself_once(found: dict[str, Any]) -> None:
    assert found["state"] == "complete"
    shares = {
        way: list(dict.fromkeys(share for name, share, _ in found["steps"] if name == way))
        for way in ("small", "large", "huge")
    }
    assert shares == {"small": ["0.5"], "large": ["0.5", "1.0"], "huge": ["0.5", "1.0"]}
    trials = found["trials"]
    assert trials["small"].state == trials["large"].state == "complete"
    assert "a GPU to itself" in trials["large"].notes[0]
    assert trials["huge"].state == "failed"
    assert "set a smaller train.batch_size" in trials["huge"].failure
    assert sum("a GPU to itself" in text for text in found["said"]) == 2


def test_a_lost_context_ends_its_process_and_another_one_goes_on(found: dict[str, Any]) -> None:
    processes = [process for name, _, process in found["steps"] if name == "lost"]
    assert found["trials"]["lost"].state == "complete"
    first, *later = processes
    assert later and first not in later
    after = found["steps"].index(["lost", "0.5", first]) + 1
    assert first not in [process for _, _, process in found["steps"][after:]]
