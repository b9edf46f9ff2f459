from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lmoe_tune.api.loading import load_spec
from lmoe_tune.spec import Spec
from lmoe_tune.sweep.shipping import sent


@pytest.fixture
def digits_spec() -> Spec:
    return load_spec("digits").spec


def test_the_package_and_one_s_own_modules_travel_and_nothing_else(
    tmp_path: Path, digits_spec: Spec
) -> None:
    beside = tmp_path / "beside"
    (beside / "mine").mkdir(parents=True)
    (beside / "mine" / "__init__.py").write_text("", encoding="utf-8")
    (beside / "mine" / "loss.py").write_text("from mine import helper\n", encoding="utf-8")
    (beside / "mine" / "helper.py").write_text("", encoding="utf-8")
    (beside / "data.bin").write_text("large", encoding="utf-8")
    spec = digits_spec.model_copy(update={"trainable": "mine.loss:Mine"})
    with sent(spec, beside) as environment:
        folder = Path(environment["working_dir"])
        own = {str(path.relative_to(folder)) for path in (folder / "own").rglob("*.*")}
        assert own == {"own/mine/__init__.py", "own/mine/helper.py", "own/mine/loss.py"}
        names = {path.name for path in folder.rglob("*")}
        assert {"worker.py", "logit_mixoe.py"} <= names
        assert not names & {".git", "data.bin", "pyproject.toml", "tests", "__pycache__"}
    assert not folder.exists()


def test_a_worker_without_the_package_uses_what_was_sent(tmp_path: Path, digits_spec: Spec) -> None:
    code = (
        "import sys; sys.path.insert(0, '.'); import lmoe_tune_sent; lmoe_tune_sent.prepare()\n"
        "import os, lmoe_tune; print(lmoe_tune.__file__); print(os.environ['LMOE_TUNE_SENT_MODULES'])"
    )
    empty = tmp_path / "lmoe_tune"  # an empty folder of that name is a namespace to Python
    empty.mkdir()
    with sent(digits_spec, tmp_path) as environment:
        folder = environment["working_dir"]
        done = subprocess.run(
            [sys.executable, "-S", "-c", code],
            cwd=folder,
            env={"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        )
        package, own = done.stdout.splitlines()
        assert package == f"{folder}/package/lmoe_tune/__init__.py"
        assert own == f"{folder}/own"
