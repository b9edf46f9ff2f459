"""A reader that has gone, a closed descriptor, a full disk: the exit code still says how the command ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lmoe_tune
from lmoe_tune.cli.streams import PatientFile

COMMAND = [sys.executable, "-m", "lmoe_tune.cli.main"]


def run(words: str, tail: str, cwd: Path) -> tuple[int, str]:
    """Exit code and what else is seen, of a command of which `tail` does something to the streams."""
    line = f'"$@" {tail}; echo "rc ${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *COMMAND, *words.split()],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    seen, _, code = done.stdout.rpartition("rc ")
    return int(code), seen + done.stderr


@pytest.mark.parametrize(
    ("words", "tail", "code"),
    [
        ("methods", "| true", 0),
        ("list", "2>&1 | true", 0),
        ("no-such-command", "2>&1 | true", 2),
        ("methods", ">&-", 0),
        ("list", "2>&-", 0),
        ("list", "2> /dev/full", 0),
        ("methods", "> /dev/full", 1),
    ],
)
def test_the_exit_code_does_not_depend_on_who_reads(
    words: str, tail: str, code: int, tmp_path: Path
) -> None:
    found, seen = run(words, tail, tmp_path)
    assert found == code
    assert "Traceback" not in seen
    assert "Broken pipe" not in seen


def test_a_pipe_without_a_reader_takes_what_is_written_from_then_on() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    file = PatientFile(writer, always=False)
    assert file.write(b"nobody reads it") == 15
    assert os.readlink(f"/proc/self/fd/{writer}") == os.devnull
    assert file.write(b"nor this") == 8
    os.close(writer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_each_signal_that_asks_to_stop_ends_a_command_with_130(number: int, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from lmoe_tune.cli import main\n"
        f"main.app = lambda *words, **more: os.kill(os.getpid(), {int(number)})\n"
        "main.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 130
    assert "interrupted" in done.stderr


def test_a_hangup_that_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from lmoe_tune.cli import main\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "main.app = lambda *words, **more: os.kill(os.getpid(), signal.SIGHUP)\n"
        "main.main()"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


def test_ctrl_c_while_the_command_line_is_imported_is_no_traceback(tmp_path: Path) -> None:
    code = """
import sys

class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Pressed())
from lmoe_tune.__main__ import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(lmoe_tune.__file__).parents[1])},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )

    assert (done.returncode, done.stderr) == (130, "\ninterrupted; nothing was started\n")


def test_the_package_is_the_command_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lmoe_tune", "--version"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(lmoe_tune.__file__).parents[1])},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )

    assert done.stdout == f"{lmoe_tune.__version__}\n"
