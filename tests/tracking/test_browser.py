"""MLflow's pages in a real browser: its prepared view is not documented, so an upgrade may take it away.

The sweeps are made up; the pictures of the docs are of a real one: `python docs/take_pictures.py HOME SWEEP`.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.snapshot import DatasetRecord, SweepSnapshot
from lmoe_tune.tracking import Projection
from lmoe_tune.tracking.comparison import SWEEPS_KEY, sweep_key, view_page
from lmoe_tune.tracking.ui import command, environment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (apt-get install chromium)"),
]
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--window-size=1900,1300",
    "--timeout=40000", "--virtual-time-budget=80000",
)  # fmt: skip
START = 1_790_000_000_000
SEARCHED = ("mixing_alpha", "consistency_weight", "outlier_ratio")
FINISHED, RESUMED, TWO = (f"5d0f0f0c-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))


@dataclass(frozen=True)
class Pages:
    """MLflow's pages over the store, in a browser."""

    base: str
    experiment_id: str
    folder: Path

    def html(self, key: str, *, table: bool = False) -> str:
        """The page behind a view's link, once it has drawn itself."""
        return self._run("--dump-dom", self._url(key, table=table))

    def take(self, picture: Path, key: str, *, table: bool = False) -> None:
        """A picture of the same."""
        self._run(f"--screenshot={picture.resolve()}", self._url(key, table=table))

    def _url(self, key: str, *, table: bool) -> str:
        return f"{self.base}/{view_page(self.experiment_id, key, table=table)}"

    def _run(self, *arguments: str) -> str:
        assert CHROMIUM is not None
        profile = f"--user-data-dir={self.folder / 'profile'}"
        done = subprocess.run(
            [CHROMIUM, *OPTIONS, profile, *arguments],
            capture_output=True,
            encoding="utf-8",
            timeout=200,
            check=True,
        )
        return done.stdout


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("browser")
    uri = f"sqlite:///{folder}/mlflow.db"
    experiment_id = fill(uri)
    with opened(uri, experiment_id, folder, folder / "mlartifacts") as found:
        yield found


@contextmanager
def opened(uri: str, experiment_id: str, folder: Path, artifacts: Path) -> Iterator[Pages]:
    """MLflow's pages over a store, for as long as they are looked at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        command(port, artifacts),
        env=environment(uri),
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for(base)
        yield Pages(base, experiment_id, folder)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(base: str) -> None:
    give_up = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(base, timeout=5).close()
        except OSError:
            assert time.monotonic() < give_up, "MLflow's pages did not come up"
            time.sleep(0.5)
        else:
            return


def fill(uri: str) -> str:
    """A finished sweep with its confirmation, a resumed one, and one with two objectives; the experiment's id."""
    chance = random.Random(0)
    trials = tuple(trial(number, chance, pruned=number % 3 == 0) for number in range(24))
    good = [one for one in trials if one.state == "complete" and one.violation == 0]
    best = max(good, key=lambda one: one.metrics["val_auroc"]).number
    finished = sweep("cars", FINISHED, trials, best=best)
    delivered = Projection(uri).project(finished)

    resumed = tuple(trial(number, chance) for number in range(10))
    running = replace(resumed[6], state="running", ended_ms=None, epochs=resumed[6].epochs[:2])
    cut = sweep("again", RESUMED, (*resumed[:6], running), state="interrupted", best=1)
    Projection(uri).project(cut)
    Projection(uri).project(sweep("again", RESUMED, resumed, best=1))

    several = tuple(trial(number, chance) for number in range(12))
    Projection(uri).project(sweep("both", TWO, several, best=3, also=("val_accuracy",)))

    jobs = tuple(job(number, chance) for number in range(15))
    Projection(uri).project(
        replace(finished, trials=jobs, kind="confirm", best=None, searched=tuple(jobs[0].params))
    )
    return delivered.experiment_id


