"""The code that a sweep's numbers come from, so that a resume notices when it is no longer the
same.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from lmoe_tune.spec import METHOD, Spec

PARTS = (
    "checkpoint.py", "data", "description.py", "evaluation", "methods", "model.py", "readers", "sweep/pruning.py",
    "sweep/sampling.py", "training", "weights.py",
)  # fmt: skip
"""What of the package decides on suggestions and results; the rest may change between two runs."""
PACKAGES = ("torch", "torchvision", "numpy", "optuna")


def code_of(spec: Spec, import_path: Path, parts: Sequence[str] = PARTS) -> dict[str, str]:
    """Checksums of the source files by name, and versions of the packages, that a sweep's numbers
    depend on.

    Args:
        import_path: where the user's own modules are.
        parts: files and folders of the package; one that is not there is a mistake.
    """
    package = Path(__file__).resolve().parent
    files = {
        f"lmoe_tune/{path.relative_to(package)}": path
        for part in parts
        for path in _sources(package / part)
    }
    trainables = package.parent / "trainables"
    files |= {f"trainables/{path.name}": path for path in _sources(trainables)}
    for path in own_sources(spec, import_path):
        files[str(path.relative_to(import_path))] = path
    found = {
        name: hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for name, path in sorted(files.items())
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each file or package that has changed."""
    lines = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old != new and name in PACKAGES:
            lines.append(f"{name}: {old} -> {new}")
        elif old != new:
            lines.append(f"{name}: {'changed' if old and new else 'new' if new else 'gone'}")
    return lines


def _sources(path: Path) -> list[Path]:
    assert path.exists(), f"{path} decides on results, but is not there"
    if path.is_file():
        return [path]

    return sorted(path.rglob("*.py"))


def own_sources(spec: Spec, import_path: Path) -> Iterator[Path]:
    """The files of the user's own trainables, and what they import from beside the spec."""
    if METHOD in spec.space:
        names = spec.space[METHOD].choices or ()
    else:
        names = (spec.trainable,)
    queue = [str(name).partition(":")[0] for name in names if ":" in str(name)]
    seen: set[Path] = set()
    while queue:
        module = queue.pop()
        for path in _files_of(module, import_path):
            if path not in seen:
                seen.add(path)
                yield path
                queue.extend(_imported(path, module))


def _files_of(module: str, folder: Path) -> list[Path]:
    """The module's file, with the `__init__.py` of the packages it is in; none where it is not
    beside the spec.
    """
    parts = module.split(".")
    packages = [
        folder.joinpath(*parts[:length], "__init__.py") for length in range(1, len(parts) + 1)
    ]
    return [
        path for path in (*packages, folder.joinpath(*parts).with_suffix(".py")) if path.is_file()
    ]


def _imported(path: Path, module: str) -> list[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # what is wrong with it is reported where it is imported
        return []
    if path.name == "__init__.py":
        package = module.split(".")
    else:
        package = module.split(".")[:-1]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            else:
                base = []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names += [stem, *(f"{stem}.{alias.name}" for alias in node.names)]
    return [name for name in names if name]
