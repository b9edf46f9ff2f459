"""The stock sweep: Ray Tune, OptunaSearch and MLflowLoggerCallback, put together as their documentation
does.

    python stock_ray.py WORK.json [--reuse-actors]          (run by sweep_overhead.py)

A function trainable, two trials at a time with one CPU each, MLflow in a SQLite file. Function
trainables cannot be reused, so `--reuse-actors` uses a class with the same training code. The training
is that of `bare_loop.py`; the baseline is trained here, before the sweep. Everything else is left at its
default, and no checkpoints are written. Prints each trial's last metrics as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch

from benchmarks.peers import bare_loop

METRICS = ("train_loss", "val_accuracy", "val_fine_auroc", "val_coarse_auroc", "val_auroc")


def epochs(config: dict[str, Any], work: dict[str, Any]) -> Any:
    """One configuration from the baseline on: an iterator over the metrics of its epochs."""
    torch.set_num_threads(1)
    model = bare_loop.new_model(work)
    model.load_state_dict(torch.load(work["baseline_path"]))
    return bare_loop.train(model, bare_loop.load_data(work), work["train"], config)


def trainable(config: dict[str, Any], work: dict[str, Any]) -> None:
    for metrics in epochs(config, work):
        tune.report(metrics)


class Trainable(tune.Trainable):  # type: ignore[misc]
    def setup(self, config: dict[str, Any], work: dict[str, Any]) -> None:
        self.work = work
        self.epochs = epochs(config, work)

    def step(self) -> dict[str, Any]:
        return next(self.epochs)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.epochs = epochs(new_config, self.work)
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description="A sweep as a user of Ray Tune would write it.")
    parser.add_argument("work", type=Path)
    parser.add_argument("--reuse-actors", action="store_true")
    args = parser.parse_args()
    work = json.loads(args.work.read_text(encoding="utf-8"))
    home = Path(work["home"])

    torch.set_num_threads(1)
    bare_loop.train_baseline(work, bare_loop.load_data(work), Path(work["baseline_path"]))
    ray.init(num_cpus=2)
    space = {
        name: tune.loguniform(known["low"], known["high"])
        if known["log"]
        else tune.uniform(known["low"], known["high"])
        for name, known in work["space"].items()
    }
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(Trainable if args.reuse_actors else trainable, work=work),
            {"cpu": 1},
        ),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="val_auroc",
            mode="max",
            # the same configurations as everybody trains here come first, and no others follow
            search_alg=OptunaSearch(points_to_evaluate=work["configurations"]),
            num_samples=len(work["configurations"]),
            max_concurrent_trials=2,
            reuse_actors=args.reuse_actors,
        ),
        run_config=tune.RunConfig(
            name="digits",
            storage_path=str(home / "ray_results"),
            stop={"training_iteration": work["train"]["epochs"]},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{home / 'mlflow.db'}", experiment_name="digits"
                )
            ],
        ),
    )
    results = tuner.fit()
    print()
    for result in results:
        if result.error is not None:
            raise result.error
        metrics = {name: result.metrics[name] for name in METRICS}
        print(json.dumps({"params": result.config, "metrics": metrics}), flush=True)


if __name__ == "__main__":
    main()
