"""Work on many files in several processes, without a fork: the parent may hold threads, locks and a GPU.

A worker is a module that reads one JSON job a line from stdin and writes one JSON answer a line to stdout. It
ends when stdin does, so none outlives a killed parent by more than a job.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from lmoe_tune.errors import LmoeTuneError


def serve(work: Callable[[Any], Any]) -> None:
    """Be a worker: answer every job on stdin until it ends. What the module `run_jobs` names does when it is run."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to the whole group; the parent ends us
    for line in sys.stdin:
        print(json.dumps(work(json.loads(line))), flush=True)


def run_jobs(
    module: str, jobs: Sequence[Any], done: Callable[[Any, Any], None], *, processes: int
) -> None:
    """Have every job worked on; `done` is told a job and its answer, from several threads but one at a time.

    Raises:
        LmoeTuneError: a process died.
    """
    # With -m, runpy would warn of a module that its package has imported already.
    command = [sys.executable, "-c", f"from {module} import main; main()"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    waiting, lock = iter(jobs), threading.Lock()
    started: list[subprocess.Popen[str]] = []

    def drive(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        while True:
            with lock:
                job = next(waiting, None)
            if job is None:
                return
            try:
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline())
            except (OSError, ValueError):
                raise LmoeTuneError(
                    f"a process that reads images died with status {process.wait()}; out of memory? Try again: what "
                    "was read is kept"
                ) from None
            with lock:
                done(job, answer)

    try:
        for _ in range(min(processes, len(jobs))):
            started.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                    encoding="utf-8",
                )
            )
        with ThreadPoolExecutor(max(1, len(started))) as pool:
            futures = [pool.submit(drive, process) for process in started]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                with lock:
                    waiting = iter(())  # whatever has happened, the others stop after their job
            for future in futures:
                future.result()
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.communicate()
