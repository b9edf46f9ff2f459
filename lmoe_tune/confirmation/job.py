"""One job of a confirmation, in a worker: train a candidate on the in-distribution classes, and
test it.

Or, in a reseeding, train it as the search did but for the seed, and validate it.

Nothing else in the package gives test images to a model, and no worker of a search imports this
module.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from lmoe_tune.confirmation.plan import (
    DESCRIPTION,
    DIVERGED,
    MODEL,
    RESAMPLED,
    RESEED,
    SCORES,
    VAL_DIVERGED,
    trains_held_out,
)
from lmoe_tune.data import SearchData, load_search_data
from lmoe_tune.data.sealed_images import FINE, ID, Opened, TestImages, open_test_data
from lmoe_tune.data.sealed_plan import seen_in_training
from lmoe_tune.durable import write_durably
from lmoe_tune.errors import DivergedError, TrainingError
from lmoe_tune.evaluation import (
    auroc,
    chance_metrics,
    metrics_of_scores,
    outputs,
    resampled_metrics_of_scores,
)
from lmoe_tune.placements import COMPARABLE
from lmoe_tune.spec import DataSpec, Spec
from lmoe_tune.training.loop import EVALUATION_BATCH
from lmoe_tune.training.trial import Load, Trained, TrialEpoch, run_trial
from trainables import load_method
from trainables.worker import (
    import_path_of,
    num_recorded,
    objective_of,
    read_spec,
    trial_folder,
)

T = TypeVar("T")
_Chance = tuple[int, Mapping[str, float]]
"""The number of classes, and the metrics that a diverged training has at its end."""
log = logging.getLogger(__name__)

NUM_RESAMPLES = 1000
NEAR_DUPLICATES = "test_near_duplicates"
DISTINCT = ("test_auroc", "test_fine_auroc", "test_coarse_auroc", "test_accuracy")


def run_job(config: dict[str, Any]) -> Iterator[TrialEpoch]:
    """The epochs of the job that a worker's config names.

    A training that diverges is a result, too: its last metrics are those of chance, and one of them
    says so.
    """
    spec, point = read_spec(config), config["params"]
    candidate = config["candidates"][point["candidate"]]
    job_spec = spec.model_copy(
        update={
            "data": spec.data.model_copy(update={"split": point["split"]}),
            "train": spec.train.model_copy(update={"seed": point["seed"]}),
        }
    )
    if candidate["purpose"] == RESEED:
        return _validated(config, job_spec, candidate)

    return _tested(config, job_spec, candidate)


def _validated(
    config: dict[str, Any], job_spec: Spec, candidate: dict[str, Any]
) -> Iterator[TrialEpoch]:
    """A trial like the search's, with another seed: it sees what the search sees."""

    def chance() -> _Chance:
        data = load_search_data(job_spec.data, Path(config["home"]))
        metrics = {"val_accuracy": 1 / data.num_classes, VAL_DIVERGED: 1.0}
        return data.num_classes, metrics | dict.fromkeys(COMPARABLE, 0.5)

    return _trained(config, job_spec, candidate, chance)


def _tested(
    config: dict[str, Any], job_spec: Spec, candidate: dict[str, Any]
) -> Iterator[TrialEpoch]:
    """A training on all in-distribution classes; the metrics of its last epoch have those of the
    test.

    A job that is killed before its last epoch is recorded is tested again from its checkpoint, with
    the same result.
    """
    folder, home = trial_folder(config), Path(config["home"])
    with_held_out = trains_held_out(job_spec)

    def opened() -> Opened:
        return open_test_data(job_spec.data, home, with_held_out=with_held_out)

    def seen() -> dict[str, npt.NDArray[np.bool_]]:
        return seen_in_training(job_spec.data, home, with_held_out=with_held_out)

    def at_end(trained: Trained) -> dict[str, float]:
        metrics, arrays = measure(trained, job_spec, opened().test, seen())
        if job_spec.train.seed == candidate.get("keeps_model_of"):
            _keep_model(folder, trained)
        _keep_arrays(folder, arrays)
        return metrics

    def chance() -> _Chance:
        training, test = opened().training, opened().test
        metrics = chance_metrics(test.sizes, training.num_classes) | {DIVERGED: 1.0}
        number = num_seen(seen())
        if number > 0:
            metrics |= distinct(metrics) | {NEAR_DUPLICATES: number}
        of_images = metrics.keys() - {DIVERGED, NEAR_DUPLICATES}
        resampled = {name: np.full(NUM_RESAMPLES, metrics[name]) for name in of_images}
        _keep_arrays(folder, _compared(test, lambda novel_class: 0.5, resampled))
        return training.num_classes, metrics

    def load(data: DataSpec, home: Path) -> SearchData:
        return open_test_data(data, home, with_held_out=with_held_out).training

    return _trained(config, job_spec, candidate, chance, load=load, at_end=at_end)


def _trained(
    config: dict[str, Any],
    job_spec: Spec,
    candidate: dict[str, Any],
    chance: Callable[[], _Chance],
    load: Load | None = None,
    at_end: Callable[[Trained], Mapping[str, float]] | None = None,
) -> Iterator[TrialEpoch]:
    """The epochs of a job's training.

    Args:
        chance: asked only if the training diverges, which counts at chance level.
        load: as for `run_trial`, and so is `at_end`.
    """
    folder, params = trial_folder(config), dict(candidate["params"])
    method = load_method(candidate["method"], import_path_of(config))
    epochs = run_trial(
        job_spec,
        objective_of(method, params),
        params,
        home=Path(config["home"]),
        folder=folder / "checkpoints",
        num_recorded=num_recorded(folder),
        load=load,
        at_end=at_end,
    )
    last: TrialEpoch | None = None
    try:
        for last in epochs:
            yield last
    except TrainingError as error:
        # the baseline of a seed may diverge as well; any other error is not a result
        if not isinstance(error, DivergedError) and not isinstance(error.__cause__, DivergedError):
            raise
        log.warning("%s; this training counts as chance", error)
        num_classes, metrics = chance()
        yield from _at_chance(job_spec, num_classes, metrics, last)


