"""Freed memory is kept: seen from outside, in a process of its own, as the setting holds for all of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, threading
import torch
from lmoe_tune.training.allocator import keep_freed_memory, return_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def use():
    torch.ones(100 << 20, dtype=torch.uint8)

use()
before = faults()
for _ in range(5):
    use()
mapped = faults() - before
keep_freed_memory()
for _ in range(20):  # glibc needs some tries until a hole fits, as an aligned block is asked for with room around it
    use()
before = faults()
for _ in range(5):
    use()
kept, held = faults() - before, resident()
thread = threading.Thread(target=use)  # where glibc has another arena
thread.start()
thread.join()
return_freed_memory()
print(mapped, kept, held - resident())
"""


AFTER_TRIALS = """
import gc
from lmoe_tune.training.allocator import give_back_memory

collections = []
gc.callbacks.append(lambda phase, info: phase == "stop" and collections.append(info["generation"]))
for trial in range(3):
    give_back_memory()
    print(collections, gc.get_freeze_count() > 1000)
    collections.clear()
"""


def printed_by(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_is_freed_is_used_again_and_goes_back_when_asked_to() -> None:
    mapped, kept, returned = map(int, printed_by(PROGRAM).split())
    assert mapped > 1000  # else glibc no longer does what this is there to avoid
    assert kept < mapped / 20
    assert returned > 50 << 20


def test_what_is_imported_is_gone_through_once_and_never_between_two_trials() -> None:
    assert printed_by(AFTER_TRIALS).splitlines() == ["[1, 2] True", "[1] True", "[1] True"]
