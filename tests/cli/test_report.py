"""`report`, over a sweep whose trials are made up and whose weights are random."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lmoe_tune import checkpoint
from lmoe_tune.data import SearchData, load_search_data
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.description import ModelDescription
from lmoe_tune.model import build_model
from lmoe_tune.records import EpochRecord, TrialRecord
from lmoe_tune.report import write_report
from lmoe_tune.report.answers import Compared
from lmoe_tune.report.facts import gather
from lmoe_tune.report.figures import STYLE, _curve, _front, _parallel, _slices, draw_all
from lmoe_tune.report.networks import compare_networks
from lmoe_tune.sweep import view
from lmoe_tune.sweep.importance import importances
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.training.baseline_record import baseline_folder

FIGURES = {
    "history", "importance", "slices", "parallel", "tradeoff", "roc", "roc_test", "scores", "scores_test", "pca",
    "lambda", "seeds",
}  # fmt: skip
OF_CONFIRM = {"roc_test", "scores_test", "seeds"}
NO_WEIGHTS = Compared(None, None, ("none",))
HOSTILE = "<script>alert('x')</script>"


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return build_model("small_cnn", 5, 1, 8).state_dict()


@pytest.fixture
def ledger(sweep: Callable[..., Ledger]) -> Ledger:
    """Six complete trials, one that failed; the best one and the baseline have weights."""
    made = sweep("digits", 0.9, 0.95, 0.7, 0.91, 0.93, 0.88, None, trials=7)
    made.fail(6, f"it broke: {HOSTILE}")
    data = load_search_data(made.spec.data, made.folder.home)
    assert isinstance(data, SearchData)
    grey = Preprocessing.as_stored((1, 8, 8), data.mean, data.std)
    describes = ModelDescription("small_cnn", data.classes, "msp", "fp32", grey)
    state = {"model": weights(0), "epoch": 1, "describes": describes.document()}
    checkpoint.save(made.folder.checkpoints(1), 1, state)
    checkpoint.save(baseline_folder(made.folder.home, "0123"), 1, {"model": weights(1), "epoch": 1})
    made.set_attr("baseline", "0123")
    return made


@pytest.fixture
def confirmed(ledger: Ledger) -> Ledger:
    """The same with a confirmation."""
    rng, folder = np.random.default_rng(0), ledger.folder.confirmation
    jobs = []
    for number, (row, seed) in enumerate(
        (row, seed) for row in ("trial 1", "logit_mixoe untuned") for seed in (5, 6)
    ):
        folder.trial(number).mkdir(parents=True)
        sets = {
            "scores_id": rng.random(90),
            "scores_fine": rng.random(70) / 2,
            "scores_coarse_photo": rng.random(50),
        }
        np.savez_compressed(folder.trial(number) / "test.npz", **sets)
        metrics = {"test_auroc": 0.9 + number / 100}
        scores = f"trials/{number}/test.npz"
        jobs.append(
            {
                "job": number,
                "row": row,
                "split": 0,
                "seed": seed,
                "metrics": metrics,
                "scores": scores,
            }
        )
    found = {"test_auroc": {"mean": 0.905, "sd": 0.0071, "ci95": [0.9, 0.91]}}
    found["test_auroc"] |= {"median": 0.905, "minimum": 0.9}
    rows = [
        {"name": name, "method": "logit_mixoe", "params": {}, "seeds": 2, "metrics": found}
        for name in ("trial 1", "logit_mixoe untuned")
    ]
    paired = {
        "against": "logit_mixoe untuned", "metric": "test_auroc", "difference": -0.02, "ci95": [-0.03, -0.01],
        "p": 0.2, "p_corrected": 0.4, "noise_floor": 0.01,
    }  # fmt: skip
    document = {
        "sweep": "digits", "verdict": "noise", "sentence": "Not distinguishable from noise.", "metric": "test_auroc",
        "compared_with": "logit_mixoe untuned", "rows": rows, "paired": [paired], "jobs": jobs, "cautions": [HOSTILE],
        "winner": {"trial": 1, "name": "trial 1", "method": "logit_mixoe", "params": {}, "job": 0, "seed": 5},
    }  # fmt: skip
    view.record_opening(ledger, "ada@host", f"lmoe-tune confirm digits {HOSTILE}", jobs=4)
    document["test_openings"] = view.test_openings(ledger)
    (folder.path / "confirm.json").write_text(json.dumps(document), encoding="utf-8")
    return ledger


@dataclass
class Page(HTMLParser):
    """What a page holds: images, links, the figures' ids, tables by id, scripts by type."""

    images: dict[str, str] = field(default_factory=dict)
    figures: dict[str, bool] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    scripts: list[str | None] = field(default_factory=list)
    tables: dict[str, list[list[str | None]]] = field(default_factory=dict)
    _figure: str = ""
    _table: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "action", "data", "srcset")
        ]
        if tag == "figure":
            self._figure = (given["id"] or "").removeprefix("figure-")
            self.figures[self._figure] = "data-missing" not in given
        elif tag == "img":
            self.images[self._figure] = given["src"] or ""
        elif tag == "script":
            self.scripts.append(given.get("type"))
        elif tag == "table":
            self._table = (given["id"] or "").removeprefix("table-")
            self.tables[self._table] = []
        elif tag == "tr" and self._table:
            self.tables[self._table].append([])
        elif tag == "td":
            self.tables[self._table][-1].append(given.get("data-value"))


