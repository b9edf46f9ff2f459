"""`lmoe-tune export`: a sweep's winner as a folder that runs by itself (`lmoe_tune.detector` loads
it).

The confirmed winner is exported if there is one, else the best trial of the search. The threshold
is measured here, on validation images and with the very network that is written, so `is_ood` means
the same everywhere. N images, C channels, H W pixels of the model's input, K classes.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lmoe_tune
from lmoe_tune import advice, checkpoint
from lmoe_tune.data.search_data import Validation, load_search_data, validation_of_all_classes
from lmoe_tune.description import KEY, ModelDescription
from lmoe_tune.detector.folder import ABOUT, FORMAT, MODEL, ONNX, VERSION, is_export
from lmoe_tune.detector.network import Network
from lmoe_tune.detector.scoring import BATCH, score_pixels
from lmoe_tune.durable import read_object, sync_folder, write_durably, writing
from lmoe_tune.errors import TrackingError, UsageError
from lmoe_tune.evaluation import threshold_at_tpr, validation_metrics
from lmoe_tune.evaluation.scores import joined
from lmoe_tune.records import TrialRecord
from lmoe_tune.spec import DataSpec
from lmoe_tune.sweep import view
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.same_data import refuse_other_data
from lmoe_tune.sweep.tracked import address

TPR = 0.95
PRECISION = "fp32"  # of every detector: see `Network`
OPSET = 18
_LOCK, _NEW, _OLD = (
    "lock",
    "new",
    "old",
)  # beside `out` while it is written; the lock's holder is at work
_REPEATED_TO = 1e-3  # on a GPU, or another CPU, the last bits differ
_AT_ONCE = 256  # validation images held as pixels at a time
_ONNX_TOLERANCE = 1e-3  # of logits: two runtimes round differently

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Winner:
    """The weights to export, what they need, and where they come from."""

    name: str
    """Sweep and trial, and whether it was confirmed: `cars, trial 3, confirmed`."""
    trial: int
    method: str
    params: dict[str, Any]
    weights: dict[str, Tensor]
    describes: ModelDescription
    data: DataSpec
    metrics: dict[str, Any]
    confirmed: dict[str, Any] | None
    """What a confirmation found about it; None if there was none."""


@dataclass(frozen=True)
class Exported:
    """A detector that was written; `load_detector(exported.folder)` opens it."""

    folder: Path
    document: Mapping[str, Any]
    """Its `detector.json`."""
    trial: int
    method: str
    verdict: str | None
    """What a confirmation said about it; None if there was none."""
    registered: Mapping[str, Any] | None
    """`name` and `version` in MLflow's model registry, if it was registered."""


def export(
    ledger: Ledger, out: Path, *, trial: int | None, onnx: bool, register: str | None
) -> Exported:
    """See `Sweep.export`."""
    winner, verdict = winner_of(ledger, trial), None
    if winner.confirmed is not None:
        verdict = winner.confirmed["verdict"]
    if register is None:
        document = write_detector(ledger, winner, out, onnx=onnx)
        return Exported(out, document, winner.trial, winner.method, verdict, None)

    from lmoe_tune.tracking.uploads import register_detector

    experiment_id, run_id = view.tracking_of(ledger).run_of(winner.trial)  # or refused
    document = write_detector(ledger, winner, out, onnx=onnx)
    try:
        registered = register_detector(
            address(ledger.folder, ledger.spec),
            out,
            model_name=register,
            experiment_id=experiment_id,
            run_id=run_id,
            trial=winner.trial,
            artifact_root=ledger.folder.home / "mlartifacts",
            verdict=verdict,
        )
    except TrackingError as error:
        raise type(error)(
            f"{error}; the detector itself is in {out}, but is not registered"
        ) from error
    return Exported(out, document, winner.trial, winner.method, verdict, registered)


def winner_of(ledger: Ledger, trial: int | None = None) -> Winner:
    """The confirmed winner, else the best trial; or the trial with this number, as the search left
    it.

    Raises:
        UsageError: there is none yet, its weights are gone, or a later confirmation has not ended.
    """
    if trial is None and (document := _confirmation(ledger)) is not None:
        return _confirmed(ledger, document)
    return _searched(ledger, trial)


