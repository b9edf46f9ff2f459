"""The folder of a sweep: where everything is, and who may write to it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lmoe_tune import advice
from lmoe_tune.durable import cannot_write, owner_of, read_object, writing
from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.home import DEFAULT, is_default
from lmoe_tune.sweep.lines import has_transaction
from lmoe_tune.wording import did_you_mean, first_few, masked, printable

LOCK_PATIENCE_S = (
    1.0  # a process that only checks whether the sweep runs holds the lock for an instant
)


class SweepLockedError(LmoeTuneError):
    """Another process works on the sweep."""


@dataclass(frozen=True)
class SweepFolder:
    """`HOME/sweeps/NAME` and the files in it."""

    home: Path
    name: str

    @cached_property
    def path(self) -> Path:
        return self.home / "sweeps" / self.name

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def spec(self) -> Path:
        return self.path / "spec.yaml"

    @property
    def about(self) -> Path:
        return self.path / "sweep.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @cached_property
    def trials(self) -> Path:
        return self.path / "trials"

    def trial(self, number: int) -> Path:
        """The folder of a trial's records."""
        return self.trials / str(number)

    def checkpoints(self, number: int) -> Path:
        """Where a trial's checkpoints are."""
        return self.trial(number) / "checkpoints"

    def repetition(self, number: int) -> Path:
        """Where `train NAME --trial N` trains a trial once more."""
        return self.home / "train" / f"{self.name}-trial-{number}"

    @property
    def whole(self) -> SweepFolder:
        """The sweep that this study is a part of; of a sweep, itself."""
        return SweepFolder(self.home, self.name.partition("/")[0])

    @property
    def confirmation(self) -> SweepFolder:
        """The second study of the sweep: its best trials trained again, and tested."""
        return SweepFolder(self.home, f"{self.name}/confirm")

    def tuned(self, method: str) -> SweepFolder:
        """Where a method that the sweep is compared with is tuned."""
        return SweepFolder(self.home, f"{self.name}/tuned/{method.replace(':', '.')}")

    @property
    def is_set_aside(self) -> bool:
        """Whether `--fresh` has set it aside: it is only resumed if it is named."""
        return self.aside.exists()

    @property
    def aside(self) -> Path:
        return self.path / "set-aside"

    def exists(self) -> bool:
        return os.path.isfile(self.ledger)  # also where this user may not look

    def is_begun(self) -> bool:
        """Whether there is a ledger with a study, or one that has lost it: not what a kill at the very
        beginning leaves.
        """
        if not self.exists():
            return False
        return has_transaction(self.ledger) or lost_ledger(self, "holds no study") is not None

    @property
    def closed(self) -> str | None:
        """Why this user cannot read the sweep's records; None if nothing keeps them from it."""
        if not self.path.is_dir():
            return None
        for path, rights in ((self.path, os.R_OK | os.X_OK), (self.ledger, os.R_OK)):
            if path.exists() and not os.access(path, rights):
                return f"{path} cannot be read: it belongs to {owner_of(path)}"
        return None

    @contextmanager
    def locked(self, wait_s: float | None = None) -> Iterator[None]:
        """Hold the sweep for writing; the kernel releases it when this process ends, however it
        ends.

        Args:
            wait_s: how long to wait for another process that holds it; None is a moment.

        Raises:
            SweepLockedError: another process holds it; names its pid and host.
        """
        lock = self.path / "lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            opened = lock.open("a+", encoding="utf-8")
        except OSError as error:
            if error.errno not in (
                errno.EROFS,
                errno.EACCES,
                errno.EPERM,
                errno.ENOTDIR,
                errno.EEXIST,
            ):
                raise cannot_write(lock, error) from error
            raise UsageError(
                f"{self.path}: is not writable ({error.strerror}); make it writable, or copy the home elsewhere"
            ) from error
        with opened as file:
            patience_until = time.monotonic() + (LOCK_PATIENCE_S if wait_s is None else wait_s)
            while not _try_lock(file.fileno(), fcntl.LOCK_EX):
                if time.monotonic() > patience_until:
                    raise SweepLockedError(
                        f"the sweep '{self.name}' is being worked on by {_holder(lock)}"
                    )
                time.sleep(0.05)
            with writing(lock):
                file.truncate(0)
                file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
                file.flush()
            yield

    def is_running(self) -> bool:
        """Whether a process works on the sweep right now."""
        try:
            file = (self.path / "lock").open("rb")
        except FileNotFoundError:
            return False
        with file, suppress(LmoeTuneError):
            return not _try_lock(file.fileno(), fcntl.LOCK_SH)
        return False  # if nobody can lock it, nobody works on it


