"""`export` and `predict`, over a sweep whose trials are made up and whose weights are random."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lmoe_tune import advice, checkpoint, export
from lmoe_tune.data import SearchData, load_search_data
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.data.search_data import validation_of_all_classes
from lmoe_tune.description import KEY, ModelDescription
from lmoe_tune.detector import Detector, load_detector
from lmoe_tune.detector.archive import UnsafeArchiveError, refuse_code
from lmoe_tune.detector.detector import device_of
from lmoe_tune.detector.network import Network
from lmoe_tune.errors import UsageError
from lmoe_tune.evaluation import ScoreName, outputs, threshold_at_tpr
from lmoe_tune.model import build_model
from lmoe_tune.sweep import view
from lmoe_tune.sweep.folder import find_sweep
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.training.trial import run_trial
from tests.cli.conftest import make_sweep
from tests.hearing import Hearing
from trainables import load_method

BEST = 1


def a_model(num_classes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model("small_cnn", num_classes, 1, 8)
    with torch.no_grad():
        for _ in range(3):  # BatchNorm's running statistics become other than the first ones
            model(torch.randn(64, 1, 8, 8))
    return model.eval()


GREY = Preprocessing.as_stored((1, 8, 8), mean=(77.5,), std=(96.5,))


def describes(classes: tuple[str, ...], score: ScoreName = "msp") -> dict[str, Any]:
    return ModelDescription("small_cnn", classes, score, "fp32", GREY).document()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three complete trials, of which number 1 is the best and has a checkpoint; and its export, in `out`."""
    where = tmp_path_factory.mktemp("made")
    ledger = make_sweep(where, "digits", 0.9, 0.95, 0.7, trials=3)
    data = load_search_data(ledger.spec.data, ledger.folder.home)
    state = {
        "model": a_model(data.num_classes).state_dict(),
        "epoch": 1,
        "describes": describes(data.classes),
    }
    checkpoint.save(ledger.folder.checkpoints(BEST), 1, state)
    export.write_detector(ledger, export.winner_of(ledger), where / "out")
    return where


