"""Ray, started for one sweep on this machine or joined where a cluster runs."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.processes import (
    can_import,
    descendants,
    own_folder,
    running,
    safe_environment,
    substitute_home,
)
from lmoe_tune.sweep.guard import Vitals
from lmoe_tune.sweep.nodes import Capacity
from lmoe_tune.wording import masked, shown

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default: whatever else runs on the machine would go before the trials
    "RAY_AIR_NEW_OUTPUT": "0",
    # How long to wait for whether a process died alone or with its node; 1000 is too short on a busy machine.
    "RAY_timeout_ms_task_wait_for_death_info": "30000",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the TensorBoardX logger imports torch into the driver
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are ours: the ledger needs no saving
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # nothing is ever restored from Tune's state
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",  # how many there are is up to our searcher
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
LOCAL_ENVIRONMENT = {
    # All of Ray listens on 127.0.0.1: an address given to `ray.init` is replaced by the machine's own.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # A fresh worker imports these while the driver is still busy starting; saves the import of torch (2 s).
    "RAY_preload_python_modules": "trainables.preload",
    "RAY_enable_worker_prestart": "1",  # once the raylet is up, not once the driver has connected to it
    # How long the raylet waits to look again for its own object store (1000 by default), and how often.
    "RAY_raylet_client_connect_timeout_milliseconds": "20",
    "RAY_raylet_client_num_connect_attempts": "500",
}
# How many workers start at a time, so also how many start before any is needed. Each of them holds .4 GB once torch
# is imported, which on 64 cores would be 25 GB for however few trials.
WORKERS_AT_ONCE = "RAY_worker_maximum_startup_concurrency"
NAMESPACE = "lmoe-tune"  # of Ray's, for the names of sweeps
ASKED_EVERY_S = 0.05
START_PATIENCE_S = 10.0  # of a user who wants out; Ray takes 2 to 5 s
SHUTDOWN_PATIENCE_S = 30.0  # Ray takes 1 to 5 s
CLIENT_MODE = "RAY_CLIENT_MODE"  # Ray sets it to 0 when it is imported
CORE_SETTING = re.compile("RAY_[a-z].*")
ANSWERS_WITHIN_S = 10.0
LARGEST_PORT = 65535
MAX_SOCKET_BYTES = 107  # of a path, linux/un.h
RAY_PATH_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1")
START_ATTEMPTS = 3
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
LOGS_ARE_KEPT_S = 24 * 3600.0
SESSIONS_REMOVED = 50
RAYS_VARIABLES = ("RAY_", "TUNE_", "PYTHONBREAKPOINT")
VITAL = {"gcs_server": "Ray's head", "raylet": "Ray's raylet"}
OBJECT_STORE_BYTES = 128 * 2**20  # nothing of ours goes through it


class Cluster:
    """What there is to run on at this moment.

    Attributes:
        local: Ray was started for this sweep alone.
        vitals: what of Ray must live.
        stays: Ray was running already and goes on afterwards, so what is started on it must be ended.
    """

    def __init__(self, *, local: bool, vitals: Vitals, stays: bool = False) -> None:
        self.local = local
        self.vitals = vitals
        self.stays = stays
        self._presence: Any = None

    def capacities(self) -> dict[str, Capacity]:
        """What the nodes have that there are now, by Ray's ids."""
        import ray

        return {
            node["NodeID"]: Capacity(
                node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)
            )
            for node in ray.nodes()
            if node["Alive"]
        }

    def share(self, slots: int) -> int:
        """How many of the cluster's slots are this sweep's: as many as each other one's on it."""
        if self.local:
            return slots
        import ray

        named = ray.util.list_named_actors(all_namespaces=True)
        sweeps: int = sum(actor["namespace"] == NAMESPACE for actor in named)
        return -(-slots // max(1, sweeps))

    def show_presence(self, name: str) -> None:
        """Make this sweep known to the other sweeps on a cluster, until Ray shuts down."""
        if self.local:
            return
        import ray

        class Presence:
            """A process that does nothing but show its name."""

        made = ray.remote(num_cpus=0)(Presence)
        self._presence = made.options(name=name, namespace=NAMESPACE).remote()

    def end_presence(self) -> None:
        """The opposite, on a Ray that stays."""
        if self._presence is not None and self.vitals.lost is None:
            import ray

            ray.kill(self._presence)
        self._presence = None


@contextmanager
def started(
    address: str | None,
    sent: Callable[[], AbstractContextManager[dict[str, Any]]] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    num_workers: int | None = None,
) -> Iterator[Cluster]:
    """Ray for the length of the block: joined at `address` (or RAY_ADDRESS), else started on this
    machine.

    A Ray that this process has started already is used, whatever the address, and left running.

    Args:
        sent: gives the runtime environment of the workers of a cluster that is joined.
        interrupted: whether to give up; it is asked all the while Ray starts.
        num_workers: how many processes a Ray that is started makes before it is asked for any; None is one
            for each core.

    Raises:
        LmoeTuneError: Ray cannot be started or joined.
        UsageError: what the user has set for it cannot be.
        KeyboardInterrupt: it was given up.
    """
    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())  # Ray draws numbers for itself
        if _runs_here():
            stack.enter_context(_environment(local=False))
            there = Cluster(local=False, vitals=_vitals(local=False), stays=True)
            stack.callback(there.end_presence)
            yield there
            return

        refuse_unusable(address)
        address = address or os.environ.get("RAY_ADDRESS") or None
        _import_ray()  # not within its settings: it would read them once and for all
        stack.enter_context(_environment(local=address is None, num_workers=num_workers))
        folder = workers = None
        if address is None:
            stack.enter_context(_on_loopback())
            folder = stack.enter_context(_private_folder())
        elif sent:
            workers = stack.enter_context(sent())
        yield stack.enter_context(_ray(address, folder, workers, interrupted))