def write_detector(
    ledger: Ledger, winner: Winner, out: Path, *, onnx: bool = False
) -> dict[str, Any]:
    """Write the folder `out` and return its `detector.json`. An older export there is replaced,
    whole or not at all.

    Raises:
        UsageError: there is something else in `out`, the data cannot be read or have changed, or
            ONNX's packages are missing.
        StorageError: the folder cannot be written.
    """
    out = out.absolute()
    _mend(out)
    _refuse_foreign(out)
    trained_in = ledger
    if winner.confirmed is not None and ledger.folder.confirmation.exists():
        trained_in = view.read_sweep(ledger.folder.confirmation)
    refuse_other_data(trained_in)

    describes = winner.describes
    preprocessing = describes.preprocessing
    network = Network(describes.build(winner.weights), preprocessing)
    program = _traced(network, preprocessing.shape)
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer)
        deployed: Logits = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    measured = _measured(deployed, winner, ledger.folder.home)
    files = {MODEL: buffer.getvalue()}
    if onnx:
        files[ONNX] = _as_onnx(network, preprocessing.shape)
    about = {
        "format": FORMAT,
        "version": VERSION,
        "name": winner.name,
        "caution": caution_about(ledger, ledger.trial(winner.trial)),
        "classes": list(describes.classes),
        "score": describes.score,
        **measured,
        "preprocessing": preprocessing.document(),
        "provenance": _provenance(ledger, winner),
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in files.items()
        },
    }
    _write(out, files | {ABOUT: (json.dumps(about, indent=2) + "\n").encode()})
    return about


# What is exported


def _confirmation(ledger: Ledger) -> dict[str, Any] | None:
    document = read_object(ledger.folder.confirmation.path / "confirm.json")
    if not document.get("winner"):
        return None
    openings = view.test_openings(ledger)
    if len(document.get("test_openings", ())) < len(openings):
        raise UsageError(
            f"a later confirmation of the sweep '{ledger.folder.name}' has begun and not ended, so its winner may "
            f"change; finish it with {openings[-1]['command']}, or export what the search found with --trial"
        )
    return document


def _confirmed(ledger: Ledger, document: dict[str, Any]) -> Winner:
    winner = document["winner"]
    if winner["model"] is None:
        raise UsageError(
            f"the confirmation of the sweep '{ledger.folder.name}' has kept no weights of its winner, trial "
            f"{winner['trial']}: its first job failed; confirm the sweep again, or export what the search found with "
            f"--trial {winner['trial']}"
        )
    path = ledger.folder.confirmation.path / winner["model"]
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything for a damaged file
        raise UsageError(
            f"{path}: the confirmed winner's weights cannot be read ({type(error).__name__}); confirm the sweep again, "
            f"or export what the search found with --trial {winner['trial']}"
        ) from error
    (row,) = (row for row in document["rows"] if row["name"] == winner["name"])
    data = ledger.spec.data.model_copy(update={"split": winner["split"]})
    told = ("verdict", "sentence", "metric", "compared_with")
    about: dict[str, Any] = {key: document[key] for key in told if key in document}
    about |= {"split": winner["split"], "seed": winner["seed"], "seeds": row["seeds"]}
    return Winner(
        name=f"{ledger.folder.name}, trial {winner['trial']}, confirmed",
        trial=winner["trial"],
        method=winner["method"],
        params=winner["params"],
        weights=weights,
        describes=ModelDescription.of_record(
            winner.get(KEY),
            whose=f"the confirmed winner of the sweep '{ledger.folder.name}'",
            fix=f"confirm it again: {advice.confirm(ledger.folder.name, home=ledger.folder.home)}",
        ),
        data=data,
        metrics=row["metrics"],
        confirmed=about,
    )


def _searched(ledger: Ledger, number: int | None) -> Winner:
    name = ledger.folder.name
    trial = ledger.best() if number is None else view.trial_of(ledger, number)
    if trial is None:
        view.refuse_without_best(ledger)
    state = checkpoint.load_after(ledger.folder.checkpoints(trial.number), len(trial.epochs))
    state = state or _repeated(ledger, trial)
    if state is None:
        raise UsageError(view.without_weights(ledger, trial.number))
    return Winner(
        name=f"{name}, trial {trial.number}",
        trial=trial.number,
        method=trial.params.get("method", ledger.spec.trainable),
        params=trial.params,
        weights=state["model"],
        describes=ModelDescription.of_record(
            state.get(KEY),
            whose=f"trial {trial.number}",
            fix="train it again with this version, and export what that gives",
        ),
        data=ledger.spec.data,
        metrics=trial.metrics,
        confirmed=None,
    )