@pytest.fixture
def ledger(made: Path, tmp_path: Path) -> Ledger:
    """The sweep, in the default home of `cli`."""
    shutil.copytree(made / "lmoe_runs", tmp_path / "lmoe_runs")
    folder = find_sweep(tmp_path / "lmoe_runs", "digits")
    return Ledger.writing(folder, view.read_spec(folder))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Its export."""
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


@pytest.fixture
def detector(folder: Path) -> Detector:
    return load_detector(folder)


@pytest.fixture
def data(ledger: Ledger) -> SearchData:
    found = load_search_data(ledger.spec.data, ledger.folder.home)
    assert isinstance(found, SearchData)
    return found


def test_it_says_what_the_trained_model_says(detector: Detector, data: SearchData) -> None:
    pixels = (torch.from_numpy(data.val.pixels).float() - 77.5) / 96.5
    with torch.inference_mode():
        expected = outputs(a_model(data.num_classes)(pixels), "msp")
    found = detector.predict(data.val.pixels)
    assert [one.label for one in found] == [data.classes[number] for number in expected.predicted]
    np.testing.assert_allclose([one.score for one in found], expected.scores.numpy(), rtol=1e-5)


def test_the_threshold_keeps_95_percent_and_is_ood_is_below_it_exactly(
    detector: Detector, data: SearchData
) -> None:
    found = detector.predict(data.val.pixels)
    scores = torch.tensor([one.score for one in found], dtype=torch.float64)
    assert detector.threshold == threshold_at_tpr(scores, 0.95)
    assert (scores >= detector.threshold).double().mean() >= 0.95
    assert detector.threshold in scores  # an image lies on it, and is in-distribution
    assert [one.is_ood for one in found] == (scores < detector.threshold).tolist()
    assert (
        detector.about["threshold_measured"]["tpr"]
        == (scores >= detector.threshold).double().mean()
    )


def test_one_image_and_many_give_the_same(detector: Detector, data: SearchData) -> None:
    some = data.val.pixels[:11]
    together = detector.predict(some)
    assert [detector.predict(some[place : place + 1])[0] for place in range(11)] == together
    assert detector.predict(some[:0]) == []


def test_another_shape_or_a_pixel_that_is_no_number_is_refused(detector: Detector) -> None:
    with pytest.raises(UsageError, match=r"\(2, 8, 8\).*must be \(N, 1, 8, 8\)"):
        detector.predict(np.zeros((2, 8, 8)))
    with pytest.raises(UsageError, match="finite"):
        detector.predict(np.full((2, 1, 8, 8), np.nan))
    with pytest.raises(UsageError, match="score is 'odin', but must be msp, max_logit, energy"):
        detector.predict(np.zeros((2, 1, 8, 8)), score="odin")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"score is \['msp'\], but must be msp"):
        detector.predict(np.zeros((2, 1, 8, 8)), score=["msp"])  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["nosuch", "meta", 1.5])
def test_a_device_that_cannot_be_used_is_refused(device: Any) -> None:
    with pytest.raises(UsageError, match=f"the device {device!r} cannot be used here"):
        device_of(device)


def test_something_that_is_no_image_is_refused_by_its_type(
    detector: Detector, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is given as Tensor, but must be a path"):
        detector(torch.zeros(8, 8, dtype=torch.uint8))  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="is given as NoneType"):
        detector([None])  # type: ignore[list-item]

    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UsageError, match="is not a regular file"):
        detector(str(tmp_path / "pipe.png"))


def test_a_detector_is_copied_and_pickled(detector: Detector, data: SearchData) -> None:
    assert data.val.pixels is not None
    pixels = data.val.pixels[:3]
    expected = detector.predict(pixels)

    for again in (pickle.loads(pickle.dumps(detector)), copy.deepcopy(detector)):
        assert again.predict(pixels) == expected
        assert again.folder == detector.folder


def test_files_of_any_mode_are_read_and_others_are_named(
    detector: Detector, tmp_path: Path
) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / "rgb.png")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "tall.png")
    assert detector(tmp_path / "grey.png") == detector.predict(grey[None, None])[0]
    assert detector(tmp_path / "rgb.png") == detector(tmp_path / "grey.png")
    with pytest.raises(UsageError, match=r"tall\.png: is 8 x 9 pixels, but must be 8 x 8"):
        detector(tmp_path / "tall.png")


def test_the_document_has_what_is_promised(folder: Path, ledger: Ledger) -> None:
    about = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    assert {"classes", "score", "threshold", "preprocessing", "metrics", "provenance"} <= set(about)
    assert about["recorded"]["metrics"] == ledger.trial(BEST).metrics
    assert about["provenance"]["trial"] == BEST
    assert about["provenance"]["sweep_id"] == ledger.sweep_id
    assert about["provenance"]["params"] == ledger.trial(BEST).params
    assert about["provenance"]["confirmed"] is None
    assert str(Path(export.__file__).parent) not in (folder / "model.pt2").read_bytes().decode(
        "latin-1"
    )


def test_a_trial_is_chosen_or_the_lack_of_its_weights_is_said(ledger: Ledger) -> None:
    assert export.winner_of(ledger, BEST).trial == BEST
    with pytest.raises(
        UsageError, match=r"weights of trial 0 are not kept.*there are those of trial 1"
    ):
        export.winner_of(ledger, 0)
    shutil.rmtree(ledger.folder.checkpoints(BEST))
    with pytest.raises(
        UsageError, match=r"among the best 3.*or damaged since.*no complete trial are"
    ):
        export.winner_of(ledger)
    with pytest.raises(UsageError, match="has no trial"):
        export.winner_of(ledger, 99)


def test_weights_of_another_epoch_than_the_recorded_one_are_not_the_trials(ledger: Ledger) -> None:
    folder = ledger.folder.checkpoints(BEST)  # the trial has one epoch
    state = checkpoint.load_newest(folder)
    assert state is not None
    checkpoint.save(folder, 2, state | {"epoch": 2, "model": {}})
    assert export.winner_of(ledger).weights.keys() == state["model"].keys()

    for path in folder.glob("epoch-0001-*.pt"):
        path.write_bytes(b"damaged")
    with pytest.raises(UsageError, match="weights of trial 1 are not kept"):
        export.winner_of(ledger)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"violation": 0.1}, "trial 1 misses the search's constraints (val_accuracy)"),
        ({"state": "pruned"}, "trial 1 was pruned after 1 of 1 epochs"),
        ({"state": "failed"}, "trial 1 failed after 1 of 1 epochs"),
    ],
)
def test_a_trial_that_the_search_would_not_have_chosen_is_exported_with_a_caution(
    ledger: Ledger,
    cli: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    said: str | None,
) -> None:
    trial = replace(ledger.trial(BEST), **changes)
    monkeypatch.setattr(Ledger, "trial", lambda ledger, number: trial)
    done = cli("export", "digits", "--trial", "1", "--out", "det")
    assert done.returncode == 0, done.stderr
    caution = json.loads((tmp_path / "det" / "detector.json").read_text(encoding="utf-8"))[
        "caution"
    ]
    if said is None:
        assert caution is None and "caution" not in done.stderr
    else:
        assert caution.startswith(said) and f"caution: {said}" in done.stderr


def test_after_pruning_every_checkpoint_best_says_what_is_left_and_what_to_do(
    ledger: Ledger, cli: Any
) -> None:
    assert "weights" not in cli("best", "digits").stderr
    pruned = cli("prune-checkpoints", "digits", "--keep", "0")
    best = cli("best", "digits")
    for done in (pruned, best):
        assert done.returncode == 0, done.stderr
        assert "the weights of trial 1 are not kept: it is among the best 3" in done.stderr
        assert "those of no complete trial are left" in done.stderr
        assert offered(done.stderr) == ["train", "digits", "--trial", "1"]


def test_images_that_have_changed_since_the_search_set_no_threshold(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.set_attr("fingerprint", "0" * 16)
    with pytest.raises(UsageError, match="data of the sweep 'digits' have changed since"):
        export.write_detector(ledger, export.winner_of(ledger), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_sweep_without_a_complete_trial_has_nothing_to_export(
    sweep: Callable[..., Ledger],
) -> None:
    with pytest.raises(UsageError, match="no complete trial yet; see `lmoe-tune leaderboard empty"):
        export.winner_of(sweep("empty", None))


def test_a_number_that_is_none_is_no_trial(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="trial is True, but must be a whole number"):
        export.winner_of(ledger, True)


def test_the_confirmed_winner_goes_before_the_best_trial(ledger: Ledger, tmp_path: Path) -> None:
    images = validation_of_all_classes(ledger.spec.data, ledger.folder.home)
    assert len(images.classes) == 7
    job = ledger.folder.confirmation.trial(0)
    job.mkdir(parents=True)
    torch.save(a_model(7).state_dict(), job / "model.pt")
    winner = {
        "trial": 2, "name": "trial 2", "method": "logit_mixoe", "params": {"mixing_alpha": 2.0}, "job": 0,
        "model": "trials/0/model.pt", "describes": describes(images.classes, "energy"), "split": 0, "seed": 5,
    }  # fmt: skip
    row = {"name": "trial 2", "seeds": 5, "metrics": {"test_auroc": {"mean": 0.9}}}
    document = {"verdict": "real", "winner": winner, "rows": [row]}
    (ledger.folder.confirmation.path / "confirm.json").write_text(
        json.dumps(document), encoding="utf-8"
    )
    about = export.write_detector(ledger, export.winner_of(ledger), tmp_path / "out")
    assert (about["score"], about["metrics"]) == ("energy", row["metrics"])
    assert about["provenance"]["confirmed"]["verdict"] == "real"
    assert about["threshold_measured"]["images"] == len(images.labels)
    assert load_detector(tmp_path / "out").classes == images.classes
    assert export.winner_of(ledger, BEST).confirmed is None
    # A confirmation of the user's own classifier knows the classes of the search only.
    own = load_search_data(ledger.spec.data, ledger.folder.home)
    torch.save(a_model(len(own.classes)).state_dict(), job / "model.pt")
    document_of_own = document | {
        "winner": winner | {"describes": describes(own.classes, "energy")}
    }
    (ledger.folder.confirmation.path / "confirm.json").write_text(
        json.dumps(document_of_own), encoding="utf-8"
    )
    about = export.write_detector(ledger, export.winner_of(ledger), tmp_path / "own")
    assert about["classes"] == list(own.classes) and about["threshold_measured"]["images"] == len(
        own.val_labels
    )
    (ledger.folder.confirmation.path / "confirm.json").write_text(
        json.dumps(document | {"winner": winner | {"model": None}}), encoding="utf-8"
    )
    with pytest.raises(UsageError, match=r"kept no weights of its winner, trial 2.*--trial 2"):
        export.winner_of(ledger)
    # a later one that has not ended
    view.record_opening(ledger, "somebody", "lmoe-tune confirm digits --seeds 9", 3)
    begun = "a later confirmation of the sweep 'digits' has begun.*confirm digits --seeds 9,"
    with pytest.raises(UsageError, match=begun):
        export.winner_of(ledger)
    assert export.winner_of(ledger, BEST).confirmed is None
    (ledger.folder.confirmation.path / "confirm.json").unlink()
    assert export.winner_of(ledger).confirmed is None, "the first one has not ended"


def test_the_validation_images_are_those_of_the_search_and_no_test_image_is_among_them() -> None:
    from lmoe_tune.data.sealed_images import open_test_data
    from lmoe_tune.spec import Dataset, DataSpec

    spec = DataSpec(id=Dataset(dataset="digits"), outliers=Dataset(dataset="photo_china"))
    all_classes, opened = validation_of_all_classes(spec, Path()), open_test_data(spec)
    images, tested = all_classes.images.pixels, opened.test.images.pixels
    assert images is not None and tested is not None
    np.testing.assert_array_equal(images, opened.training.val.pixels)
    np.testing.assert_array_equal(all_classes.labels, opened.training.val_labels)
    assert all_classes.classes == opened.training.classes

    searched, known = load_search_data(spec).val.pixels, {image.tobytes() for image in images}
    assert searched is not None and {image.tobytes() for image in searched} <= known
    sealed = {image.tobytes() for image in tested}
    # a few digits are drawn alike to the pixel
    assert sum(image.tobytes() in sealed for image in images) <= 2


def test_an_older_export_is_replaced_whole_and_anything_else_is_left_alone(
    ledger: Ledger, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = export.winner_of(ledger)
    (folder / "detector.json").write_text(
        (folder / "detector.json").read_text(encoding="utf-8") + " ", encoding="utf-8"
    )
    export.write_detector(ledger, winner, folder)
    load_detector(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(export, "_provenance", lambda *_: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(OSError, match="gone"):
            export.write_detector(ledger, winner, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="files that no export wrote"):
        export.write_detector(ledger, winner, mine)
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").write_text("mine", encoding="utf-8")  # beside what an export wrote
    with pytest.raises(UsageError, match="files that no export wrote"):
        export.write_detector(ledger, winner, folder)
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert not list(tmp_path.glob(".*"))


KILLED = """if True:
    import os, pathlib, sys
    from lmoe_tune import export
    from lmoe_tune.sweep import view
    from lmoe_tune.sweep.folder import find_sweep
    ledger = view.read_sweep(find_sweep(pathlib.Path(sys.argv[1]), "digits"))
    rename = pathlib.Path.rename

    def export_and_die(folder, last):
        renamed = []
        def count(path, target):
            if len(renamed) == last:
                os._exit(9)
            renamed.append(rename(path, target))
            if len(renamed) == 2:
                os._exit(9)
        pathlib.Path.rename = count
        export.write_detector(ledger, export.winner_of(ledger), pathlib.Path(folder))

    for last, folder in enumerate(sys.argv[2:]):
        child = os.fork()
        if child == 0:
            export_and_die(folder, last)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