@contextmanager
def _environment(*, local: bool, num_workers: int | None = None) -> Iterator[None]:
    """Ray's settings, for the length of the block; a variable that the user has set is kept, also
    one that is set meanwhile.
    """
    before = dict(os.environ)
    settings = ENVIRONMENT | LOCAL_ENVIRONMENT if local else ENVIRONMENT
    if local and num_workers is not None:
        settings = settings | {WORKERS_AT_ONCE: str(num_workers)}
    for name, value in settings.items():
        os.environ.setdefault(name, value)

    if local:  # Ray's processes take our environment over
        safe = safe_environment()
        if (home := substitute_home(writable=True)) is not None:
            safe["HOME"] = home  # Ray keeps a token there
        os.environ.update(safe)
        if "PYTHONPATH" not in safe:
            os.environ.pop("PYTHONPATH", None)
    elif os.path.exists(os.path.expanduser("~/.ray/auth_token")):
        os.environ.setdefault(
            "RAY_AUTH_MODE", "token"
        )  # `ray start` finds the token by itself, joining does not

    ours = {name: os.environ.get(name) for name in {*before, *os.environ}}
    ours = {name: value for name, value in ours.items() if value != before.get(name)}
    try:
        yield
    finally:
        rays = {name for name in os.environ if name.startswith(RAYS_VARIABLES)}
        for name in (rays - before.keys()) | ours.keys():
            if name not in ours or os.environ.get(name) == ours[name]:
                os.environ.pop(name, None)
                if name in before:
                    os.environ[name] = before[name]


def _import_ray() -> None:
    """Import Ray, and put back what that changes in the process, which is the user's.

    The packages on the import path that it brings along are imported then, its hook for uncaught
    errors only reports them to the cluster, and its variable says what is so without it.
    """
    hook, path, had_variable = sys.excepthook, [*sys.path], CLIENT_MODE in os.environ
    import ray  # noqa: F401

    sys.excepthook, sys.path[:] = hook, path
    if not had_variable:
        os.environ.pop(CLIENT_MODE, None)


def _on_loopback() -> AbstractContextManager[None]:
    """All of Ray listens on 127.0.0.1, even if it was imported before the variable was set."""
    from ray._private import ray_constants

    if os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] != "0":
        return nullcontext()  # the user wants something else
    return _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False)


