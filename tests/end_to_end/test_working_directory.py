"""A working directory whose files are named like the modules of libraries: no process imports them."""

from __future__ import annotations

import re
import signal
import subprocess
import sysconfig
import urllib.request
from pathlib import Path

import pytest

from tests.end_to_end.conftest import PATIENCE_S, Command
from tests.end_to_end.test_images import SPEC, write_photos

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(300)]

NAMES = (
    *("asyncio", "csv", "json", "logging", "queue", "random", "select", "socket", "subprocess"),
    *("PIL", "click", "fsspec", "mlflow", "numpy", "optuna", "pandas", "psutil", "pyarrow", "ray"),
    *("rich", "scipy", "sklearn", "sqlalchemy", "torch", "torchvision", "trainables", "uvicorn"),
    *("fastapi", "flask", "jinja2", "pydantic", "requests", "starlette", "yaml"),
)


@pytest.fixture
def crowded(tmp_path: Path) -> Command:
    """A folder full of modules, each of which leaves its name where it is imported, and fails."""
    for name in NAMES:
        code = (
            f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\nraise OSError({name!r})\n"
        )
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    write_photos(tmp_path / "id", num_classes=6, per_class=12, seed=0)
    write_photos(tmp_path / "outliers", num_classes=3, per_class=12, seed=1)
    (tmp_path / "photos.yaml").write_text(SPEC, encoding="utf-8")
    return Command(tmp_path)


def run(crowded: Command, *arguments: str) -> str:
    """What the installed command prints on stderr; an empty entry of PYTHONPATH means the folder, too."""
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts"), "lmoe-tune"), *arguments],
        cwd=crowded.cwd,
        env=environment(crowded),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (crowded.cwd / "imported").exists(), (crowded.cwd / "imported").read_text(
        encoding="utf-8"
    )
    return done.stderr


def environment(crowded: Command) -> dict[str, str]:
    found = crowded.environment()
    return {name: value for name, value in found.items() if name != "PYTHONPATH"}


def test_what_lies_beside_the_spec_hides_no_library_from_any_process(crowded: Command) -> None:
    first_image = "id/class 0/000.jpg"
    run(crowded, "data", "inspect", "photos.yaml")
    said = run(crowded, "search", "photos.yaml")
    assert "Traceback" not in said and "MLflow" not in said
    run(crowded, "resume", "photos", "--trials", "+1")
    run(crowded, "export", "photos", "--out", "detector")
    run(crowded, "predict", "detector", first_image)
    run(crowded, "status", "photos")
    run(crowded, "doctor")


def test_the_user_interface_does_not_import_it_either(crowded: Command) -> None:
    run(crowded, "search", "photos.yaml")
    process = subprocess.Popen(
        [Path(sysconfig.get_path("scripts"), "lmoe-tune"), "ui"],
        cwd=crowded.cwd,
        env=environment(crowded),
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    try:
        assert process.stderr is not None
        found = None
        while found is None:
            line = process.stderr.readline()
            assert line, "it ended before it was ready"
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
        with urllib.request.urlopen(f"{found[0]}/api/2.0/mlflow/experiments/search?max_results=1"):
            pass
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert not (crowded.cwd / "imported").exists()
