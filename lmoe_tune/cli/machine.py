"""What `lmoe-tune doctor` finds out about the machine and the environment: packages, hardware,
folders, variables.
"""

from __future__ import annotations

import locale
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal, TypedDict

from lmoe_tune.home import VARIABLE as HOME_VARIABLE
from lmoe_tune.processes import unusable_home
from lmoe_tune.wording import did_you_mean, first_few, masked, printable, readable_size

DISTRIBUTION = "lmoe-tune"
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}  # others go by their name
OWN_VARIABLES = (HOME_VARIABLE, "LMOE_TUNE_DEBUG", "LMOE_TUNE_DEVICE", "LMOE_TUNE_BENCH")
RAYS_VARIABLES = ("RAY_ADDRESS", "RAY_TMPDIR")
LITTLE_SPACE = 2e9  # bytes

State = Literal["ok", "warn", "fail"]


class Finding(TypedDict):
    """One row of what doctor prints."""

    state: State
    what: str
    found: str
    advice: str


def finding(state: State, what: str, found: str, advice: str = "") -> Finding:
    """One row."""
    return {"state": state, "what": what, "found": found, "advice": advice}


def packages() -> list[Finding]:
    """Python, and every package that the installed metadata require: there, of a version that fits,
    importable.
    """
    from importlib import metadata  # 13 ms, which no other command should wait for

    from packaging.requirements import Requirement

    version = platform.python_version()
    try:
        about = metadata.metadata(DISTRIBUTION)
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return [
            finding("ok", "Python", version),
            finding("warn", DISTRIBUTION, "is not installed, but runs from a folder"),
        ]

    found = [_fitting("Python", version, about["Requires-Python"] or "", "fail")]
    for text in required:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.append(_package(requirement.name, str(requirement.specifier)))

    return found


def _package(name: str, needed: str) -> Finding:
    from importlib import metadata

    from lmoe_tune.sweep.cluster import fault_of_settings

    unreadable = fault_of_settings() if name.lower() == "ray" else None
    if unreadable is not None:  # importing it would end this process
        return finding("fail", name, unreadable, "correct or unset it")

    install = f"pip install '{name}{needed}'"
    try:
        version = metadata.version(name)
        import_module(MODULES.get(name.lower(), name.lower()))
    except Exception as error:  # a broken installation may raise anything
        return finding("fail", name, f"{type(error).__name__}: {error}", install)

    return _fitting(name, version, needed, "warn", f": {install}")


def _fitting(name: str, version: str, needed: str, otherwise: State, fix: str = "") -> Finding:
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(needed).contains(version, prereleases=True):
        return finding("ok", name, version)
    return finding(otherwise, name, version, f"needs {needed}{fix}")


def hardware() -> list[Finding]:
    """Processors and GPUs, and whether this torch has code for the latter."""
    from lmoe_tune.sweep.readiness import hint_of_gpu, num_gpus

    found = [finding("ok", "CPU cores", str(os.cpu_count()))]
    try:
        import torch

        names = []
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            capability = f"{properties.major}.{properties.minor}"
            memory = readable_size(properties.total_memory)
            names.append(f"{properties.name} (capability {capability}, {memory})")

            if properties.major < min(_supported(torch.cuda.get_arch_list()), default=0):
                return [
                    *found,
                    finding(
                        "fail", "GPUs", names[-1], "this torch has no code for it: install one that has"
                    ),
                ]  # fmt: skip
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        return [*found, finding("warn", "GPUs", what, "see that torch and the driver fit")]

    hint = hint_of_gpu()
    if not names and (num_gpus() or hint is not None):
        there = "there is one" if num_gpus() else f"there may be one ({hint})"
        advice = "see that torch and the driver fit, and what CUDA_VISIBLE_DEVICES says"
        return [*found, finding("warn", "GPUs", f"{there}, but torch sees none", advice)]

    found.append(finding("ok", "GPUs", ", ".join(names) or "none (the CPU is used)"))
    if names:
        found.append(_multi_process_service())
    return found


def _multi_process_service() -> Finding:
    """Whether CUDA's daemon for sharing a GPU runs; with it trials compute side by side, else by
    turns.
    """
    pipes = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    found = "no daemon: trials that share a GPU (resources.gpu) take turns"
    if (pipes / "control").exists():
        found = f"a daemon runs ({pipes}): trials share a GPU side by side"
    return finding("ok", "CUDA MPS", found)


def _supported(architectures: Iterable[str]) -> list[int]:
    """Major versions of the capabilities that torch has code for: 9 of sm_90."""
    return [
        int(name.removeprefix("sm_").rstrip("abcdefghijklmnopqrstuvwxyz")) // 10
        for name in architectures
        if name.startswith("sm_")
    ]


def folders(home: Path) -> list[Finding]:
    """The home, and the folders that libraries write to: there, writable, with room."""
    return [*_home(home), _users_home(), _temporary(), *_rays_folder()]


def _home(home: Path) -> list[Finding]:
    usable = usable_folder("home", home, f"choose another with --home or {HOME_VARIABLE}")
    return [usable, _space("free space", _existing(home), _room_for_images())]