def find_sweeps(home: Path) -> list[SweepFolder]:
    """All sweeps of a home that this user can read, the one worked on last first."""
    existing = [folder for folder in _folders(home) if folder.exists() and folder.closed is None]
    return sorted(existing, key=lambda folder: folder.ledger.stat().st_mtime_ns, reverse=True)


def closed_sweeps(home: Path) -> list[SweepFolder]:
    """The sweeps of a home that this user cannot read: another user's."""
    return [folder for folder in _folders(home) if folder.closed is not None]


def sweeps_without_ledger(home: Path) -> list[SweepFolder]:
    """Those whose ledger is lost: the other records are there."""
    readable = [folder for folder in _folders(home) if folder.closed is None]
    return [folder for folder in readable if folder.about.is_file() and not folder.exists()]


def _folders(home: Path) -> list[SweepFolder]:
    paths = sorted((home / "sweeps").glob("*"))
    return [SweepFolder(home, path.name) for path in paths if path.is_dir()]


def parts_of(folder: SweepFolder) -> list[SweepFolder]:
    """The studies that belong to a sweep: its confirmation, and the methods tuned for that."""
    tuned = [
        SweepFolder(folder.home, f"{folder.name}/tuned/{path.name}")
        for path in folder.path.glob("tuned/*")
    ]
    return [
        part
        for part in (folder.confirmation, *sorted(tuned, key=lambda one: one.name))
        if part.is_begun()
    ]


def find_sweep(home: Path, name: str) -> SweepFolder:
    """The sweep of a name; raises UsageError that lists the names there are."""
    known = [sweep.name for sweep in find_sweeps(home)]
    if name not in known:
        if known:
            there_are = f"there are {first_few(known)}"
        else:
            there_are = f"there are none yet{_perhaps_elsewhere(home, name)}"

        hint = did_you_mean(name, known) or did_you_mean(Path(name).name, known)  # of its folder
        there_are += hint
        if is_name(name):
            refuse_unreadable(SweepFolder(home, name))
            refuse_lost_ledger(SweepFolder(home, name))
        raise UsageError(f"no sweep '{printable(masked(name))}' in {home / 'sweeps'}; {there_are}")
    return SweepFolder(home, name)


def _perhaps_elsewhere(home: Path, name: str) -> str:
    """Where a sweep that is not in this home may be: in a home above, or where it was started."""
    for above in home.parents:
        for other in (above, above / DEFAULT):
            if is_name(name) and SweepFolder(other, name).exists():
                return f", but it is in {other}: {advice.at_home(other)}"

    if is_default(home):
        return ": go to where it was started, or name its home with --home"

    return ""


def is_name(text: str) -> bool:
    """Whether this can be a sweep's name: one folder in the home's `sweeps`, and not outside it."""
    is_short = len(os.fsencode(text)) <= 255  # bytes, as file systems have it
    return is_short and text == Path(text).name and text not in ("", ".", "..")


def refuse_unreadable(folder: SweepFolder) -> None:
    """Raises UsageError if the sweep is another user's, who has not let this one read it."""
    closed = folder.closed
    if closed is not None:
        raise UsageError(
            f"{closed}; ask its owner to make it readable, or choose another home with --home"
        )


def refuse_lost_ledger(folder: SweepFolder) -> None:
    """Raises UsageError if a sweep has records, but its ledger is gone."""
    lost = lost_ledger(folder, "is gone")
    if lost is not None:
        raise UsageError(lost)


def lost_ledger(folder: SweepFolder, how: str) -> str | None:
    """What to do where a ledger has no study although it had one: a new one would bury the other
    records, and MLflow would show both. None if there are no such records.
    """
    if folder != folder.whole and any(folder.trials.glob("[0-9]*")):  # a confirmation's
        return (
            f"{folder.ledger} {how}, but its trials are there: move {folder.path} aside and give "
            "the same command again"
        )
    if folder == folder.whole and folder.about.exists():
        return (
            f"{folder.ledger} {how}, but the sweep's records are there: rebuild it from them with "
            f"`{advice.doctor(rebuild=folder.name, home=folder.home)}`, or start again with --fresh "
            "(the old records are set aside)"
        )
    return None


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a network file system without a lock service
        raise UsageError(
            f"the sweep cannot be locked against other processes ({error.strerror or error}): its file system must "
            "support flock; choose another home with --home, or ask for its server's lock service to be started"
        ) from error
    return True


def _holder(path: Path) -> str:
    who = "another process"
    if holder := read_object(path):
        who = f"process {holder.get('pid')} on {holder.get('host')}"
        if (holder.get("pid"), holder.get("host")) == (os.getpid(), socket.gethostname()):
            return f"{who}, which is this one: wait until that has ended"
    return f"{who}; wait for it, or stop that process first"