"""


def test_an_export_that_was_killed_is_mended_by_the_next(
    made: Path, ledger: Ledger, tmp_path: Path
) -> None:
    """Killed before the first rename, between the two, or after the second."""
    folders = [tmp_path / f"killed {number}" / "out" for number in range(3)]
    for folder in folders:
        shutil.copytree(made / "out", folder)
    before = (made / "out" / "detector.json").read_text(encoding="utf-8")
    subprocess.run(
        [sys.executable, "-c", KILLED, str(ledger.folder.home), *map(str, folders)], check=True
    )

    for renamed, folder in enumerate(folders):
        left = [path for path in folder.parent.iterdir() if path.name.startswith(".out.")]
        assert len(left) == 1 and folder.exists() == (renamed != 1)
        theirs = folder.parent / ".out.mine"
        theirs.mkdir()
        export._mend(folder)
        after = (folder / "detector.json").read_text(encoding="utf-8")
        assert (after == before) == (renamed < 2)
        load_detector(folder)
        export.write_detector(ledger, export.winner_of(ledger), folder)
        assert list(folder.parent.glob(".out.*")) == [theirs]


def test_an_export_that_still_runs_is_left_alone(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, seen = export.write_durably, []

    def meanwhile(path: Path, content: bytes) -> None:
        export._mend(folder)
        seen.append(path.parent.exists())
        write(path, content)

    monkeypatch.setattr(export, "write_durably", meanwhile)
    export.write_detector(ledger, export.winner_of(ledger), folder)
    assert seen == [True, True]


def test_it_loads_without_what_trains_searches_or_tracks(folder: Path) -> None:
    code = f"""
