from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from lmoe_tune.training.platform import lacking_compiler


@pytest.mark.parametrize(
    ("device", "name", "said"), [("cuda", "clang", "C"), ("cpu", "g++", "C++")]
)
def test_what_torchs_compiler_lacks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, name: str, said: str
) -> None:
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    lacking = lacking_compiler(device)
    assert lacking is not None and f"no {said} compiler" in lacking
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    (tmp_path / "Python.h").touch()
    (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / name).chmod(0o755)
    assert lacking_compiler(device) is None


def test_pythons_headers_are_needed_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setenv("CXX", "c++")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    lacking = lacking_compiler("cuda")
    assert lacking is not None and "python3-dev" in lacking
    assert lacking_compiler("cpu") is None
    (tmp_path / "Python.h").touch()
    assert lacking_compiler("cuda") is None
