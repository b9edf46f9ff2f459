"""The user's own modules, imported from the folder of the spec that names them.

A notebook works on several specs in one process, and edits the modules between two searches. So a
module that was imported for another folder, or has changed since, is imported again: otherwise a
search would silently run other code than its workers, which are fresh processes.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

_one_at_a_time = threading.RLock()
_seen: set[str] = set()
"""The folders of all specs so far."""
_added: list[str] = []
"""Those that are on the import path because of that, the newest first."""
_stamps: dict[str, tuple[str, int, int]] = {}
"""File, time of change and size of the modules from these folders, by name, when they were imported."""


def import_beside(folder: Path, name: str) -> ModuleType:
    """The module `name` from `folder`, unless an installed package has that name.

    Raises what the module raises.
    """
    place = str(folder.resolve())
    with _one_at_a_time:
        _seen.add(place)
        _look_first_in(place)
        _forget_stale(place)
        known = sys.modules.get(name)
        if known is not None and not _is_namesake(name, known, place):
            return known  # as for every trial but the first of a process

        with _namesakes_aside(place):
            before = set(sys.modules)
            try:
                return importlib.import_module(name)
            finally:
                for new in sys.modules.keys() - before:
                    stamp = _now(getattr(sys.modules[new], "__file__", None) or "")
                    if stamp is not None and _folder_of(stamp[0]) in _seen:
                        _stamps[new] = stamp


@contextmanager
def _namesakes_aside(place: str) -> Iterator[None]:
    """Hide the modules that the user's own program has imported from elsewhere under a name that a
    module of this folder has, such as `helper`: a worker would find the one beside the spec. They
    are put back.
    """
    aside = {
        name: module
        for name, module in [*sys.modules.items()]
        if name not in _stamps and _is_namesake(name, module, place)
    }
    folders = {_imported_from(name, str(module.__file__)) for name, module in aside.items()}
    path = [*sys.path]
    for name in aside:
        del sys.modules[name]
    if aside:
        sys.path[:] = [entry for entry in path if os.path.abspath(entry) not in folders]
    try:
        yield
    finally:
        if aside:
            sys.path[:] = path
            sys.modules.update(aside)


def _imported_from(name: str, file: str) -> str:
    """The folder that a module was found in; it need not be on the import path any more."""
    for _ in range(name.count(".") + 1 + file.endswith("/__init__.py")):
        file = os.path.dirname(file)
    return file


def _is_namesake(name: str, module: ModuleType, place: str) -> bool:
    file = getattr(module, "__file__", None)
    if file is None or file.startswith((sys.prefix, sys.base_prefix)):
        return False
    if name == "__main__" or not _is_hidden(name, file, place):
        return False
    return name.partition(".")[0] not in _installed()


@cache
def _installed() -> frozenset[str]:
    """The names of the installed packages, those installed from a checkout included."""
    from importlib.metadata import packages_distributions  # 20 ms, for the rare case

    return frozenset({"lmoe_tune", "trainables", *packages_distributions()})


def _look_first_in(place: str) -> None:
    """Put the folder on the import path, if it is not: after all that is installed, so that it hides
    no package, and before the folders of other specs.
    """
    if place in sys.path and (place not in _added or _added[0] == place):
        return

    others = [one for one in _added if one != place and one in sys.path]
    sys.path[:] = [path for path in sys.path if path not in (place, *others)]
    sys.path += [place, *others]
    _added[:] = [place, *others]
    importlib.invalidate_caches()


def _forget_stale(place: str) -> None:
    """Forget the modules whose file has changed, and those of other folders that this one has too."""
    changed = {name for name, stamp in _stamps.items() if _now(stamp[0]) != stamp}
    hidden = {name for name, stamp in _stamps.items() if _is_hidden(name, stamp[0], place)}
    if changed or hidden:  # and what has imported them
        for name, stamp in [*_stamps.items()]:
            if getattr(sys.modules.get(name), "__file__", None) == stamp[0]:
                del sys.modules[name]
            del _stamps[name]
        importlib.invalidate_caches()


def _is_hidden(name: str, file: str, place: str) -> bool:
    top = name.partition(".")[0]
    is_here = any(os.path.exists(f"{place}/{top}{end}") for end in (".py", ""))
    return is_here and _folder_of(file) != place


def _folder_of(file: str) -> str | None:
    """The entry of the import path that a file is below: the nearest one."""
    above = [path for path in sys.path if path and file.startswith(f"{path.rstrip('/')}/")]
    return max(above, key=len, default=None)


def _now(file: str) -> tuple[str, int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return file, status.st_mtime_ns, status.st_size