def trial(number: int, chance: random.Random, *, pruned: bool = False) -> TrialRecord:
    alpha, weight = 10 ** chance.uniform(-1, 1), chance.uniform(0, 5)
    level = 0.92 + 0.05 * math.exp(-((math.log10(alpha) - 0.3) ** 2)) + 0.002 * weight
    started = START + 20_000 * number
    epochs = tuple(
        EpochRecord(
            epoch,
            {
                "val_auroc": level - 0.2 / (epoch + 1) + chance.gauss(0, 0.002),
                "val_accuracy": 0.985 - 0.004 * weight + 0.001 * epoch,
                "val_fine_auroc": level - 0.25 / (epoch + 1),
                "val_coarse_auroc": level - 0.15 / (epoch + 1),
                "epoch_s": 0.5,
            },
            started + 500 * epoch,
        )
        for epoch in range(1, 4 if pruned else 11)
    )
    params = {"mixing_alpha": alpha, "consistency_weight": weight, "outlier_ratio": chance.random()}
    violation = max(0.0, 0.975 - epochs[-1].metrics["val_accuracy"])
    return TrialRecord(
        number, "pruned" if pruned else "complete", params, epochs, started, started + 9000,
        violation=violation,
    )  # fmt: skip


def job(number: int, chance: random.Random) -> TrialRecord:
    candidates = ("tuned", "defaults", "baseline")
    tested = {
        "test_auroc": 0.95 - 0.01 * (number % 3) + chance.gauss(0, 0.004),
        "test_accuracy": 0.98 + chance.gauss(0, 0.002),
        "test_fine_auroc": 0.93 + chance.gauss(0, 0.004),
    }
    params = {
        "candidate": candidates[number % 3],
        "purpose": "confirm",
        "method": "logit_mixoe",
        "split": 0,
    }
    epochs = (EpochRecord(1, tested, START + number),)
    return TrialRecord(number, "complete", params | {"seed": 1000 + number // 3}, epochs, START)


def sweep(name: str, sweep_id: str, trials: tuple[TrialRecord, ...], **more: Any) -> SweepSnapshot:
    values: dict[str, Any] = {
        "sweep": name,
        "sweep_id": sweep_id,
        "experiment": "cars",
        "state": "complete",
        "spec_yaml": f"name: {name}\n",
        "trainable": "logit_mixoe",
        "objective": "val_auroc",
        "direction": "maximize",
        "started_ms": START,
        "trials": trials,
        "best": None,
        "feasible": True,
        "baseline": None,
        "searched": SEARCHED,
        "constrained": ("val_accuracy",),
        "constants": {"arch": "resnet50", "data": "stanford_cars", "split": "0", "lr": "0.001"},
        "datasets": (DatasetRecord("stanford_cars/train", "training", "0a1b", "/data/cars", 8144),),
    }
    return SweepSnapshot(**(values | more))


def num_drawn(html: str) -> int:
    return html.count("js-plotly-plot") + html.count("parcoords")


def test_a_finished_sweep_opens_on_its_charts(pages: Pages) -> None:
    html = pages.html(sweep_key(FINISHED))
    assert "Sweep cars" in html and "24</strong> matching runs" in html.replace("&nbsp;", " ")
    assert num_drawn(html) >= 5, "curves, accuracy against AUROC, and each parameter"
    for name in (*SEARCHED, "val_auroc", "val_accuracy"):
        assert name in html


def test_its_table_is_flat_and_best_first(pages: Pages) -> None:
    html = pages.html(sweep_key(FINISHED), table=True)
    for column in (*SEARCHED[:1], "objective_final", "feasible"):
        assert column in html
    assert "cars confirm" not in html, "trials only"


def test_a_resumed_sweep_shows_all_of_its_trials(pages: Pages) -> None:
    html = pages.html(sweep_key(RESUMED))
    assert "Sweep again" in html and "10</strong> matching runs" in html.replace("&nbsp;", " ")
    assert num_drawn(html) >= 5


def test_two_objectives_are_set_against_each_other(pages: Pages) -> None:
    html = pages.html(sweep_key(TWO))
    assert "Sweep both" in html
    assert num_drawn(html) >= 6


def test_a_confirmation_and_the_sweeps_of_an_experiment_have_views_too(pages: Pages) -> None:
    html = pages.html(sweep_key(FINISHED, "confirm"))
    assert "Confirmation of cars" in html and num_drawn(html) >= 3
    assert "again" in pages.html(SWEEPS_KEY, table=True)
