"""What a command itself puts into MLflow, beside the projection: a report, a detector for the
registry.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmoe_tune.tracking import settings
from lmoe_tune.tracking.carried import upload_model
from lmoe_tune.tracking.judge import translated
from lmoe_tune.tracking.projection import EXPERIMENT_TAG
from lmoe_tune.tracking.store import connect, follow_home

if TYPE_CHECKING:
    pass

NAME = "exported-detector"
ALIAS, CONFIRMING = "confirmed", "real"
REPORT = "report"
"""The folder of the sweep's run that holds its report."""
_URI = "MLFLOW_TRACKING_URI"


def upload_report(uri: str, folder: Path, *, run_id: str, artifact_root: Path) -> None:
    """Put the files of a report below `report/` of the sweep's run; an older one is replaced, file
    by file.

    Raises:
        TrackingError: MLflow cannot be reached or refuses the files.
    """
    with settings.held(), translated(uri):
        follow_home(uri, artifact_root, EXPERIMENT_TAG)
        connect(uri).log_artifacts(run_id, str(folder), REPORT)


def register_detector(
    uri: str,
    folder: Path,
    *,
    model_name: str,
    experiment_id: str,
    run_id: str,
    trial: int,
    artifact_root: Path,
    verdict: str | None = None,
) -> dict[str, Any]:
    """Log the folder of an exported detector as a model of its trial's run, and register a new
    version of it.

    Args:
        experiment_id, run_id: of the run that the detector belongs to.
        artifact_root: where a SQLite store beside it keeps its artifacts.
        verdict: what a confirmation said about it: a tag of the version. If it is `real`, the
            version also gets the alias `confirmed`, which is taken from the one that had it.

    Returns:
        `name`, `version`, `model_id` and `uri`.

    Raises:
        TrackingError: MLflow cannot be reached, or refuses the name.
    """
    tags = {"lmoe_tune.kind": "export", "lmoe_tune.exported_trial": str(trial)}
    columns = {"class": "string", "score": "double", "is_ood": "boolean"}
    with settings.held(), translated(uri):
        from mlflow.exceptions import MlflowException

        follow_home(uri, artifact_root, EXPERIMENT_TAG)
        client = connect(uri)
        try:
            client.create_registered_model(model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        model = client.create_logged_model(
            experiment_id, name=NAME, source_run_id=run_id, tags=tags
        )
        upload_model(client, model, "detector", folder, outputs=columns)
        client.finalize_logged_model(model.model_id, "READY")
        source = f"models:/{model.model_id}"  # which MLflow looks up where the whole process tracks
        with _tracking_at(uri):
            version = client.create_model_version(
                model_name, source, run_id=run_id, model_id=model.model_id
            ).version
        for key, value in {"trial": str(trial), "verdict": verdict or "not confirmed"}.items():
            client.set_model_version_tag(model_name, str(version), f"lmoe_tune.{key}", value)
        if verdict == CONFIRMING:
            client.set_registered_model_alias(model_name, ALIAS, str(version))
    return {
        "name": model_name,
        "version": int(version),
        "model_id": model.model_id,
        "uri": f"models:/{model_name}/{version}",
    }


@contextmanager
def _tracking_at(uri: str) -> Iterator[None]:
    """Have MLflow track at this address; afterwards, where the process of the user does."""
    from mlflow import set_tracking_uri

    before = os.environ.get(_URI)  # MLflow sets it, too, when it is told where to track
    set_tracking_uri(uri)
    try:
        yield
    finally:
        set_tracking_uri(None)  # type: ignore[arg-type]  # as if it had not been called
        if before is not None:
            os.environ[_URI] = before
