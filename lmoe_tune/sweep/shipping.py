"""What a driver sends to the workers of a cluster: the user's own modules, and from a checkout the
package.

A package that is installed on the node takes precedence over what is sent: the handshake then says
whether it is the same. Nothing else is sent: no repository, no data, no home.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmoe_tune.source_code import own_sources
from lmoe_tune.spec import Spec
from trainables.handshake import SENT_MODULES

PACKAGES = ("lmoe_tune", "trainables")
HOOK = '''"""Run by every worker when it starts, before anything is imported from what was sent."""

import importlib.util
import os
import sys


def prepare():
    here = os.path.dirname(os.path.abspath(__file__))
    os.environ["{variable}"] = os.path.join(here, "own")
    found = importlib.util.find_spec("lmoe_tune")
    if found is None or found.origin is None:  # an empty folder of that name is not the package
        sys.path.append(os.path.join(here, "package"))
'''


@contextmanager
def sent(spec: Spec, import_path: Path) -> Iterator[dict[str, Any]]:
    """Ray's runtime environment that brings the code to the workers, for as long as they may fetch
    it.
    """
    folder = Path(tempfile.mkdtemp(prefix="lmoe-tune-sent-"))
    try:
        (folder / "lmoe_tune_sent.py").write_text(
            HOOK.format(variable=SENT_MODULES), encoding="utf-8"
        )
        own = folder / "own"
        own.mkdir()
        for path in own_sources(spec, import_path):
            target = own / path.relative_to(import_path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

        checkout = Path(__file__).resolve().parents[2]
        if (checkout / "pyproject.toml").is_file():
            for name in PACKAGES:
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(checkout / name, folder / "package" / name, ignore=ignored)
        yield {
            "working_dir": str(folder),
            "worker_process_setup_hook": "lmoe_tune_sent.prepare",
            "env_vars": {"PYTHONSAFEPATH": "1"},
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