import sys, numpy
from lmoe_tune.detector import load_detector

load_detector({str(folder)!r}).predict(numpy.zeros((1, 1, 8, 8)))
barred = ("ray", "optuna", "mlflow", "trainables", "torchvision", "lmoe_tune.training", "lmoe_tune.sweep",
          "lmoe_tune.methods", "lmoe_tune.tracking", "lmoe_tune.model")
print([name for name in sys.modules if any(name == one or name.startswith(one + ".") for one in barred)])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        encoding="utf-8",
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# What is refused


def test_a_damaged_model_and_a_strange_document_are_refused(folder: Path) -> None:
    model, about = folder / "model.pt2", folder / "detector.json"
    content, text = bytearray(model.read_bytes()), about.read_text(encoding="utf-8")
    names = json.loads(text)["classes"]
    fewer = {"classes": names[1:]}
    about.write_text(json.dumps(json.loads(text) | fewer), encoding="utf-8")
    with pytest.raises(UsageError, match=rf"{len(names) - 1} classes, but {len(names)} logits"):
        load_detector(folder)
    about.write_text(json.dumps(json.loads(text) | {"classes": names[::-1]}), encoding="utf-8")
    assert load_detector(folder).classes == tuple(names[::-1]), "they may be called otherwise"

    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(UsageError, match=r"model\.pt2: is damaged"):
        load_detector(folder)
    for change, said in (
        ({"version": 99}, "version 99"),
        ({"format": "other"}, "not a description that an export has written"),
        ({"threshold": "high"}, "threshold must be a finite number"),
        ({"score": "odd"}, "score must be one of"),
        (
            {"preprocessing": json.loads(text)["preprocessing"] | {"crop_bottom": math.inf}},
            "is not as it was written",
        ),
    ):
        about.write_text(json.dumps(json.loads(text) | change), encoding="utf-8")
        with pytest.raises(UsageError, match=said):
            load_detector(folder)
    about.unlink()
    (folder / "a.png").touch()
    with pytest.raises(UsageError, match=r"a\.png: holds no detector"):  # the folder was forgotten
        load_detector(folder / "a.png")
    with pytest.raises(UsageError, match="holds no detector"):
        load_detector(folder)


