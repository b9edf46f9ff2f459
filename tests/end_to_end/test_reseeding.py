"""A reseeding as a user runs it: killed in its middle, and repeated."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.test_confirm import jobs_of, quick

__all__ = ["quick"]
pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(300)]


def test_a_reseeding_that_is_killed_is_finished_by_the_same_command_and_opens_nothing(
    quick: Any,
) -> None:
    command, typed = quick, ("confirm", "digits", "--reseed", "2", "--top", "1")
    driver = command.start(*typed)
    driver.wait_until(lambda: any(job.state == "complete" for job in jobs_of(command)))
    driver.kill()
    before = jobs_of(command)
    done = command.run(*typed, "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    jobs = jobs_of(command)
    rows = len(found["rows"])
    assert len(jobs) == 2 * len({json.dumps(dict(row["params"])) for row in found["rows"]})
    for old, new in zip(before, jobs, strict=False):
        assert (new.params, new.state) == (old.params, "complete")
        assert new.epochs[: len(old.epochs)] == old.epochs
    by_seed = {job.params["seed"]: job.metrics for job in jobs if job.params["candidate"] == 0}
    of_winner = found["rows"][0]["metrics"]["val_auroc"]
    assert of_winner["mean"] == pytest.approx(np.mean([m["val_auroc"] for m in by_seed.values()]))
    assert not any(name.startswith("test_") for job in jobs for name in job.metrics)
    assert rows == 2 and found["image_sd"] is not None
    assert (
        json.loads(command.run("status", "digits", "--format", "json").stdout)["test_openings"]
        == []
    )
