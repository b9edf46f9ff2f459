"""The processes that we start, and the other processes of this machine.

Every Python process of ours is started here. It never looks for modules in the working directory,
where a `queue.py` of the user's would hide the library's, and neither do the processes that it
starts in turn. Other processes are read from `/proc`, which only Linux has; elsewhere there seem to
be none.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
NICE = 10  # of 19: with that, MLflow would not even be imported while both cores are busy
LAST_LINES = 5  # of a dead process's stderr, for a message
_MEANINGS = {
    signal.SIGKILL: "perhaps the machine ran out of memory",
    signal.SIGBUS: "perhaps a disk or /dev/shm is full",
    signal.SIGSEGV: "it crashed",
    signal.SIGABRT: "it crashed",
    signal.SIGXCPU: "its limit of CPU time was reached",
    signal.SIGTERM: "another process ended it",
}
_START = (
    "import sys; sys.path += [path for path in {paths!r} if path not in sys.path]; "
    "from importlib import import_module; import_module(sys.argv.pop(1)).main()"
)

Message = dict[str, Any]
_unusable_home: str | None = None


def python_command(module: str, *arguments: str) -> list[str]:
    """The argv of a Python process that runs `main()` of a module, with `arguments` in
    `sys.argv[1:]`.

    Start it with `safe_environment()`. It finds the package where this process found it, after all
    libraries.
    """
    package = str(Path(__file__).resolve().parents[1])
    given = [path for path in sys.path if os.path.isabs(path) and not _is_working_directory(path)]
    own = [path for path in given if not path.startswith((sys.prefix, sys.base_prefix))]
    start = _START.format(paths=[*own, package])
    return [sys.executable, "-P", "-c", start, module, *arguments]


def can_import(module: str, environment: Mapping[str, str]) -> bool:
    """Whether a process with this environment survives importing a module; it may raise."""
    command = [sys.executable, "-P", "-c", f"import {module}"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    return done.returncode >= 0


def safe_environment() -> dict[str, str]:
    """This process's environment, for a Python process that must not import from the working
    directory.
    """
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    if (home := substitute_home(writable=False)) is not None:
        environment["HOME"] = home
    searched = environment.pop("PYTHONPATH", "").split(os.pathsep)
    kept = [path for path in searched if os.path.isabs(path) and not _is_working_directory(path)]
    if kept:
        environment["PYTHONPATH"] = os.pathsep.join(kept)
    return environment


def substitute_home(*, writable: bool) -> str | None:
    """A private folder for HOME where libraries could not use the user's; None if they can.

    An unknown user without HOME has none at all, as in a container that is started under any uid.

    Args:
        writable: whether it must be writable, and not only be there.
    """
    home = os.path.expanduser("~")
    if os.path.isdir(home) and (not writable or os.access(home, os.W_OK | os.X_OK)):
        return None
    folder = Path(tempfile.gettempdir()) / f"lmoe-tune-home-{os.getuid()}"
    return str(own_folder(folder) or tempfile.mkdtemp(prefix="lmoe-tune-home-"))


def settle_home() -> None:
    """Set HOME to a private folder where the user's cannot be used; `unusable_home` knows of it."""
    global _unusable_home
    if (home := substitute_home(writable=False)) is not None:
        _unusable_home = os.environ.get("HOME", "")
        os.environ["HOME"] = home


def unusable_home() -> str | None:
    """The HOME that `settle_home` has replaced, empty if there was none; None if it was left."""
    return _unusable_home