class Bomb:
    def __reduce__(self) -> Any:
        return (open, ("/tmp/must-not-exist", "w"))


def rewritten(
    content: bytes, change: Callable[[str, bytes], tuple[str, bytes]], more: dict[str, bytes]
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(*change(name, old.read(name)))
        for name, extra in more.items():
            new.writestr(f"{old.namelist()[0].partition('/')[0]}/{name}", extra)
    return buffer.getvalue()


def test_an_archive_that_would_run_code_is_refused(folder: Path) -> None:
    content = (folder / "model.pt2").read_bytes()
    refuse_code(content)
    bomb = pickle.dumps(Bomb())

    def as_pickle(name: str, old: bytes) -> tuple[str, bytes]:
        return name, old.replace(b'"use_pickle": false', b'"use_pickle": true')

    def as_call(name: str, old: bytes) -> tuple[str, bytes]:
        return name, old.replace(b"torch.ops.aten.sub.Tensor", b"os.system")

    def as_file(name: str, old: bytes) -> tuple[str, bytes]:
        return name, old.replace(b"torch.ops.aten.sub.Tensor", b"torch.ops.aten.from_file.default")

    def as_guard(name: str, old: bytes) -> tuple[str, bytes]:
        if not name.endswith("models/model.json"):
            return name, old
        return name, json.dumps(json.loads(old) | {"guards_code": ["__import__('os')"]}).encode()

    def as_sample(name: str, old: bytes) -> tuple[str, bytes]:
        return name, bomb if "sample_inputs" in name else old

    def same(name: str, old: bytes) -> tuple[str, bytes]:
        return name, old

    hostile = [
        rewritten(content, change, {})
        for change in (as_pickle, as_call, as_file, as_guard, as_sample)
    ]
    hostile += [rewritten(content, same, {"data/constants/custom_obj_0": bomb}), bomb, b""]
    for one in hostile:
        assert one != content
        with pytest.raises(UnsafeArchiveError):
            refuse_code(one)


@pytest.mark.parametrize(
    "arch",
    [
        "resnet18",
        *(pytest.param(arch, marks=pytest.mark.long) for arch in ("convnext_tiny", "vit_b_16")),
    ],
)
def test_every_architecture_can_be_exported_and_is_let_in(arch: str) -> None:
    torch.manual_seed(0)
    network = Network(
        build_model(arch, 5, 3, 32),
        Preprocessing.as_stored((3, 32, 32), mean=(100.0, 110.0, 120.0), std=(50.0, 51.0, 52.0)),
    )
    buffer = io.BytesIO()
    torch.export.save(export._traced(network, (3, 32, 32)), buffer)
    refuse_code(buffer.getvalue())
    loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    pixels = torch.randint(0, 256, (8, 3, 32, 32)).float()
    with torch.inference_mode():
        torch.testing.assert_close(loaded(pixels), network(pixels), rtol=1e-4, atol=1e-4)


def test_onnx_says_the_same_or_which_package_is_missing(
    ledger: Ledger, detector: Detector, tmp_path: Path
) -> None:
    winner = export.winner_of(ledger)
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match=r"pip install 'lmoe-tune\[onnx\]'"):
            export.write_detector(ledger, winner, tmp_path / "onnx", onnx=True)
        assert not (tmp_path / "onnx").exists()
        return
    export.write_detector(ledger, winner, tmp_path / "onnx", onnx=True)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8)).astype(np.float32)
    (logits,) = session.run(["logits"], {"pixels": pixels})
    expected = [one.score for one in detector.predict(pixels)]
    np.testing.assert_allclose(
        outputs(torch.from_numpy(logits), "msp").scores.numpy(), expected, rtol=1e-4
    )


