"""Ray, started for one sweep on this machine or joined where a cluster runs."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.spec import Resources

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default: whatever else runs on the machine would go before the trials
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the TensorBoardX logger imports torch into the driver
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are ours: the ledger needs no saving
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # nothing is ever restored from Tune's state
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
LOCAL_ENVIRONMENT = {
    # All of Ray listens on 127.0.0.1: an address given to `ray.init` is replaced by the machine's own.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # A fresh worker imports these while the driver is still busy starting; saves the import of torch (2 s).
    "RAY_preload_python_modules": "trainables.worker,lmoe_tune.training.trial",
}
OBJECT_STORE_BYTES = 128 * 2**20  # nothing of ours goes through it


@dataclass(frozen=True)
class Cluster:
    """What there is to run on."""

    cpus: float
    gpus: float
    local: bool

    def slots(self, resources: Resources, max_concurrent: int | None) -> int:
        """How many trials fit at a time; raises UsageError when not even one does."""
        slots = int(self.cpus / resources.cpu + 1e-9)
        if resources.gpu > 0:
            share = resources.gpu
            by_gpu = int(self.gpus) * int(1 / share + 1e-9) if share < 1 else int(self.gpus / share)
            slots = min(slots, by_gpu)
        if slots < 1:
            raise UsageError(
                f"resources: a trial asks for cpu {resources.cpu:g} and gpu {resources.gpu:g}, but there are "
                f"{self.cpus:g} CPUs and {self.gpus:g} GPUs in all; lower it with --set resources.cpu=… or "
                "--set resources.gpu=…"
            )
        return min(slots, max_concurrent or slots)


@contextmanager
def started(address: str | None) -> Iterator[Cluster]:
    """Ray for the length of the block: joined at `address` (or RAY_ADDRESS), else started on this machine.

    Raises:
        LmoeTuneError: Ray cannot be started or joined.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    for name, value in (ENVIRONMENT if address else ENVIRONMENT | LOCAL_ENVIRONMENT).items():
        os.environ.setdefault(name, value)
    # Importing Tune takes a second and waits for nothing; starting Ray mostly waits.
    importing = threading.Thread(target=_import_tune, daemon=True)
    importing.start()
    import ray

    try:
        with ExitStack() as stack:
            if address is None:
                stack.enter_context(_without_side_processes())
                ray.init(
                    address="local",
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=OBJECT_STORE_BYTES,
                )
            else:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except BaseException as error:
        _shut_down(local=address is None)
        if not isinstance(error, Exception):
            raise
        where = f"joined at {address}" if address else "started on this machine"
        raise LmoeTuneError(f"Ray cannot be {where}: {error}") from error
    try:
        importing.join()
        resources = ray.cluster_resources()
        yield Cluster(resources.get("CPU", 0.0), resources.get("GPU", 0.0), local=address is None)
    finally:
        _shut_down(local=address is None)


def _shut_down(*, local: bool) -> None:
    import ray

    helpers = _descendants(os.getpid()) if local else []
    ray.shutdown()
    for pid, started in helpers:  # Ray's agents notice only after some 15 s that their raylet is gone
        if _start_time(pid) == started and _name(pid).startswith("ray::"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _descendants(ancestor: int) -> list[tuple[int, str]]:
    """Pid and start time of every process that this one or its children started; Linux only, else none."""
    parents = {int(path.name): _stat(int(path.name))[1:2] for path in Path("/proc").glob("[0-9]*")}
    found: list[tuple[int, str]] = []
    queue = [ancestor]
    while queue:
        parent = queue.pop()
        children = [pid for pid, parent_of in parents.items() if parent_of == [str(parent)]]
        queue.extend(children)
        found.extend((pid, _start_time(pid)) for pid in children)
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, …; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _start_time(pid: int) -> str:
    return (_stat(pid)[19:20] or [""])[0]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def _import_tune() -> None:
    from ray import tune  # noqa: F401

    from lmoe_tune.sweep import scheduler, searcher, watch  # noqa: F401


@contextmanager
def _without_side_processes() -> Iterator[None]:
    """Start no autoscaler, log forwarder and API server: three Python processes that a local sweep never uses.

    They cost 1 to 1.5 s of a start. Ray has no public switch for them; where its internals change, this
    does nothing and everything still works.
    """
    from ray._private.node import Node

    def no_api_server(node: Node, **_: object) -> None:
        node._webui_url = None

    with ExitStack() as stack:
        for name, replacement in (
            ("start_monitor", lambda node: None),
            ("start_log_monitor", lambda node: None),
            ("start_api_server", no_api_server),
        ):
            if hasattr(Node, name):
                stack.enter_context(mock.patch.object(Node, name, replacement))
        yield


def keep_environment_private() -> None:
    """Let trial actors run in the workers as they are.

    Tune would copy AWS credentials into every actor's runtime environment, which Ray logs; and any runtime
    environment at all makes Ray start new processes instead of taking the ones that are warm.
    """
    from ray.tune.execution import class_cache

    class_cache.DEFAULT_ENV_VARS.clear()
    class_cache.ENV_VARS_TO_PROPAGATE.clear()
