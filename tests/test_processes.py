from __future__ import annotations

import os
import pwd
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from lmoe_tune import processes
from lmoe_tune.cli import machine
from lmoe_tune.confirmation.job_ledger import who
from lmoe_tune.errors import UsageError
from lmoe_tune.home import resolve_home
from lmoe_tune.processes import (
    NICE,
    JsonProcess,
    how_it_ended,
    python_command,
    safe_environment,
    settle_home,
    substitute_home,
    unusable_home,
)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module `odd_child` that only this process's import path leads to."""
    path = tmp_path / "modules" / "odd_child.py"
    path.parent.mkdir()
    monkeypatch.syspath_prepend(str(path.parent))
    return path


def test_what_is_no_json_object_is_passed_over(module: Path) -> None:
    module.write_text(
        "from lmoe_tune.processes import message_pipe\n"
        "def main():\n"
        "    print('hello', flush=True)\n"
        "    print('42', flush=True)\n"
        "    tell = message_pipe()\n"
        "    print('from a library')\n"
        "    tell({'told': 'é'})\n",
        encoding="utf-8",
    )
    process = JsonProcess("odd_child")
    assert list(process.messages()) == [{"told": "é"}]
    assert process.wait() == 0


def test_the_last_lines_of_a_dead_process_say_why(module: Path) -> None:
    module.write_text("def main():\n    raise RuntimeError('no such thing')\n", encoding="utf-8")
    process = JsonProcess("odd_child")
    said = process.how_it_ended()
    assert said.startswith("ended with status 1; its last lines:\n")
    assert said.endswith("RuntimeError: no such thing")


def test_a_process_that_was_killed_says_by_what(module: Path) -> None:
    module.write_text("import os\ndef main():\n    os.kill(os.getpid(), 9)\n", encoding="utf-8")
    said = JsonProcess("odd_child").how_it_ended()
    assert said == "was killed (signal 9, SIGKILL; perhaps the machine ran out of memory)"


AUTOGROUP = Path("/proc/self/autogroup")


@pytest.mark.skipif(not os.access(AUTOGROUP, os.W_OK), reason="sessions have no priority here")
def test_a_process_with_its_own_session_gives_way_and_takes_turns_again(module: Path) -> None:
    """`nice` alone does nothing there: the kernel shares processors out between sessions first."""
    before = AUTOGROUP.read_text(encoding="ascii")
    module.write_text(
        "import os, sys\n"
        "from lmoe_tune.processes import message_pipe\n"
        "def main():\n"
        "    tell = message_pipe()\n"
        "    for _ in sys.stdin:\n"
        f"        session = open({str(AUTOGROUP)!r}).read().split()[-1]\n"
        "        tell({'nice': os.nice(0), 'session': session})\n",
        encoding="utf-8",
    )
    process = JsonProcess("odd_child", own_session=True)
    answers = process.messages()

    process.give_way()
    process.send({})
    assert next(answers) == {"nice": NICE, "session": str(NICE)}
    process.take_turns()
    process.send({})
    assert next(answers) == {"nice": NICE, "session": "0"}

    process.close()
    assert list(answers) == []
    assert process.wait() == 0
    assert AUTOGROUP.read_text(encoding="ascii") == before


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (3, "ended with status 3"),
        (-signal.SIGHUP, "was killed (signal 1, SIGHUP)"),
        (-250, "was killed (signal 250)"),
    ],
)
def test_an_exit_status_is_said_in_words(status: int, said: str) -> None:
    assert how_it_ended(status) == said


def test_the_environment_of_a_child_leads_to_no_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", str(tmp_path), "/opt/own"]))
    assert safe_environment()["PYTHONPATH"] == "/opt/own"
    assert safe_environment()["PYTHONSAFEPATH"] == "1"
    monkeypatch.setenv("PYTHONPATH", "")
    assert "PYTHONPATH" not in safe_environment()


def test_nothing_breaks_where_the_working_directory_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert python_command("odd_child", "an argument")[-2:] == ["odd_child", "an argument"]
    assert python_command("odd_child")[:2] == [sys.executable, "-P"]


def test_a_child_finds_no_module_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise OSError('the working directory')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}.{os.pathsep}{tmp_path}")
    process = JsonProcess("lmoe_tune.data.digests")
    process.close()
    assert process.how_it_ended() == "ended with status 0"


def test_a_home_that_libraries_cannot_use_is_substituted_by_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert substitute_home(writable=True) is None
    assert "HOME" in safe_environment()
    assert safe_environment()["HOME"] == str(tmp_path)

    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    found = substitute_home(writable=False)
    assert found is not None
    assert Path(found).stat().st_mode & 0o777 == 0o700
    assert safe_environment()["HOME"] == found == substitute_home(writable=False)

    Path(found).chmod(0o777)  # somebody else could have made it
    other = substitute_home(writable=False)
    assert other is not None
    assert other != found


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, without HOME, as `docker run --user 12345` makes one."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nobody")
def test_a_user_without_name_and_home_gets_a_private_folder_and_is_called_somebody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(processes, "_unusable_home", None)

    assert who().startswith("somebody@")
    assert machine._users_home()["state"] == "warn"
    assert resolve_home("runs").name == "runs"
    with pytest.raises(UsageError, match="the folder that '~' stands for is unknown"):
        resolve_home("~/runs")

    settle_home()

    assert unusable_home() == ""
    assert Path.home().parent == tmp_path and os.environ["HOME"] == str(Path.home())
    row = machine._users_home()
    assert row["state"] == "warn" and f"there is none, so {Path.home()} is used" in row["found"]


def test_a_home_that_is_not_there_is_replaced_and_doctor_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(processes, "_unusable_home", None)
    monkeypatch.setenv("HOME", "/nonexistent")

    settle_home()

    assert "'/nonexistent' is not a folder" in machine._users_home()["found"]
    assert os.environ["HOME"].startswith(str(tmp_path))


def test_a_home_that_can_be_used_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_unusable_home", None)
    monkeypatch.setenv("HOME", str(tmp_path))

    settle_home()

    assert (os.environ["HOME"], unusable_home()) == (str(tmp_path), None)