def own_folder(folder: Path) -> Path | None:
    """The folder, made if need be, where nobody else can enter it; None if that is not so."""
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError:
        return None
    is_private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o700
    if is_private and status.st_uid == os.getuid():
        return folder

    return None


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone, in whatever it is
    doing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class JsonProcess(subprocess.Popen[bytes]):
    """A Python process of ours that is sent one JSON object a line, and answers with others.

    Anything else among its lines is skipped. It ends when its stdin is closed.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        own_session: bool = False,
    ) -> None:
        """Start the process.

        Args:
            module: what to run the `main()` of.
            environment: variables for it alone; a secret belongs here, not among the arguments.
            own_session: Ctrl-C in the terminal does not reach it.
        """
        super().__init__(
            python_command(module, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=safe_environment() | dict(environment or {}),
            start_new_session=own_session,
        )
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._reader = threading.Thread(target=self._keep_last_lines, daemon=True)
        self._reader.start()

    def give_way(self) -> None:
        """Let others go first where the processors are busy; a tenth of them is left to it. For one
        with a session of its own.

        Linux shares the processors out between sessions first, so `nice` alone would change nothing
        (sched(7), "The autogroup feature").
        """
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, NICE)
        self._set_priority_of_session(NICE)

    def take_turns(self) -> None:
        """Have it give way no longer: the session's part of it is undone, `nice` cannot be."""
        self._set_priority_of_session(0)

    def _set_priority_of_session(self, nice: int) -> None:
        for _ in range(5):
            try:
                Path(f"/proc/{self.pid}/autogroup").write_text(str(nice), encoding="ascii")
            except BlockingIOError:  # Linux takes ten such changes a second, of all users together
                time.sleep(0.05)
            except OSError:  # not on Linux, switched off, or it has ended
                return
            else:
                return

    def send(self, message: Message) -> None:
        """Raises OSError when it is gone."""
        assert self.stdin is not None
        self.stdin.write(json.dumps(message).encode() + b"\n")
        self.stdin.flush()

    def messages(self) -> Iterator[Message]:
        """What it says, until it ends."""
        assert self.stdout is not None
        with self.stdout as lines:
            for line in lines:
                with suppress(ValueError):  # printed, or killed in the middle of a line
                    message = json.loads(line)
                    if isinstance(message, dict):
                        yield message

    def close(self) -> None:
        """Let it end: nothing more will be sent."""
        assert self.stdin is not None
        with suppress(OSError):
            self.stdin.close()

    def how_it_ended(self) -> str:
        """For a message: "was killed (…)" or "ended with status …", and the last that it wrote on
        stderr.
        """
        self.close()
        ended = how_it_ended(self.wait())
        self._reader.join(timeout=1.0)  # a grandchild may hold the pipe open
        last = [line for line in self._last_lines if line.strip()]
        if last:
            return f"{ended}; its last lines:\n  " + "\n  ".join(last)

        return ended

    def _keep_last_lines(self) -> None:
        assert self.stderr is not None
        with self.stderr as lines:
            for line in lines:
                self._last_lines.append(line.decode(errors="replace").rstrip())


def message_pipe() -> Callable[[Message], None]:
    """For the process itself: sends its parent a message. What libraries print goes to stderr from
    now on.
    """
    pipe = os.fdopen(os.dup(sys.__stdout__.fileno()), "w", encoding="utf-8")  # type: ignore[union-attr]
    os.dup2(2, 1)

    def tell(message: Message) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    return tell


def how_it_ended(status: int) -> str:
    """What an exit status says: "was killed (signal 9, SIGKILL; perhaps the machine ran out of
    memory)".
    """
    if status >= 0:
        return f"ended with status {status}"
    try:
        number = signal.Signals(-status)
    except ValueError:
        return f"was killed (signal {-status})"
    if number in _MEANINGS:
        meaning = f"; {_MEANINGS[number]}"
    else:
        meaning = ""
    return f"was killed (signal {-status}, {number.name}{meaning})"


@dataclass(frozen=True)
class Process:
    """One process of this machine; its start time tells it from a later one with the same pid."""

    pid: int
    started: str

    @property
    def command(self) -> str:
        """Its command line; empty when it is gone."""
        try:
            content = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return content.replace(b"\0", b" ").decode(errors="replace")

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return fields[19:20] == [self.started] and fields[0] not in ("Z", "X")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def descendants(ancestor: int) -> list[Process]:
    """Every process that `ancestor` or its children started."""
    parents = {process: _stat(process.pid)[1:2] for process in running()}
    found: list[Process] = []
    queue = [ancestor]

    while queue:
        parent = str(queue.pop())
        children = [process for process, parent_of in parents.items() if parent_of == [parent]]
        queue.extend(child.pid for child in children)
        found.extend(children)

    return found


def running() -> Iterable[Process]:
    """All processes."""
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(path.name))
        if fields:
            yield Process(int(path.name), fields[19])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, …; empty when it is gone."""
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    return content.decode(errors="replace").rpartition(")")[2].split()


def _is_working_directory(path: str) -> bool:
    try:
        return os.path.samefile(path, os.curdir)
    except OSError:  # one of the two is gone
        return False
