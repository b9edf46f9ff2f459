"""The end of a Ray that does not end by itself."""

from __future__ import annotations

import subprocess
import sys
import time
from threading import Event

import pytest

from lmoe_tune.sweep import cluster

pytestmark = pytest.mark.timeout(60)  # imports Ray


def test_a_ray_that_waits_for_itself_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one may that was interrupted half-way through its start."""
    import ray

    never = Event()
    monkeypatch.setattr(ray, "shutdown", never.wait)
    monkeypatch.setattr(cluster, "SHUTDOWN_PATIENCE_S", 0.2)
    place = f"{ray.__file__.rpartition('/')[0]}/core/src/ray/raylet"
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", place])
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        begun = time.monotonic()
        cluster._shut_down(local=True)
        assert time.monotonic() - begun < 20
        assert started.wait(10) == -9
        assert other.poll() is None, "it is nothing of Ray's"
    finally:
        never.set()
        for process in (started, other):
            process.kill()
            process.wait()
