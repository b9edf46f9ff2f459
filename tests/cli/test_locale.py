"""A sweep made under UTF-8 is read, shown and left as it is under locales with other encodings."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lmoe_tune
from lmoe_tune.sweep.lifecycle import write_records
from lmoe_tune.sweep.view import read_spec
from tests.command_line import environment

Cli = Callable[..., Any]
EXPERIMENT = "Vögel"
COMMANDS = [
    ("check", "birds.yaml"),
    ("data", "inspect", "birds.yaml"),
    ("search", "birds.yaml", "--dry-run", "--fresh"),
    ("list",),
    ("status", "birds"),
    ("leaderboard", "birds"),
    ("best", "birds"),
    ("doctor",),
    ("report", "birds"),
]
END = "-- end of a command --"
EACH_OF_THEM = f"""if True:  # one process of that locale
    import sys
    from lmoe_tune.cli import main, streams
    streams.install()
    for command in {COMMANDS!r}:
        code = main.run(command)
        if code:
            sys.exit(f"{{command}} ended with {{code}}")
        print({END!r}, flush=True)
"""
CODE = Path(lmoe_tune.__file__).resolve().parents[1]  # also where it is not installed


@pytest.fixture(params=["ASCII", "ISO-8859-1"])
def locale(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a locale that cannot write every character."""
    if request.param == "ASCII":
        return {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    folder, name = tmp_path / "locales", "xx_XX.ISO-8859-1"
    folder.mkdir()
    if shutil.which("localedef") is not None:  # it makes the locale and complains all the same
        command = ["localedef", "-f", "ISO-8859-1", "-i", "POSIX", str(folder / name)]
        subprocess.run(command, capture_output=True, check=False)
    if not (folder / name).is_dir():
        pytest.skip("no localedef to make a locale with")
    return {"LOCPATH": str(folder), "LC_ALL": name, "PYTHONUTF8": "0"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_utf8_wrote_is_read_and_kept_under_any_locale(
    sweep: Callable[..., Any], tmp_path: Path, locale: dict[str, str]
) -> None:
    text = (
        "# Die Vögel\nname: birds\ndata: {id: {dataset: digits}}\n"
        f"tracking: {{experiment: {EXPERIMENT}}}\n"
    )
    (tmp_path / "birds.yaml").write_text(text, encoding="utf-8")
    folder = sweep("birds", 0.9, 0.8, more=[f"tracking.experiment={EXPERIMENT}"]).folder
    kept = folder.spec.read_bytes()
    assert EXPERIMENT.encode() in kept

    done = subprocess.run(
        [sys.executable, "-c", EACH_OF_THEM],
        cwd=tmp_path,
        env=environment(**locale) | {"PYTHONPATH": str(CODE)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    said = done.stdout.split(END)
    assert len(said) == len(COMMANDS) + 1 and all(text.strip() for text in said[:-1])

    assert folder.spec.read_bytes() == kept


def test_a_resume_leaves_the_frozen_spec_as_it_is(sweep: Callable[..., Any]) -> None:
    folder = sweep("birds", 0.9, more=[f"tracking.experiment={EXPERIMENT}"]).folder
    folder.spec.write_bytes(b"# a comment of another version\n" + folder.spec.read_bytes())
    kept = folder.spec.read_bytes()

    write_records(folder, read_spec(folder))

    assert folder.spec.read_bytes() == kept


def test_a_sweep_that_cannot_be_read_is_one_line_of_the_list(
    cli: Cli, sweep: Callable[..., Any]
) -> None:
    sweep("good", 0.9)
    for name, content in (("latin", "ö".encode("latin-1")), ("empty", b""), ("other", b"[]")):
        folder = sweep(name, 0.9).folder
        folder.spec.write_bytes(content)
    folder = sweep("foreign", 0.9).folder
    folder.ledger.write_bytes(b"\xff\n" * 3)

    done = cli("list", "--format", "csv")

    assert done.returncode == 0, done.stderr
    states = dict(line.split(",")[:2] for line in done.stdout.splitlines()[1:])
    assert states.pop("good") != "damaged"
    assert states == dict.fromkeys(("latin", "empty", "other", "foreign"), "damaged")
    assert "byte 0xf6 at 0 is not UTF-8" in done.stderr


def test_a_file_name_that_the_locale_cannot_write_is_said_so(cli_process: Cli) -> None:
    done = cli_process(
        "check", "digits", "--set", "model.weights=nets/ö.pt",
        LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0",
    )  # fmt: skip

    assert done.returncode == 2
    assert "Error:" not in done.stderr