def _repeated(ledger: Ledger, trial: TrialRecord) -> dict[str, Any] | None:
    """The last checkpoint of a repetition that went as the trial did."""
    folder = ledger.folder.repetition(trial.number) / "checkpoints"
    state = checkpoint.load_after(folder, len(trial.epochs))
    if state is None:
        return None
    for name in ledger.spec.objective.metrics:
        if abs(state["metrics"][name] - trial.metrics[name]) > _REPEATED_TO:
            raise UsageError(
                f"trial {trial.number} was trained once more, but {name} is {state['metrics'][name]:.4f} then, and was "
                f"{trial.metrics[name]:.4f} in the sweep: other code, data or another machine; "
                "export one whose weights are kept"
            )
    return state


def caution_about(ledger: Ledger, trial: TrialRecord) -> str | None:
    """What whoever uses a trial's detector must know of how the search left the trial."""
    if trial.state != "complete":
        how = {"running": "is not finished", "pruned": "was pruned", "failed": "failed"}[
            trial.state
        ]
        after = f"after {len(trial.epochs)} of {ledger.spec.train.epochs} epochs"
        return f"trial {trial.number} {how} {after}: it was never compared with the complete trials"
    if trial.violation > 0:
        missed = ", ".join(ledger.spec.objective.constraints)
        return (
            f"trial {trial.number} misses the search's constraints ({missed}): the search takes a "
            "trial that meets them instead, where there is one"
        )
    return None


# The network


