"""What a model in MLflow takes along."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lmoe_tune.tracking.carried import requirements, write_package


def test_the_package_that_a_model_carries_loads_detectors_with_what_the_model_requires(
    tmp_path: Path,
) -> None:
    archive = write_package(tmp_path)
    script = f"""
import json, sys
sys.path.insert(0, {str(archive)!r})
import lmoe_tune.detector.trained
print(json.dumps([lmoe_tune.__file__, sorted(name.partition(".")[0] for name in sys.modules)]))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        encoding="utf-8",
    )
    place, modules = json.loads(done.stdout)
    assert place.startswith(str(archive))
    assert not set(modules) & {"ray", "optuna", "mlflow", "sklearn", "typer", "rich", "matplotlib"}


def test_a_model_requires_no_version_of_this_package() -> None:
    for of_checkpoint in (False, True):
        names = [line.partition("==")[0] for line in requirements(of_checkpoint=of_checkpoint)]
        assert "lmoe-tune" not in names and {"torch", "numpy", "pillow"} <= set(names)
        assert ("torchvision" in names) == of_checkpoint
