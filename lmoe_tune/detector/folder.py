"""The folder of an exported detector, and how it is loaded."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lmoe_tune import advice
from lmoe_tune.arguments import refuse_other
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.detector.archive import UnsafeArchiveError, refuse_code
from lmoe_tune.detector.detector import Detector, device_of
from lmoe_tune.durable import read_object
from lmoe_tune.errors import UsageError
from lmoe_tune.evaluation.scores import ScoreName

if TYPE_CHECKING:
    from torch.export import ExportedProgram

ABOUT, MODEL, ONNX = "detector.json", "model.pt2", "model.onnx"
FORMAT, VERSION = "lmoe-tune detector", 3
_SCORES: tuple[ScoreName, ...] = ("msp", "max_logit", "energy")


def load_detector(folder: Path | str, device: str | None = None) -> Detector:
    """The detector of a folder that `lmoe-tune export` has written. Runs no code in it:
    torch reads with `weights_only=True`.

    Args:
        device: `cpu`, `cuda`, …; else the environment's LMOE_TUNE_DEVICE, else `cpu`.

    Raises:
        UsageError: it is not such a folder, or not as it was written.
    """
    refuse_other(folder, "folder", str, Path)
    folder = Path(folder)
    about = read_about(folder)
    try:
        classes, score, threshold = about["classes"], about["score"], about["threshold"]
        preprocessing = Preprocessing.of_document(about["preprocessing"])
        if not classes or not all(isinstance(name, str) for name in classes):
            raise ValueError("classes must be names")
        if score not in _SCORES:
            raise ValueError(f"score must be one of {', '.join(_SCORES)}")
        if (
            isinstance(threshold, bool)
            or not isinstance(threshold, int | float)
            or not math.isfinite(threshold)
        ):
            raise ValueError("threshold must be a finite number")
        content = _checked(folder / MODEL, about["files"][MODEL]["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UsageError(
            f"{folder / ABOUT}: is not as it was written ({what}); export the detector again"
        ) from error
    where = device_of(device)
    try:
        refuse_code(content)
        program = torch.export.load(io.BytesIO(content))
        network, width = program.module(), _num_logits(program)
    except UnsafeArchiveError as error:
        raise UsageError(
            f"{folder / MODEL}: is not loaded, {error}; export the detector again"
        ) from error
    except (
        Exception
    ) as error:  # torch raises anything; one case is a version that is too old for the file
        written = about.get("provenance", {}).get("versions", {}).get("torch")
        raise UsageError(
            f"{folder / MODEL}: torch {torch.__version__} cannot load it ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}); it was written by torch {written}"
        ) from error
    if width != len(classes):
        raise UsageError(
            f"{folder / ABOUT}: is not as it was written ({len(classes)} classes, but {width} logits); "
            "export the detector again"
        )
    network.to(where)
    return Detector(
        tuple(classes), score, float(threshold), preprocessing, network, where, about, folder
    )


def _num_logits(program: ExportedProgram) -> int:
    (logits,) = program.graph.output_node().args[0]
    return int(logits.meta["val"].shape[-1])


def read_about(folder: Path) -> dict[str, Any]:
    """`detector.json`. Raises UsageError if there is none that this version's export wrote."""
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder}: holds no detector ({ABOUT} is not there); make one with: "
            f"{advice.export(advice.NAME, folder)}"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); export the detector again") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise UsageError(f"{path}: is not a description that an export has written")
    if about.get("version") != VERSION:
        raise UsageError(
            f"{path}: is of version {about.get('version')}, but this lmoe-tune reads version {VERSION}; "
            "use the lmoe-tune that it was exported with, or export it again"
        )
    return about


def is_export(folder: Path) -> bool:
    """Whether a folder was written by `lmoe-tune export`, of whatever version."""
    return read_object(folder / ABOUT).get("format") == FORMAT


def _checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); export the detector again"
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UsageError(
            f"{path}: is damaged (its checksum is not the one in {ABOUT}); export the detector again"
        )
    return content
