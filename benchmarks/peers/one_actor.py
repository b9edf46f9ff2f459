"""The least that Ray Tune needs for a first training step: one actor that imports torch.

    python one_actor.py MARK          (run by resume.py)

Writes the time of its first step, in seconds since the epoch, to the file MARK. Only the actor imports torch,
nothing is read, restored, searched or recorded, and everything else is left at its default.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune


class OneStep(tune.Trainable):  # type: ignore[misc]
    def setup(self, config: dict[str, Any]) -> None:
        import torch

        self.model = torch.nn.Linear(8, 8)
        self.images = torch.rand(32, 8)
        self.mark = Path(config["mark"])

    def step(self) -> dict[str, Any]:
        self.mark.write_text(f"{time.time():.4f}\n", encoding="utf-8")
        loss = self.model(self.images).square().mean()
        loss.backward()
        return {"loss": loss.item()}


def main() -> None:
    mark = Path(sys.argv[1])
    ray.init(num_cpus=2)
    tuner = tune.Tuner(
        tune.with_resources(OneStep, {"cpu": 1}),
        param_space={"mark": str(mark)},
        run_config=tune.RunConfig(
            storage_path=str(mark.parent / "ray_results"), stop={"training_iteration": 1}
        ),
    )
    tuner.fit()


if __name__ == "__main__":
    main()