@contextmanager
def _ray(
    address: str | None,
    folder: Path | None,
    workers: dict[str, Any] | None,
    interrupted: Callable[[], bool],
) -> Iterator[Cluster]:
    # An exception that a signal raises in the midst of Ray's start may leave a lock taken forever,
    # so it starts in a thread, where none is raised; without that thread, its end would take 5 s.
    # Importing Tune takes a second of that time.
    local, over, given_up = address is None, threading.Event(), threading.Event()
    starting = _in_thread(
        "Ray's own", lambda: _start(address, folder, workers, given_up), over.wait
    )
    importing = _in_thread("import Tune", _import_tune)
    try:
        while wait([starting, importing], ASKED_EVERY_S).not_done:
            if interrupted():
                raise KeyboardInterrupt
        starting.result()
    except BaseException:
        given_up.set()
        wait([starting], START_PATIENCE_S)  # half-way through it, it could not be shut down
        _shut_down(local=local)
        over.set()
        raise

    vitals = _vitals(local=local)
    try:
        yield Cluster(local=local, vitals=vitals)
    finally:
        _shut_down(local=local, lost=vitals.check() is not None)
        over.set()


def _start(
    address: str | None,
    folder: Path | None,
    workers: dict[str, Any] | None,
    given_up: threading.Event,
) -> None:
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            _start_or_join(address, folder, workers)
            return
        except Exception as error:
            if given_up.is_set():
                return
            _shut_down(local=address is None)
            if address is None and attempt < START_ATTEMPTS:
                continue  # on a busy machine its raylet may not be up within Ray's fixed 30 s
            if address:
                where = f"joined at {address}"
            else:
                where = "started on this machine"
            raise LmoeTuneError(f"Ray cannot be {where}: {error}") from error


def _in_thread(
    name: str, work: Callable[[], object], afterwards: Callable[[], object] = lambda: None
) -> Future[None]:
    """A thread that does this, and that nothing waits for when the process ends."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)
        afterwards()

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


def _start_or_join(
    address: str | None, folder: Path | None, workers: dict[str, Any] | None
) -> None:
    import ray

    with _without_cluster_messages(), _without_signal_handler():
        if address is not None:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                job_config=_job_config(),
                runtime_env=workers,
            )
            return
        assert folder is not None, "Ray is started in a folder"
        with _without_side_processes(), _in_own_groups():
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
                job_config=_job_config(),
                _temp_dir=str(folder / "ray"),
            )


def _job_config() -> Any:
    """Of a job whose workers do not look for modules in the driver's working directory first.

    Ray puts that before everything else on their import path, unless the job brings a directory of
    its own. Where its internals change, this does nothing: what is there then hides the libraries'
    modules.
    """
    from ray.job_config import JobConfig

    class OwnJobConfig(JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            return True

    return OwnJobConfig()


def refuse_unusable(address: str | None) -> None:
    """What the user has set for Ray, before anything is made.

    Raises:
        UsageError: Ray cannot read a setting; nobody answers at the address; or Ray is to be started,
            and RAY_TMPDIR cannot be used: a user who sets it means it.
    """
    fault = fault_of_settings()
    if fault is not None:
        raise UsageError(f"{fault}; correct or unset it")

    asked = address or os.environ.get("RAY_ADDRESS")
    if asked:
        _refuse_silent(asked, "--address" if address else "RAY_ADDRESS")
        return

    given = os.environ.get("RAY_TMPDIR")
    if not given:
        return
    fault = fault_of_folder(Path(given))
    if fault is not None:
        raise UsageError(f"RAY_TMPDIR is {shown(given)}: {fault}")


def _refuse_silent(address: str, called: str) -> None:
    """Ray itself asks for minutes whether somebody answers."""
    if address in ("auto", "local") or _runs_here():
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if "/" in host or not host or not port.isdecimal() or int(port) > LARGEST_PORT:
        raise UsageError(
            f"{called} is {shown(masked(address))}, but must be HOST:PORT as `ray start` prints it, or auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWERS_WITHIN_S).close()
    except OSError as error:
        why = error.strerror or error
        raise UsageError(
            f"no Ray cluster answers at {address} ({why}): start one there with `ray start --head`, or leave "
            f"{called} out to run on this machine"
        ) from error


def is_local(address: str | None) -> bool:
    """Whether a Ray would be started for the run, on this machine alone."""
    return not (address or os.environ.get("RAY_ADDRESS") or _runs_here())


def _runs_here() -> bool:
    """Whether this process has a Ray already, which is used whatever the address."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def fault_of_settings() -> str | None:
    """The variable of Ray's core that has no value of its type: importing Ray would end this process."""
    given = {name: value for name, value in os.environ.items() if CORE_SETTING.fullmatch(name)}
    if not given or "ray" in sys.modules:
        return None

    safe = safe_environment()
    others = {name: value for name, value in safe.items() if name not in given}
    if can_import("ray", safe):
        return None
    for name, value in given.items():
        if not can_import("ray", {**others, name: value}):
            return f"{name} is {shown(value)}, which Ray cannot read"
    return None


