"""A sweep's report as artifacts of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmoe_tune.tracking.projection import EXPERIMENT_TAG
from lmoe_tune.tracking.store import connect, follow_home, translated

FOLDER = "report"


def upload_report(uri: str, folder: Path, *, tracked: dict[str, Any], artifact_root: Path) -> bool:
    """Put the files of a report below `report/` of the sweep's run; an older one is replaced, file by file.

    Returns:
        False where MLflow does not have the sweep yet.

    Raises:
        TrackingError: MLflow cannot be reached or refuses the files.
    """
    run_id = tracked["parent_run_id"]
    if run_id is None:
        return False
    with translated(uri):
        follow_home(uri, artifact_root, EXPERIMENT_TAG)
        connect(uri).log_artifacts(run_id, str(folder), FOLDER)
    return True
