"""What a model in MLflow contains: code that is executed when it is loaded (`served/detector.py`), the
weights, and what lets it be served where lmoe-tune is not installed.

No index has the version of the package that a model was logged with, least of all one from a
checkout. So its source lies in the model as one archive, from which Python imports it, and the
model's requirements name only what it needs.
"""

from __future__ import annotations

import io
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import lmoe_tune

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

_CODE = "detector.py"
ARCHIVE = "lmoe_tune.zip"
_NEEDED = ("mlflow", "numpy", "pandas", "pillow", "pydantic", "pyyaml", "torch")
_ARCHITECTURES = ("torchvision", "timm")  # an exported detector brings its network along
_EPOCH = (
    1980,
    1,
    1,
    0,
    0,
    0,
)  # the oldest time that a zip can hold: equal sources give equal archives


def requirements(*, of_checkpoint: bool) -> list[str]:
    """What loading a model needs, by name and installed version; found without importing any of it.

    Args:
        of_checkpoint: its network is built from its architecture's name; else it is an exported
            detector.
    """
    names = _NEEDED + _ARCHITECTURES if of_checkpoint else _NEEDED
    pinned = []
    for name in names:
        with suppress(PackageNotFoundError):
            pinned.append(f"{name}=={version(name).partition('+')[0]}")
    return pinned


def write_package(folder: Path) -> Path:
    """Write the archive of this package into a folder; returns its path."""
    path = folder / ARCHIVE
    path.write_bytes(_archive(Path(lmoe_tune.__file__).parent))
    return path


@lru_cache(maxsize=1)
def _archive(package: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(package.rglob("*.py")):
            name = path.relative_to(package.parent).as_posix()
            about = zipfile.ZipInfo(name, _EPOCH)
            archive.writestr(about, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def upload_model(
    client: MlflowClient,
    model: LoggedModel,
    artifact: str,
    source: Path,
    *,
    outputs: Mapping[str, str],
    about: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Upload the files of an MLflow pyfunc model, those that `pyfunc.save_model(python_model=path)`
    writes.

    That function would execute the code, copy a checkpoint twice and search all installed packages
    to warn of versions that differ: 0.45 s of CPU.

    Args:
        artifact: what the code calls the weights: `checkpoint`, a file, or `detector`, a folder.
        source: the weights.
        outputs: the columns of what it predicts, and their types in MLflow.
        about: metadata of the model.
    """
    with tempfile.TemporaryDirectory(prefix="lmoe-tune-") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        shutil.copyfile(Path(__file__).parent / "served" / _CODE, folder / _CODE)
        write_package(folder)
        if source.is_dir():
            place = folder / artifact
            shutil.copytree(source, place)
        else:
            place = folder / f"{artifact}.pt"
            place.symlink_to(source.resolve())  # the upload copies what it points to
        _write_environment(folder, requirements(of_checkpoint=not source.is_dir()))
        artifacts = {artifact: place.name, "package": ARCHIVE}
        _write_description(folder, model, artifacts, outputs, about)
        client.log_model_artifacts(model.model_id, str(folder))


def _write_environment(folder: Path, needed: Sequence[str]) -> None:
    """What installs the packages that it needs, in each of the forms that MLflow takes."""
    import yaml

    python = platform.python_version()
    dependencies = [f"python={python}", "pip", {"pip": list(needed)}]
    conda = {"name": "detector", "channels": ["conda-forge"], "dependencies": dependencies}
    virtualenv = {
        "python": python,
        "build_dependencies": ["pip"],
        "dependencies": ["-r requirements.txt"],
    }
    texts = {
        "requirements.txt": "\n".join(needed) + "\n",
        "conda.yaml": yaml.safe_dump(conda),
        "python_env.yaml": yaml.safe_dump(virtualenv),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _write_description(
    folder: Path,
    model: LoggedModel,
    artifacts: Mapping[str, str],
    outputs: Mapping[str, str],
    about: Mapping[str, object],
) -> None:
    """The file that says how the others make a model."""
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    # No input schema: MLflow would accept one shape and type, and refuse the other forms of `predict`.
    signature = ModelSignature(
        outputs=Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
        params=ParamSchema([ParamSpec("score", "string", "")]),
    )
    described = Model(
        artifact_path=model.artifact_location,
        run_id=model.source_run_id,
        model_uuid=model.model_id,
        model_id=model.model_id,
        signature=signature,
        metadata={"lmoe_tune": dict(about)},
    )
    pyfunc.add_to_model(
        described,
        loader_module="mlflow.pyfunc.loaders.code_model",
        model_code_path=_CODE,
        artifacts={name: {"path": path, "uri": path} for name, path in artifacts.items()},
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        streamable=False,
    )
    described.save(str(folder / "MLmodel"))