def fault_of_folder(base: Path) -> str | None:
    """Why Ray cannot keep its sockets and logs in this folder; None if it can."""
    if not base.is_absolute():
        return "must be an absolute path"
    if not base.is_dir():
        return "there is no such folder"
    if not os.access(base, os.W_OK | os.X_OK):
        return "it is not writable"
    if not _is_short(base / _own_name()):
        longest = MAX_SOCKET_BYTES - RAY_PATH_BYTES - len(_own_name()) - 1
        return f"its path must have {longest} characters at most, for Ray's sockets"
    return None


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A private folder for Ray: Ray makes its own writable for everyone, sockets included.

    Its path must be short: those of the sockets in it may have 107 bytes. If the path of the
    temporary folder is too long, or another user was there first, it is made in another folder, and
    removed afterwards.

    Raises:
        LmoeTuneError: there is no folder for it.
    """
    given = os.environ.get("RAY_TMPDIR")
    usual = Path(given or tempfile.gettempdir()) / _own_name()
    if _is_short(usual) and own_folder(usual) is not None:
        _in_thread("remove old logs", lambda: remove_old_sessions(usual / "ray"))
        yield usual
        return

    if given:
        bases = [given]
    else:
        bases = [tempfile.gettempdir(), *SHORT_FOLDERS, f"/run/user/{os.getuid()}"]
    for base in bases:
        if not _is_short(Path(base) / "lt-12345678"):
            continue
        try:
            made = Path(tempfile.mkdtemp(prefix="lt-", dir=base))
        except OSError:
            continue
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return

    raise UsageError(
        f"Ray needs a folder with a short path for its sockets, and none of {', '.join(bases)} is writable; "
        "set RAY_TMPDIR to one"
    )


def remove_old_sessions(folder: Path) -> None:
    """Remove what Ray has left of runs whose process has ended, and whose logs are more than a day
    old; Ray removes nothing itself. A few at a time: this runs beside a start.
    """
    yesterday = time.time() - LOGS_ARE_KEPT_S
    begun_before = time.strftime("session_%Y-%m-%d_%H-%M-%S", time.localtime(yesterday))
    for session in sorted(folder.glob("*"))[:SESSIONS_REMOVED]:
        name, pid = session.name, session.name.rpartition("_")[2]
        if not name.startswith("session_2") or name >= begun_before:
            return
        if os.path.exists(f"/proc/{pid}"):
            continue
        with suppress(OSError):
            logs = [path.stat().st_mtime for path in (session / "logs").glob("*")]
            if max(logs, default=0.0) < yesterday:
                shutil.rmtree(session, ignore_errors=True)


def _own_name() -> str:
    return f"lmoe-tune-{os.getuid()}"


def _is_short(folder: Path) -> bool:
    return len(os.fsencode(folder)) <= MAX_SOCKET_BYTES - RAY_PATH_BYTES


def _vitals(*, local: bool) -> Vitals:
    """What must stay alive: on this machine all of Ray's processes, of a cluster its head and the
    raylet that we use.
    """
    import ray

    if local:
        ours = {
            Path(process.command.split(" ")[0]).name: process
            for process in descendants(os.getpid())
        }
        return Vitals({said: ours[name] for name, said in VITAL.items() if name in ours})
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    socket = f"--raylet_socket_name={ray._private.worker.global_worker.node.raylet_socket_name} "
    raylet = next((process for process in running() if socket in process.command), None)
    return Vitals(
        {"Ray's raylet": raylet} if raylet is not None else {}, (host.strip("[]"), int(port))
    )


def kill_started() -> None:
    """Kill the processes of a Ray that this process has started: some outlive it for a minute.

    Takes no lock, so a signal handler may call it.
    """
    ray = sys.modules.get("ray")
    if ray is None:
        return

    its_files = f"{os.path.dirname(str(ray.__file__))}/"
    for process in descendants(os.getpid()):
        if its_files in process.command or process.command.startswith("ray::"):
            process.send(signal.SIGKILL)


def _shut_down(*, local: bool, lost: bool = False) -> None:
    import ray

    if lost:  # it would wait for what is dead; this process ends soon anyway
        if local:
            kill_started()
        return

    helpers = descendants(os.getpid()) if local else []
    shutting_down = _in_thread("shut Ray down", ray.shutdown)
    wait([shutting_down], SHUTDOWN_PATIENCE_S)
    if local and not shutting_down.done():
        kill_started()  # it waits for itself
    for process in helpers:  # Ray's agents notice only after some 15 s that their raylet is gone
        if process.command.startswith("ray::"):
            process.send(signal.SIGTERM)


def _import_tune() -> None:
    """What cannot be imported is raised again where it is used, in a thread whose errors are heard."""
    with suppress(Exception):
        from ray import tune  # noqa: F401

        from lmoe_tune.sweep import scheduler, searcher, watch  # noqa: F401


def _in_own_groups() -> AbstractContextManager[None]:
    """Ray's raylet and control store get process groups of their own: a signal that a terminal,
    `timeout` or a scheduler sends to ours is for the driver, which shuts Ray down.

    Where they died of it while the driver connects to them, Ray's C++ core would end the driver.
    """
    from ray._private import utils

    name = "set_kill_on_parent_death_linux"
    die_with_parent: Any = getattr(utils, name, None)

    def in_own_group() -> None:  # in the child, before its program
        os.setpgid(0, 0)
        die_with_parent()

    return _replaced(utils, name, in_own_group)


@contextmanager
def _without_side_processes() -> Iterator[None]:
    """Start no autoscaler, log forwarder and API server: three Python processes that a local sweep
    never uses.

    They cost 1 to 1.5 s of a start. Ray has no public switch for them.
    """
    from ray._private.node import Node

    def no_api_server(node: Node, **_: object) -> None:
        node._webui_url = None

    with (
        _replaced(Node, "start_monitor", lambda node: None),
        _replaced(Node, "start_log_monitor", lambda node: None),
        _replaced(Node, "start_api_server", no_api_server),
    ):
        yield


def _without_cluster_messages() -> AbstractContextManager[None]:
    """Do not print what Ray sends to every driver: pages of a raylet's log when a node dies. We
    print one line instead.
    """
    from ray._private import worker

    def silent(*_: object, **__: object) -> None:
        return

    return _replaced(worker, "listen_error_messages", silent)


def _without_signal_handler() -> AbstractContextManager[None]:
    """Leave the signals to Python. From its start to its end, a handler of Ray's core would end this
    process at SIGTERM, with a stack trace.
    """
    from ray._private import ray_constants

    # A variable of Ray's, which the workers would take over.
    return _replaced(ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", True)


@contextmanager
def _replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """Something of Ray's is another thing for the length of the block. Where its internals have
    changed, this does nothing, and everything still works.
    """
    if not hasattr(owner, name):
        yield
        return

    before = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def private_environment() -> Iterator[None]:
    """Let trial actors run in the workers as they are, for the length of the block.

    Tune would copy AWS credentials into every actor's runtime environment, which Ray logs; and any
    runtime environment at all makes Ray start new processes instead of taking the ones that are
    warm.
    """
    from ray.tune.execution import class_cache

    with (
        _replaced(class_cache, "DEFAULT_ENV_VARS", type(class_cache.DEFAULT_ENV_VARS)()),
        _replaced(class_cache, "ENV_VARS_TO_PROPAGATE", type(class_cache.ENV_VARS_TO_PROPAGATE)()),
    ):
        yield
