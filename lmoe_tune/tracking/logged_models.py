"""The best checkpoints as MLflow logged models, logged from code: `served/detector.py` beside the
checkpoint.

Uses MlflowClient's steps (create, upload, finalize) and not `mlflow.pyfunc.log_model`, which works
on global state (tracking address, active run) and prints; with an input example it also runs the
model, which imports torch into this process (2.9 s). A model is PENDING until the last step: what a
kill left is known by that.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lmoe_tune.errors import TrackingError
from lmoe_tune.records import TrialRecord
from lmoe_tune.snapshot import ModelSource, SweepSnapshot
from lmoe_tune.tracking.carried import upload_model
from lmoe_tune.tracking.runs import Runs, dataset_key, every_page

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.store.entities import PagedList


NAME = "detector"
_SCORES = "msp, max_logit or energy; higher = more in-distribution"


class CheckpointGoneError(TrackingError):
    """A checkpoint was dropped meanwhile: its trial is no longer among the best. Says nothing about
    MLflow.
    """


class LoggedModels:
    """The logged models of one sweep in one experiment."""

    def __init__(self, runs: Runs, sweep_id: str, artifact_root: Path | None) -> None:
        self._runs = runs
        self._client = runs.client
        self._sweep_id = sweep_id
        self._artifact_root = artifact_root
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._known: dict[tuple[int, str], LoggedModel] = {}

    def find(self, linked: Collection[str]) -> None:
        """Learn which models there are; delete those that a kill left unfinished, and doubles.

        Args:
            linked: ids that are outputs of a run; a model that is not is unfinished too.
        """
        self._known = {}
        found = every_page(self._search)
        for model in sorted(found, key=lambda model: (model.creation_timestamp, model.model_id)):
            tags = model.tags
            key = (int(tags.get("lmoe_tune.trial", -1)), tags.get("lmoe_tune.sha256", ""))
            is_whole = str(model.status) == "READY" and model.model_id in linked
            if not is_whole or key in self._known:
                self._delete(model)
            else:
                self._known[key] = model

    def deliver(
        self, snapshot: SweepSnapshot, sources: list[ModelSource], run_ids: Mapping[int, str]
    ) -> dict[int, str]:
        """Make the models exactly those of `sources`; without any, leave them. Returns trial ->
        model id.

        Raises:
            CheckpointGoneError: one of `sources` is gone.
        """
        wanted = {(source.trial, self._sha256(source.checkpoint)): source for source in sources}
        for key, source in wanted.items():
            if key in self._known and self._known[key].source_run_id != run_ids[source.trial]:
                self._delete(self._known.pop(key))  # of a run that existed twice and was deleted
            if key not in self._known:
                trial, run_id = snapshot.trials[source.trial], run_ids[source.trial]
                try:
                    self._known[key] = self._log(snapshot, trial, source, key[1], run_id)
                except Exception:
                    if not source.checkpoint.exists():
                        raise _gone(source.checkpoint) from None
                    raise
        if wanted:
            for key in [key for key in self._known if key not in wanted]:
                self._delete(self._known.pop(key))
        return self.ids()

    def of_other_runs(self, run_ids: Collection[str]) -> set[str]:
        """The ids of the known models that belong to none of these runs."""
        models = self._known.values()
        return {model.model_id for model in models if model.source_run_id not in run_ids}

    def ids(self) -> dict[int, str]:
        """The finished models that are known, by trial."""
        return {trial: model.model_id for (trial, _), model in self._known.items()}

    def _search(self, token: str | None) -> PagedList[LoggedModel]:
        return self._client.search_logged_models(
            [self._runs.experiment_id],
            filter_string=f"tags.`lmoe_tune.sweep_id` = '{self._sweep_id}'",
            max_results=100,
            page_token=token,
        )

    def _log(
        self,
        snapshot: SweepSnapshot,
        trial: TrialRecord,
        source: ModelSource,
        sha256: str,
        run_id: str,
    ) -> LoggedModel:
        from mlflow.entities import LoggedModelOutput, Metric
        from mlflow.exceptions import MlflowException

        self._runs.sent.setdefault(run_id)
        model = self._client.create_logged_model(
            self._runs.experiment_id,
            name=NAME,
            source_run_id=run_id,
            tags={
                "lmoe_tune.sweep": snapshot.sweep,
                "lmoe_tune.sweep_id": snapshot.sweep_id,
                "lmoe_tune.trial": str(trial.number),
                "lmoe_tune.sha256": sha256,
            },
            params={
                name: str(trial.params[name]) for name in snapshot.searched if name in trial.params
            },
        )
        upload_model(
            self._client,
            model,
            "checkpoint",
            source.checkpoint,
            outputs={"class": "string", "score": "double"},
            about={"sweep": snapshot.sweep, "trial": source.trial, "score": _SCORES},
        )
        last = trial.epochs[-1] if trial.epochs else None
        step = last.epoch if last else 0
        try:
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=step)])
        except (
            MlflowException
        ):  # refused when it was done before: MLflow repeats a POST whose answer was lost
            outputs = self._client.get_run(run_id).outputs
            if outputs is None or model.model_id not in [
                output.model_id for output in outputs.model_outputs
            ]:
                raise
        if last:  # the run has these already, identical; this links them to the model
            measured_on = [one for one in snapshot.datasets if one.role == "validation"]
            name_of_set, digest = dataset_key(measured_on[0]) if measured_on else (None, None)
            metrics = [
                Metric(
                    name,
                    float(value),
                    last.time_ms,
                    last.epoch,
                    model_id=model.model_id,
                    dataset_name=name_of_set,
                    dataset_digest=digest,
                    run_id=run_id,
                )
                for name, value in last.metrics.items()
                if name not in self._runs.refused
            ]
            self._client.log_batch(run_id, metrics=metrics, synchronous=True)
        self._client.finalize_logged_model(model.model_id, "READY")
        return model

    def _delete(self, model: LoggedModel) -> None:
        """Delete the model, and its files if they lie under our own root: MLflow itself keeps them."""
        self._client.delete_logged_model(model.model_id)
        parts = urlsplit(model.artifact_location)
        if self._artifact_root is None or parts.scheme not in ("", "file"):
            return  # a server's storage: `mlflow gc` frees it
        folder = Path(unquote(parts.path))
        if folder.name == "artifacts":
            folder = folder.parent
        if folder.name == model.model_id and folder.is_relative_to(self._artifact_root):
            shutil.rmtree(folder, ignore_errors=True)

    def _sha256(self, path: Path) -> str:
        try:
            status = path.stat()
        except FileNotFoundError:
            raise _gone(path) from None
        key = (str(path), status.st_size, status.st_mtime_ns)
        if key not in self._hashes:
            with path.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes[key]


def _gone(checkpoint: Path) -> CheckpointGoneError:
    return CheckpointGoneError(
        f"the checkpoint {checkpoint} was to be logged as a model, but is gone"
    )