def cache(folder: Path, limit: int | None, users: Sequence[str], *, in_home: bool) -> list[Finding]:
    """A folder of decoded images, if there are any or they may come: how large it is, whose, and how
    to free it; whether it is writable, with room.

    Args:
        limit: `data.cache_limit`, in bytes.
        users: what decodes into it.
        in_home: it is the home's own; else a `data.cache_dir`.
    """
    from lmoe_tune.data.decoded_cache import num_bytes_in

    taken = num_bytes_in(folder)
    found = []
    if taken:
        whose = f"of {first_few(users)}" if users else "of no sweep that is still in the home"
        text = f"{readable_size(taken)} in {folder}, {whose}"
        free_it = f"rm -r {shlex.quote(str(folder))}/*px-*"
        again = "a sweep that needs them decodes them again"
        found.append(
            finding(
                "ok", "decoded images", text, f"to free it while no sweep runs: {free_it} ({again})"
            )
        )
    if in_home:  # its disk is that of the home
        return found

    what = "data.cache_dir"
    usable = usable_folder(what, folder, "set another one, on a disk of this machine's own")
    if usable["state"] != "ok":
        return [*found, usable]

    free = shutil.disk_usage(_existing(folder)).free
    if limit is not None and free < limit:
        text = f"{readable_size(free)} free in {folder}, but cache_limit is {readable_size(limit)}"
        return [*found, finding("warn", what, text, "make room, or lower data.cache_limit")]

    return [*found, _space(what, folder, _room_for_images())]


def _room_for_images() -> str:
    from lmoe_tune.data.decoded_cache import SPARE_BYTES

    return f"make room: decoded images are refused where they leave less than {readable_size(SPARE_BYTES)}"


def usable_folder(what: str, folder: Path, advice: str) -> Finding:
    """Whether a folder can be written in, or be made."""
    fault = _unwritable(_existing(folder))
    if fault is not None:
        return finding("fail", what, f"{folder}: {fault}", advice)

    state = "is there" if os.path.exists(folder) else "is made by the first sweep"
    return finding("ok", what, f"{folder} ({state})")


def _users_home() -> Finding:
    advice = (
        "set HOME to a folder that you can write in: libraries keep settings and downloads there"
    )
    try:
        path = Path.home()
    except RuntimeError as error:
        return finding("warn", "HOME", str(error), advice)

    replaced = unusable_home()
    if replaced is not None:
        given = f"'{printable(replaced)}' is not a folder" if replaced else "there is none"
        return finding("warn", "HOME", f"{given}, so {path} is used", advice)

    fault = _unwritable(path)
    if fault is not None:
        return finding("warn", "HOME", f"{path}: {fault}", advice)

    return finding("ok", "HOME", str(path))


def _temporary() -> Finding:
    given = os.environ.get("TMPDIR", "")
    try:
        used = tempfile.gettempdir()
    except OSError as error:
        return finding("fail", "TMPDIR", str(error), "set TMPDIR to a folder that you can write in")

    if given and Path(given).absolute() != Path(used).absolute():
        advice = "set TMPDIR to a folder that you can write in, or unset it"
        return finding("warn", "TMPDIR", f"{given} cannot be used; {used} is", advice)

    return _space("TMPDIR", Path(used))


def _rays_folder() -> list[Finding]:
    from lmoe_tune.sweep.cluster import fault_of_folder

    given = os.environ.get("RAY_TMPDIR", "")
    if not given:
        return []

    fault = fault_of_folder(Path(given))
    if fault is not None:
        advice = "set RAY_TMPDIR to a folder that you can write in, or unset it"
        return [finding("fail", "RAY_TMPDIR", f"{given}: {fault}", advice)]

    return [finding("ok", "RAY_TMPDIR", given)]


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while (
        not os.path.exists(path) and path != path.parent
    ):  # Path.exists raises where it may not look
        path = path.parent

    return path


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written in a folder, or None. Leaves nothing behind."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".lmoe-tune-"):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _space(what: str, folder: Path, advice: str = "make room") -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    found = f"{readable_size(free)} free in {folder}"
    if free < LITTLE_SPACE:
        return finding("warn", what, found, advice)

    return finding("ok", what, found)


def variables() -> list[Finding]:
    """The locale, and the environment's variables for this program, MLflow and Ray."""
    from lmoe_tune.tracking.store import mlflows_variables

    encoding = locale.getpreferredencoding(do_setlocale=False)
    found = [finding("ok", "locale", encoding)]
    if encoding.lower().replace("-", "") != "utf8":
        advice = "set a UTF-8 locale, such as LC_ALL=C.UTF-8, for other file names"
        found = [finding("warn", "locale", encoding, advice)]

    known = {"LMOE_TUNE_": OWN_VARIABLES, "MLFLOW_": mlflows_variables()}

    for name, value in sorted(os.environ.items()):
        prefix = next((prefix for prefix in known if name.startswith(prefix)), None)
        if prefix is None and name not in RAYS_VARIABLES:
            continue

        if not value.strip():
            found.append(finding("warn", name, "is set but empty", "treated as unset"))
        elif prefix is not None and known[prefix] and name not in known[prefix]:
            guess = did_you_mean(name, known[prefix]).removeprefix("; ")
            found.append(finding("warn", name, "is not a variable that is read", guess))
        else:
            found.append(finding("ok", name, _as_shown(name, value)))

    return found


def _as_shown(name: str, value: str) -> str:
    """The value, without what is secret in it."""
    hidden = ("PASSWORD", "TOKEN", "SECRET", "KEY", "USERNAME", "AUTH")
    if any(word in name for word in hidden):
        return "is set"

    return printable(masked(value))


def examine(home: Path) -> list[Finding]:
    """All of it."""
    sys.stdout.flush()  # libraries that are imported here may write to it themselves
    return [*packages(), *hardware(), *folders(home), *variables()]
