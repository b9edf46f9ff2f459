"""What a `model.pt2` may hold, checked before torch loads it.

`torch.export.load` (torch 2.15) keeps weights as plain bytes, but unpickles objects where an
archive says so, loads the sample inputs with `weights_only=True` and, if that fails, without; it
evaluates symbolic sizes and guards as Python. Two of aten's operators open any file that they are
given. `lmoe-tune export` writes nothing of that kind, so an archive that has it is refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

_OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b|save\b)\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|mod|neg|eq|ge|le|gt|lt)"
)
_SYMBOL = r"Symbol\('[su]\d+', positive=True, integer=True\)|[su]\d+"
_SIZE = re.compile(rf"(?:{_SYMBOL}|Mul|Add|Min|Max|Integer|FloorDiv|Mod|[\d+\-*/(), ])*")
_NAME = re.compile(r"[\w.]*")
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict"}


class UnsafeArchiveError(ValueError):
    """The archive would evaluate or unpickle something on loading, or is not an archive."""


def refuse_code(content: bytes) -> None:
    """Raises UnsafeArchiveError unless loading this archive can only make tensors and aten
    operators.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check(archive)
    except UnsafeArchiveError:
        raise
    except Exception as error:  # whatever a broken archive leads to
        raise UnsafeArchiveError(f"it cannot be read ({error})") from error


def _check(archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    if len(set(names)) != len(names):
        raise UnsafeArchiveError("it holds a file twice")
    num_models = 0
    for name in names:
        _, _, place = name.partition("/")  # the first part is the archive's own name
        if re.fullmatch(r"models/\w+\.json", place):
            num_models += 1
            _check_program(json.loads(archive.read(name)))
        elif re.fullmatch(r"data/(weights|constants)/\w+_config\.json", place):
            for entry in json.loads(archive.read(name))["config"].values():
                if entry["use_pickle"] is not False or not re.fullmatch(
                    r"(weight|tensor)_\d+", entry["path_name"]
                ):
                    raise UnsafeArchiveError("it has pickled weights or constants")
        elif re.fullmatch(r"data/sample_inputs/\w+\.pt", place):
            torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
        elif not re.fullmatch(
            r"data/(weights/weight|constants/tensor)_\d+|archive_format|archive_version|byteorder"
            r"|\.data/(version|serialization_id)|\.format_version|version",
            place,
        ):
            raise UnsafeArchiveError(f"it has a file that no exported model needs: {name}")
    if num_models != 1:
        raise UnsafeArchiveError(f"it has {num_models} models, but must have one")


def _check_program(program: dict[str, Any]) -> None:
    if program.get("guards_code"):
        raise UnsafeArchiveError("it has guards written in Python")
    for key, value in _entries(program):
        if key == "target" and not (isinstance(value, str) and _OPERATORS.fullmatch(value)):
            raise UnsafeArchiveError(f"it calls {value!r}")
        if key == "expr_str" and not (isinstance(value, str) and _SIZE.fullmatch(value)):
            raise UnsafeArchiveError(f"it has the size {value!r}")
        if key == "name" and isinstance(value, str) and not _NAME.fullmatch(value):
            raise UnsafeArchiveError(f"it has the name {value!r}")
        if key == "metadata" and value:
            raise UnsafeArchiveError("it has notes on its operators")
        if key in ("in_spec", "out_spec") and value:
            for name, kind in _entries(json.loads(value)):
                if name == "type" and kind is not None and kind not in _CONTAINERS:
                    raise UnsafeArchiveError(f"it has an argument of type {kind!r}")


def _entries(tree: Any) -> Iterator[tuple[str, Any]]:
    """All keys of a JSON document, at any depth, with their values."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _entries(value)