@torch.inference_mode()
def measure(
    trained: Trained,
    spec: Spec,
    test: TestImages,
    seen: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> tuple[dict[str, float], dict[str, npt.NDArray[Any]]]:
    """The test metrics of a model, and what is kept of its test.

    The arrays: `scores_<set>` (N,) of each set; `labels`, `predicted` and `confidence` (N,) of the
    in-distribution images; `novel_auroc`, `novel_count` and `novel_class` (C,) of each test-novel
    class by itself; `fingerprint` of the test images; `resampled_<metric>` (R,), the same images
    for all models of a split.

    Args:
        seen: masks of the test images, `id` and `fine`, of which a near-duplicate was trained on or
            validated with.

    Raises:
        DivergedError: the model's logits are not finite.
    """
    model, images = trained.model, trained.images
    model.eval()
    # In fp32 whatever the training's precision was: the test is of the network that will be deployed.
    chunks = images.chunks_of(test.images, EVALUATION_BATCH)
    found = outputs((model(chunk).float() for chunk in chunks), spec.objective.score)
    if not found.finite:
        raise DivergedError("the logits of the test images are not finite")

    scores = test.parts(found.scores)
    confidence, predicted = test.parts(found.confidence)[ID], test.parts(found.predicted)[ID]
    correct = predicted == torch.from_numpy(test.labels).to(predicted.device)
    metrics = metrics_of_scores(scores, confidence, correct)
    resampled = resampled_metrics_of_scores(
        scores, confidence, correct, num_resamples=NUM_RESAMPLES, seed=spec.data.split
    )
    number = num_seen(seen or {})
    if number > 0:
        kept = _without_seen(scores, confidence, correct, seen or {})
        drawn = resampled_metrics_of_scores(
            *kept, num_resamples=NUM_RESAMPLES, seed=spec.data.split
        )
        metrics |= distinct(metrics_of_scores(*kept)) | {NEAR_DUPLICATES: number}
        resampled |= distinct(drawn)

    def auroc_of(novel_class: int) -> float:
        mask = torch.from_numpy(test.novel_labels == novel_class).to(scores[FINE].device)
        return auroc(scores[ID], scores[FINE][mask]).item()

    arrays = {f"scores_{name}": of.cpu().numpy() for name, of in scores.items()}
    arrays |= {
        "labels": test.labels,
        "predicted": predicted.cpu().numpy(),
        "confidence": confidence.cpu().numpy(),
    }
    return metrics, arrays | _compared(test, auroc_of, resampled)


def _without_seen(
    scores: Mapping[str, torch.Tensor],
    confidence: torch.Tensor,
    correct: torch.Tensor,
    seen: Mapping[str, npt.NDArray[np.bool_]],
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """The same without the test images that training has seen a near-duplicate of; a set of which
    nothing would be left stays whole."""
    kept = dict(scores)
    for name, mask in seen.items():
        rest = torch.from_numpy(~mask).to(confidence.device)
        if not rest.any():
            continue
        kept[name] = scores[name][rest]
        if name == ID:
            confidence, correct = confidence[rest], correct[rest]
    return kept, confidence, correct


def num_seen(seen: Mapping[str, npt.NDArray[np.bool_]]) -> int:
    """How many test images training has seen a near-duplicate of."""
    return sum(int(mask.sum()) for mask in seen.values())


def distinct(metrics: Mapping[str, T]) -> dict[str, T]:
    """The main test metrics, named as those without near-duplicates."""
    return {f"{name}_distinct": metrics[name] for name in DISTINCT if name in metrics}


def _compared(
    test: TestImages, auroc_of: Callable[[int], float], resampled: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    """What is kept of every test, also that of a training that diverged."""
    novel, counts = np.unique(test.novel_labels, return_counts=True)
    arrays: dict[str, npt.NDArray[Any]] = {
        "fingerprint": np.array(test.fingerprint),
        "novel_auroc": np.array([auroc_of(label) for label in novel.tolist()]),
        "novel_count": counts,
        "novel_class": novel,
    }
    return arrays | {f"{RESAMPLED}{name}": values for name, values in resampled.items()}


def _at_chance(
    spec: Spec, num_classes: int, metrics: Mapping[str, float], last: TrialEpoch | None
) -> Iterator[TrialEpoch]:
    """The epochs that a training did not reach; the last of them with these metrics."""
    baseline, key = (last.baseline, last.baseline_key) if last is not None else ({}, "")
    first = last.epoch + 1 if last is not None else 1
    for epoch in range(first, spec.train.epochs + 1):
        of_epoch = {"val_accuracy": 1 / num_classes}
        if epoch == spec.train.epochs:
            of_epoch |= dict(metrics)
        yield TrialEpoch(epoch, of_epoch, baseline, key)


def _keep_arrays(folder: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / SCORES, content.getvalue())


def _keep_model(folder: Path, trained: Trained) -> None:
    state = {name: value.cpu().contiguous() for name, value in trained.model.state_dict().items()}
    content = io.BytesIO()
    torch.save(state, content)
    write_durably(folder / MODEL, content.getbuffer())
    write_durably(folder / DESCRIPTION, json.dumps(trained.describes.document()).encode())