# As a user does it


def test_export_and_predict_from_the_command_line(ledger: Ledger, cli: Any, tmp_path: Path) -> None:
    done = cli("export", "digits", "--out", "det")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "det\n"
    assert "lmoe-tune predict det" in done.stderr
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    done = cli("predict", "det", "a.png", "b.png", f"{'x' * 300}.png", "a.png", "--json")
    assert done.returncode == 2
    assert "b.png: is not an image" in done.stderr and "File name too long" in done.stderr
    expected = load_detector(tmp_path / "det")(tmp_path / "a.png")
    row = {
        "image": "a.png",
        "class": expected.label,
        "score": expected.score,
        "is_ood": expected.is_ood,
    }
    assert json.loads(done.stdout) == [row, row]
    assert "Traceback" not in done.stderr
    (tmp_path / "many" / "below").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    Image.fromarray(grey).save(tmp_path / "many" / "below" / "c.PNG")
    done = cli("predict", "det", "many", "a.png", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [row | {"image": "many/below/c.PNG"}, row]
    done = cli("predict", "det", "empty")
    assert done.returncode == 2 and "empty: there is no image in this folder" in done.stderr


def offered(text: str, *replaced: str) -> list[str]:
    """The command that ends a message, as words to type; what stands for anything is replaced."""
    (command,) = re.findall(r"lmoe-tune (\w+ .*)$", text, re.MULTILINE)
    for old, new in zip(replaced[::2], replaced[1::2], strict=True):
        command = command.replace(old, new)

    return shlex.split(command)


def test_a_detector_is_made_and_asked_as_the_messages_say(
    ledger: Ledger, cli: Any, tmp_path: Path
) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")

    refused = cli("predict", "my det", "a.png")
    made = cli(*offered(refused.stderr, advice.NAME, "digits"))
    asked = cli(*offered(made.stderr, advice.IMAGES, "a.png"))

    assert (refused.returncode, made.returncode, asked.returncode) == (2, 0, 0), made.stderr
    assert "a.png" in asked.stdout


@pytest.mark.slow
def test_a_trial_whose_weights_were_not_kept_is_trained_again_as_export_says(
    sweep: Callable[..., Ledger], cli: Any
) -> None:
    sweep("digits", 0.9, 0.8, trials=2, more=["model.baseline.epochs=1", "train.threads=1"])

    refused = cli("export", "digits", "--trial", "1", "--out", "det")
    trained = cli(*offered(refused.stderr), "--json")
    assert (refused.returncode, trained.returncode) == (2, 0), trained.stderr

    # The sweep's values are made up, so the repetition gives others.
    other = cli("export", "digits", "--trial", "1", "--out", "det")
    assert other.returncode == 2
    assert "trial 1 was trained once more, but val_auroc is" in other.stderr
    found = json.loads(trained.stdout)
    assert list(Path(found["folder"]).glob("checkpoints/epoch-*.pt"))


def test_a_detector_that_cannot_be_registered_is_said_before_or_after_it_is_written(
    ledger: Ledger, cli: Any, tmp_path: Path
) -> None:
    done = cli("export", "digits", "--out", "det", "--register", "mine")
    assert done.returncode != 0
    assert "does not have this sweep yet; first type: lmoe-tune sync" in done.stderr
    assert not (tmp_path / "det").exists()
    delivered = cli(*offered(done.stderr))
    assert delivered.returncode == 0, delivered.stderr
    done = cli("export", "digits", "--out", "det", "--register", "a/b:c")  # which MLflow refuses
    assert done.returncode != 0
    assert "the detector itself is in det, but is not registered" in done.stderr
    assert "Traceback" not in done.stderr
    load_detector(tmp_path / "det")


def test_what_is_registered_says_the_same_and_a_sweep_that_mlflow_lacks_is_said(
    ledger: Ledger,
    folder: Path,
    detector: Detector,
    data: SearchData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import base64

    import mlflow
    import pandas as pd

    from lmoe_tune.errors import TrackingError
    from lmoe_tune.sweep import projector
    from lmoe_tune.sweep.tracked import address
    from lmoe_tune.tracking.uploads import register_detector

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri, root = (
        address(ledger.folder, ledger.spec),
        ledger.folder.home / "mlartifacts",
    )

    def register(verdict: str | None = None) -> dict[str, Any]:
        experiment, run = view.tracking_of(view.read_sweep(ledger.folder)).run_of(BEST)
        return register_detector(
            uri, folder, model_name="mine", experiment_id=experiment, run_id=run, trial=BEST,
            artifact_root=root, verdict=verdict,
        )  # fmt: skip

    with pytest.raises(TrackingError, match="lmoe-tune sync"):
        register()
    assert projector.sync(ledger, uri, Hearing())
    try:
        assert [register("real")["version"], register("noise")["version"]] == [1, 2]
        client = mlflow.MlflowClient(uri)
        assert str(client.get_model_version_by_alias("mine", "confirmed").version) == "1"
        assert client.get_model_version("mine", "2").tags["lmoe_tune.verdict"] == "noise"
        mlflow.set_tracking_uri(uri)
        model = mlflow.pyfunc.load_model("models:/mine/2")
    finally:
        mlflow.set_tracking_uri(None)
    pixels = data.val.pixels[:9]
    expected = [(one.label, one.score, one.is_ood) for one in detector.predict(pixels)]

    def said(found: Any) -> list[Any]:
        return list(found[["class", "score", "is_ood"]].itertuples(index=False, name=None))

    assert said(model.predict(pixels)) == expected
    assert said(model.predict(pixels[:, 0])) == expected
    assert said(model.predict(pixels[0])) == expected[:1]
    assert said(model.predict(pd.DataFrame(pixels.reshape(9, 64)))) == expected
    content = io.BytesIO()
    Image.fromarray(pixels[3, 0]).save(content, "png")
    files = [content.getvalue(), base64.b64encode(content.getvalue()).decode()]
    assert said(model.predict(pd.DataFrame({"image": files}))) == [expected[3]] * 2
    for bad in (
        np.zeros((2, 7, 7)),
        pd.DataFrame({"image": ["/etc/hostname"]}),
        pd.DataFrame({"image": [b"abc"]}),
    ):
        with pytest.raises(ValueError, match="must be|must hold|cannot be read"):
            model.predict(bad)
    assert projector.sync(
        view.read_sweep(ledger.folder), uri, Hearing()
    )  # it is none of the sweep's own models
    assert len(mlflow.MlflowClient(uri).search_model_versions("name = 'mine'")) == 2


def test_a_file_name_that_is_not_utf8_is_a_row_like_the_others(
    ledger: Ledger, folder: Path, cli: Any, cli_process: Any, tmp_path: Path
) -> None:
    import os

    photos = tmp_path / "photos"
    photos.mkdir()
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for name in (b"a.png", b"caf\xe9.png", "z ä.png".encode()):
        with open(os.fsencode(photos) + b"/" + name, "wb") as file:
            grey.save(file, "PNG")

    done = cli("predict", "out", "photos", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [os.fsencode(row["image"]) for row in rows] == [
        b"photos/a.png",
        b"photos/caf\xe9.png",
        "photos/z ä.png".encode(),
    ]
    done = cli_process(
        "predict", "out", "photos", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0"
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4 and "caf\\xe9.png" in done.stdout


# The precision


@pytest.mark.precision
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_detector_is_measured_in_the_precision_in_which_it_answers(
    precision: str, make_spec: Callable[..., Any], tmp_path: Path
) -> None:
    """Whatever the CPU has: bf16 is emulated where it must be, so this is a small trial."""
    spec = make_spec(
        f"train.precision={precision}", "train.epochs=1", "model.baseline.epochs=1", "data.id.limit=500"
    )  # fmt: skip
    home = tmp_path / "home"
    (last,) = run_trial(
        spec, load_method("baseline").objective({}), {}, home=home, folder=tmp_path / "trial"
    )
    state = checkpoint.load_newest(tmp_path / "trial")
    assert state is not None
    describes = ModelDescription.of_record(state[KEY], whose="it", fix="")
    assert describes.precision == precision

    winner = export.Winner(
        "it", 0, "baseline", {}, state["model"], describes, spec.data, last.metrics, None
    )
    network = Network(describes.build(state["model"]), describes.preprocessing)
    about = export._measured(network, winner, home)
    val = load_search_data(spec.data, home).val
    detector = Detector(
        describes.classes, "msp", about["threshold"], describes.preprocessing, network,
        torch.device("cpu"), {},
    )  # fmt: skip
    assert val.pixels is not None
    scores = torch.tensor([one.score for one in detector.predict(val.pixels)], dtype=torch.float64)
    assert about["threshold"] == threshold_at_tpr(scores, 0.95)
    assert about["threshold_measured"]["precision"] == "fp32"
    assert about["recorded"] == {"precision": precision, "metrics": last.metrics}

    for name, difference in about["difference"].items():
        assert about["metrics"][name] == pytest.approx(last.metrics[name] + difference)
        allowed = 1e-6
        if precision == "bf16":
            allowed = 0.05
        assert abs(difference) <= allowed, name
    assert {"val_accuracy", "val_auroc", "val_fine_auroc"} <= about["difference"].keys()