def read(path: Path) -> tuple[Page, dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    found = re.search(
        r'<script type="application/json" id="report-data">(.*?)</script>', text, re.DOTALL
    )
    assert found is not None
    return page, json.loads(found[1])


def test_the_page_holds_every_figure_and_loads_nothing(confirmed: Ledger) -> None:
    path = write_report(confirmed)
    assert path == confirmed.folder.path / "report" / "index.html"
    page, data = read(path)
    assert page.figures == dict.fromkeys(FIGURES, True)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert page.scripts == ["application/json"]  # what is data, and nothing that runs
    assert HOSTILE not in path.read_text(encoding="utf-8")
    assert data["confirm"]["verdict"] == "noise"
    assert len(data["summary"]["test_openings"]) == 1
    for name, source in page.images.items():
        content = base64.b64decode(source.partition(",")[2])
        assert content == (path.parent / f"{name}.png").read_bytes()
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        assert min(pixels.shape) > 150 and pixels.std() > 3, name


def test_a_confirmation_that_has_not_ended_says_nothing_yet(confirmed: Ledger) -> None:
    view.record_opening(confirmed, "ada@host", "lmoe-tune confirm digits --seeds 9", jobs=4)
    path = write_report(confirmed)
    page, facts = read(path)
    assert facts["confirm"] is None
    assert not any(page.figures[name] for name in OF_CONFIRM)
    assert "Not confirmed yet." in path.read_text(encoding="utf-8")
    assert "<code>lmoe-tune confirm digits --seeds 9</code>" in path.read_text(encoding="utf-8")


def test_its_numbers_are_the_ledgers(ledger: Ledger) -> None:
    page, data = read(write_report(ledger))
    rows = view.leaderboard(ledger)
    assert data["leaderboard"] == json.loads(json.dumps(rows))
    assert data["summary"]["best"]["value"] == ledger.trial(1).value
    shown = page.tables["leaderboard"][1:]
    assert [(int(row[0] or -1), row[2] and float(row[2])) for row in shown] == [
        (row["trial"], row["value"]) for row in rows
    ]
    assert [float(row[1] or 0) for row in page.tables["params"][1:]] == list(
        ledger.trial(1).params.values()
    )


def test_what_cannot_be_drawn_is_said(sweep: Callable[..., Ledger]) -> None:
    page, _ = read(write_report(sweep("empty", None)))
    assert set(page.figures) == FIGURES
    assert not any(page.figures.values())
    path = write_report(sweep("small", 0.9, 0.8, None))
    page, _ = read(path)
    assert {name for name, drawn in page.figures.items() if drawn} == {
        "history",
        "slices",
        "parallel",
        "tradeoff",
    }
    text = path.read_text(encoding="utf-8")
    assert "the weights of trial 0 are not kept" in text
    assert "lmoe-tune confirm small" in text


def test_a_figure_that_can_no_longer_be_drawn_leaves_no_old_png(confirmed: Ledger) -> None:
    folder = write_report(confirmed).parent
    assert (folder / "seeds.png").exists()
    (confirmed.folder.confirmation.path / "confirm.json").unlink()
    write_report(confirmed)
    assert {path.stem for path in folder.glob("*.png")} == FIGURES - OF_CONFIRM


def test_the_networks_are_asked_about_validation_images_only(ledger: Ledger) -> None:
    best = ledger.best()
    assert best is not None
    compared = compare_networks(ledger, best)
    data = load_search_data(ledger.spec.data, ledger.folder.home)
    assert compared.best is not None and compared.baseline is not None
    sizes = {name: len(scores) for name, scores in compared.best.scores.items()}
    assert sizes == {
        "id": len(data.val),
        "fine": len(data.val_fine),
        "coarse": len(data.val_coarse),
    }
    model = build_model("small_cnn", 5, 1, 8)
    model.load_state_dict(weights(0))
    pixels = torch.from_numpy(data.val.pixels).float()
    with torch.inference_mode():
        logits = model.eval()((pixels - data.mean[0]) / data.std[0])
    np.testing.assert_allclose(compared.best.logits["id"], logits.numpy(), rtol=1e-4, atol=1e-5)
    # at the ends of lambda there is nothing mixed in
    first = compared.best.confidence[-1]
    np.testing.assert_allclose(first[0], logits[0].softmax(0).max(), rtol=1e-4)
    np.testing.assert_allclose(
        compared.best.confidence[0].mean(), compared.best.scores["coarse"].mean(), atol=0.1
    )


def test_the_area_below_a_curve_is_the_auroc_ties_included() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    for known, unknown in (
        (rng.random(40), rng.random(30)),
        (rng.integers(0, 4, 50) / 4, rng.integers(0, 3, 20) / 4),
        (np.ones(5), np.ones(7)),
    ):
        expected = roc_auc_score(
            [1] * len(known) + [0] * len(unknown), np.concatenate([known, unknown])
        )
        assert _curve(known, unknown)[2] == pytest.approx(expected, abs=1e-12)


def test_importances_are_shares_and_need_trials_that_differ(
    sweep: Callable[..., Ledger], ledger: Ledger
) -> None:
    found = importances(ledger)
    assert set(found) == {"mixing_alpha", "consistency_weight", "outlier_ratio"}
    assert sum(found.values()) == pytest.approx(1)
    assert importances(sweep("few", 0.9, 0.8)) == {}
    assert importances(sweep("same", 0.9, 0.9, 0.9, 0.9, 0.9)) == {}


def test_of_very_many_trials_some_say_which_parameters_matter(
    sweep: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [0.5 + place % 10 / 20 for place in range(40)]
    ledger = sweep("many", *values)
    whole = importances(ledger)
    monkeypatch.setattr("lmoe_tune.sweep.importance.MAX_TRIALS", 20)
    some = importances(ledger)
    assert some.keys() == whole.keys()
    assert some != whole
    assert sum(some.values()) == pytest.approx(1)
    assert importances(ledger) == some, "the same ones each time"


def test_conditional_and_categorical_parameters_and_two_objectives_are_drawn(
    make_spec: Any, tmp_path: Path
) -> None:
    from lmoe_tune.spec import load_spec
    from lmoe_tune.sweep.folder import SweepFolder
    from lmoe_tune.sweep.lifecycle import write_records
    from lmoe_tune.training.platform import resolve_platform
    from trainables import declarations

    path = tmp_path / "both.yaml"
    path.write_text(
        "name: both\ndata: {id: {dataset: digits}}\n"
        "space: {method: {choices: [logit_mixoe, mixoe]}, mixing_alpha: {low: 0.1, high: 10, log: true}, "
        "logit_mixoe.consistency: {choices: [mse, kl]}}\n"
        "objective: [{metric: val_auroc}, {metric: val_accuracy}]\n"
        "search: {sampler: random, pruner: none}\nbudget: {trials: 9}\ntrain: {epochs: 1}\n",
        encoding="utf-8",
    )
    folder = SweepFolder(tmp_path / "lmoe_runs", "both")
    spec = resolve_platform(load_spec(path, declarations=declarations()).spec)
    write_records(folder, spec)
    ledger, rng = Ledger.writing(folder, spec), np.random.default_rng(0)
    for _ in range(8):
        number = ledger.ask().number
        metrics = {"val_auroc": rng.random(), "val_accuracy": rng.random()}
        ledger.record_epoch(number, 1, metrics, {"val_accuracy": 0.5})
    best = ledger.best()
    assert best is not None
    drawings = draw_all(gather(ledger), Compared.without_weights(best))
    drawn = {drawing.name: drawing for drawing in drawings}
    for name in ("history", "importance", "slices", "parallel", "tradeoff"):
        assert drawn[name].png is not None, drawn[name].missing

    panels = {
        axes.get_title(loc="left"): axes for axes in _parallel(gather(ledger), NO_WEIGHTS).axes
    }
    of_each = Counter(trial.params["method"] for trial in ledger.trials())
    assert panels.keys() == {f"{method}, {count} trials" for method, count in of_each.items()}
    for title, axes in panels.items():
        own = ["consistency"] if title.startswith("logit_mixoe") else []
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == ["mixing_alpha", *own, "val_auroc"]
    _, data = read(write_report(ledger))
    assert data["pareto_front"] == [trial.number for trial in ledger.pareto_front()]


@pytest.mark.parametrize("draw", [_parallel, _slices])
def test_no_label_of_an_axis_covers_its_neighbour(
    sweep: Callable[..., Ledger], draw: Callable[..., Figure]
) -> None:
    space = (
        "{method: {choices: [logit_mixoe, energy_oe]}, mixing_alpha: {low: 0.1, high: 10, log: true}, "
        "outlier_ratio: {low: 0.25, high: 2}, lr: {low: 0.001, high: 0.1, log: true}, "
        "logit_mixoe.consistency_weight: {low: 0.01, high: 10, log: true}, outlier_weight: {low: 0.05, high: 5}, "
        "logit_mixoe.consistency: {choices: [mse, kl]}, weight_decay: {low: 1.0e-5, high: 0.01, log: true}}"
    )
    values = [0.5 + place / 100 for place in range(20)]
    ledger = sweep("wide", *values, trials=20, more=(f"space={space}", "search.sampler=random"))
    with mpl.rc_context(STYLE):
        figure = draw(gather(ledger), NO_WEIGHTS)
        FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        low, high = sorted(axes.get_xlim())
        shown = [
            label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high
        ]
        boxes = [label.get_window_extent() for label in shown if not label.get_rotation()]
        for left, right in itertools.pairwise(sorted(boxes, key=lambda box: box.x0)):
            assert left.x1 < right.x0, axes.get_xlabel()


def test_the_front_that_is_drawn_is_what_no_other_trial_betters() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        pairs = rng.integers(0, 5, (12, 2)) / 10
        trials = [
            TrialRecord(number, "complete", {}, (EpochRecord(1, {"a": a, "b": b}, 0),), 0)
            for number, (a, b) in enumerate(pairs.tolist())
        ]
        found = _front(trials, "a", "b")
        unbeaten = [
            (a, b)
            for a, b in pairs.tolist()
            if not any(x >= a and y >= b and (x, y) != (a, b) for x, y in pairs.tolist())
        ]
        assert [(one.metrics["a"], one.metrics["b"]) for one in found] == sorted(unbeaten)


SELF_CHECK = """<script>
addEventListener("load", () => {
  const images = [...document.images].map(image => [image.complete, image.naturalWidth, image.clientHeight]);
  const loaded = performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !/^data:/.test(name));
  document.title = JSON.stringify({images, loaded});
});
</script>"""


def test_a_browser_without_a_network_draws_every_figure(confirmed: Ledger, tmp_path: Path) -> None:
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if browser is None:
        pytest.skip("no browser here: apt-get install chromium")
    text = write_report(confirmed).read_text(encoding="utf-8")
    # the page forbids scripts; this copy of it lets one look
    text, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert count == 1
    copy = tmp_path / "copy.html"
    copy.write_text(text.replace("</body>", f"{SELF_CHECK}</body>"), encoding="utf-8")
    done = subprocess.run(
        [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", copy.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
     encoding="utf-8")  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    found = json.loads(title[1])
    assert found["loaded"] == []
    assert len(found["images"]) == len(FIGURES)
    assert all(
        complete and width > 200 and height > 100 for complete, width, height in found["images"]
    )


def test_mlflow_gets_the_report_at_once_or_with_a_later_sync(ledger: Ledger, cli: Any) -> None:
    from mlflow import MlflowClient

    done = cli("report", "digits")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{ledger.folder.path / 'report' / 'index.html'}\n"
    assert "lmoe-tune sync digits" in done.stderr
    done = cli("sync", "digits")
    assert done.returncode == 0, done.stderr
    tracked = view.tracking_of(view.read_sweep(ledger.folder))
    client = MlflowClient(tracked.uri)
    names = {file.path for file in client.list_artifacts(tracked.parent_run_id, "report")}
    assert names == {f"report/{path.name}" for path in (ledger.folder.path / "report").iterdir()}
    assert "report/index.html" in names
