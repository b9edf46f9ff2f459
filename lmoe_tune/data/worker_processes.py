"""Work on many files in several processes, without a fork: the parent may hold threads, locks and a
GPU.

A worker is a module whose `main` calls `serve`. It ends when its stdin does, so none outlives a
killed parent by more than a job.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.processes import JsonProcess, message_pipe

Progress = Callable[[int, int], None]
"""Receives how many are done, and of how many."""


def unwatched(*progress: object) -> None:
    """Progress that nobody watches."""


def serve(work: Callable[[Any], Any]) -> None:
    """Run as a worker: answer every job on stdin until it ends. For the `main` of the module given
    to `run_jobs`.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to the whole group; the parent ends us
    answer = message_pipe()
    for line in sys.stdin:
        answer({"answer": work(json.loads(line)["job"])})


def run_jobs(
    work: Callable[[Any], Any],
    jobs: Sequence[Any],
    done: Callable[[Any, Any], None],
    *,
    processes: int | None,
) -> None:
    """Have every job done; `done` receives a job and its answer, from several threads but one at a
    time.

    Args:
        work: a function of the module that is run as a worker.
        processes: None: as many as there are cores. A single one is not worth starting.

    Raises:
        LmoeTuneError: a process died.
    """
    processes = min(processes or len(os.sched_getaffinity(0)), len(jobs))
    if processes <= 1:
        for job in jobs:
            done(job, work(job))
        return

    waiting, lock = iter(jobs), threading.Lock()
    started: list[JsonProcess] = []

    def drive(process: JsonProcess) -> None:
        answers = process.messages()
        while True:
            with lock:
                job = next(waiting, None)
            if job is None:
                return

            try:
                process.send({"job": job})
                answer = next(message["answer"] for message in answers if "answer" in message)
            except (OSError, StopIteration):
                raise LmoeTuneError(
                    f"a process that reads images {process.how_it_ended()}\n"
                    "Try again: what was read is kept"
                ) from None

            with lock:
                done(job, answer)

    try:
        for _ in range(processes):
            started.append(JsonProcess(work.__module__))

        with ThreadPoolExecutor(processes) as pool:
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
            process.how_it_ended()  # waits, and leaves no pipe open
