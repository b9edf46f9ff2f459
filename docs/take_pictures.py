"""Takes the pictures of the docs: MLflow's pages over a real sweep, in headless Chromium.

lmoe-tune search digits --home HOME
python docs/take_pictures.py HOME digits       # writes docs/images/mlflow-charts.png and mlflow-table.png
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import lmoe_tune as lt
from lmoe_tune.tracking.comparison import sweep_key
from tests.tracking.test_browser import opened

IMAGES = Path(__file__).resolve().parent / "images"


def main() -> None:
    home, name = Path(sys.argv[1]).resolve(), sys.argv[2]
    sweep = lt.open_sweep(name, home)
    key, experiment_id = sweep_key(sweep.ledger.sweep_id), sweep.summary()["experiment_id"]
    uri = f"sqlite:///{home / 'mlflow.db'}"

    with (
        tempfile.TemporaryDirectory() as scratch,
        opened(uri, experiment_id, Path(scratch), home / "mlartifacts") as pages,
    ):
        pages.take(IMAGES / "mlflow-charts.png", key)
        pages.take(IMAGES / "mlflow-table.png", key, table=True)


if __name__ == "__main__":
    main()
