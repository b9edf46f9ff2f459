"""What a model in MLflow contains, so that it can be served where lmoe-tune is not installed.

No index has the version of the package that a model was logged with, least of all one from a
checkout. So its source lies in the model as one archive, from which Python imports it, and the
model's requirements name only what it needs.
"""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import lmoe_tune

PACKAGE = "package"
"""The artifact's name in the model."""
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