def _traced(network: Network, shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    some = torch.zeros(BATCH, *shape)
    with torch.no_grad(), _quiet():
        program = torch.export.export(
            network, (some,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
        )
    for node in program.graph.nodes:  # the exported file should not reveal source files and lines
        node.meta = {key: value for key, value in node.meta.items() if key == "val"}
    return program


def _measured(deployed: Logits, winner: Winner, home: Path) -> dict[str, Any]:
    """The threshold and the metrics of the network that is written, in the precision in which it
    will run.
    """
    validation = _validation(winner, home)
    sets = (validation.images, validation.fine, validation.coarse)
    found = joined(
        [
            score_pixels(deployed, pixels, winner.describes.score, torch.device("cpu"))
            for images in sets
            for pixels in images.chunks(winner.describes.preprocessing, winner.data, home, _AT_ONCE)
        ]
    )
    scores = found.scores[: len(validation.images)]
    threshold = threshold_at_tpr(scores, TPR).item()
    labels = torch.from_numpy(validation.labels)
    measured = validation_metrics(found, labels, len(validation.fine))
    return {
        "threshold": threshold,
        "threshold_measured": {
            "target_tpr": TPR,
            "tpr": (scores >= threshold).double().mean().item(),
            "images": len(scores),
            "of": "in-distribution validation images",
            "accuracy": measured["val_accuracy"],
            "precision": PRECISION,
            "device": "cpu",
        },
        **_metrics(winner, measured),
    }


def _validation(winner: Winner, home: Path) -> Validation:
    """The validation images of the classes that the winner knows."""
    searched = load_search_data(winner.data, home)
    known = winner.describes.classes
    if searched.classes == known:
        return Validation(
            searched.val, searched.val_labels, known, searched.val_fine, searched.val_coarse
        )

    # A confirmation trains on all classes, unless it starts from the user's classifier.
    if winner.confirmed is not None:
        of_all = validation_of_all_classes(winner.data, home)
        if of_all.classes == known:
            return of_all

    raise UsageError(
        f"data: the classes are not those that trial {winner.trial} was trained on; has the data been changed?"
    )


def _metrics(winner: Winner, measured: dict[str, float]) -> dict[str, Any]:
    """What `detector.json` says about quality.

    A confirmation has already measured in fp32, on images that nothing else may open. A search's
    records were measured in the precision of its training; the deployed network is measured again,
    and the difference is recorded.
    """
    if winner.confirmed is not None:
        return {"metrics": winner.metrics, "recorded": None, "difference": None}

    again = {name: value for name, value in measured.items() if name in winner.metrics}
    difference = {name: value - winner.metrics[name] for name, value in again.items()}
    recorded = {"precision": winner.describes.precision, "metrics": winner.metrics}
    return {"metrics": again, "recorded": recorded, "difference": difference}


def _as_onnx(network: Network, shape: tuple[int, int, int]) -> bytes:
    """The network in ONNX, checked in ONNX's runtime against the original."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise UsageError(f"ONNX needs the package {error.name}: {advice.setup('onnx')}") from None
    some = torch.randint(
        0, 256, (BATCH, *shape), generator=torch.Generator().manual_seed(0)
    ).float()
    with torch.no_grad(), _quiet():
        made = torch.onnx.export(
            network,
            (some,),
            dynamo=True,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            verbose=False,
        )
        expected = network(some)
    assert made is not None
    buffer = io.BytesIO()
    proto = made.model_proto
    for node in proto.graph.node:  # source lines, as above
        del node.metadata_props[:]
        node.doc_string = ""
    buffer.write(proto.SerializeToString())
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixels": some.numpy()})
    difference = float(
        (torch.from_numpy(logits) - expected).abs().max() / (1 + expected.abs().max())
    )
    if difference > _ONNX_TOLERANCE:
        raise UsageError(
            f"the logits in ONNX's runtime differ by {difference:.2g}; nothing was written"
        )
    return buffer.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's exporters, which warn and log about their internals."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# The folder


def _provenance(ledger: Ledger, winner: Winner) -> dict[str, Any]:
    environment = read_object(ledger.folder.environment)
    return {
        "sweep": ledger.folder.name,
        "sweep_id": ledger.sweep_id,
        "trial": winner.trial,
        "method": winner.method,
        "params": winner.params,
        "confirmed": winner.confirmed,
        "arch": winner.describes.arch,
        "data": {"id": winner.data.id.dataset, "split": winner.data.split}
        | {"fingerprint": ledger.attrs.get("fingerprint")},
        "test_openings": len(view.test_openings(ledger)),
        "trained_with": environment.get("packages", {})
        | {"git_commit": environment.get("git_commit")},
        "versions": {name: metadata.version(name) for name in ("torch", "numpy", "pillow")}
        | {"lmoe-tune": lmoe_tune.__version__},
        "exported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _refuse_foreign(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{out}: is not a folder; give another one with --out")
    there = {path.name for path in out.glob("*")}
    if there and not (is_export(out) and there <= {ABOUT, MODEL, ONNX}):
        raise UsageError(
            f"{out}: has files that no export wrote, and is left alone; give another folder with --out"
        )


def _write(out: Path, files: dict[str, bytes]) -> None:
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=_aside(out), dir=out.parent))
        try:
            with (aside / _LOCK).open("w", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                (aside / _NEW).mkdir()
                for name, content in files.items():
                    write_durably(aside / _NEW / name, content)
                if out.exists():
                    out.rename(aside / _OLD)
                try:
                    (aside / _NEW).rename(out)
                except OSError:
                    if (aside / _OLD).exists():
                        (aside / _OLD).rename(out)
                    raise
                sync_folder(out.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _mend(out: Path) -> None:
    """After a kill: bring back the export that was being replaced, and remove what was being
    written.
    """
    if not out.parent.is_dir():
        return
    with writing(out):
        for aside in (path for path in out.parent.iterdir() if path.name.startswith(_aside(out))):
            with (
                suppress(FileNotFoundError, BlockingIOError),
                (aside / _LOCK).open("r+", encoding="utf-8") as lock,
            ):
                fcntl.flock(
                    lock, fcntl.LOCK_EX | fcntl.LOCK_NB
                )  # held by an export that still runs
                if (aside / _OLD).is_dir() and not out.exists():
                    (aside / _OLD).rename(out)
                shutil.rmtree(aside, ignore_errors=True)


def _aside(out: Path) -> str:
    return f".{out.name}.export-"
