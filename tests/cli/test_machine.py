from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest

from lmoe_tune.cli import machine
from lmoe_tune.cli.machine import Finding


def one(findings: Iterable[Finding], what: str) -> Finding:
    (found,) = [row for row in findings if row["what"] == what]
    return found


def test_versions_are_compared_with_what_the_installed_metadata_require(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    required = ["numpy>=999", "pyyaml>=6", "nosuchpackage>=1", "torch>=2 ; extra == 'gpu'"]
    monkeypatch.setattr(metadata, "requires", lambda name: required)

    found = machine.packages()

    assert [row["what"] for row in found] == ["Python", "numpy", "pyyaml", "nosuchpackage"]
    assert [row["state"] for row in found] == ["ok", "warn", "ok", "fail"]
    assert found[1]["advice"] == "needs >=999: pip install 'numpy>=999'"


def test_a_checkout_that_is_not_installed_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", absent)

    assert one(machine.packages(), "lmoe-tune")["state"] == "warn"


def test_folders_that_cannot_be_used_are_named_with_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = str(tmp_path / "gone")
    monkeypatch.setenv("HOME", gone)
    monkeypatch.setenv("TMPDIR", gone)
    monkeypatch.setenv("RAY_TMPDIR", gone)

    found = machine.folders(tmp_path / "runs")

    assert one(found, "home")["state"] == "ok"
    for variable, state in (("HOME", "warn"), ("TMPDIR", "warn"), ("RAY_TMPDIR", "fail")):
        row = one(found, variable)
        assert (row["state"], gone in row["found"]) == (state, True)
        assert f"set {variable} to a folder that you can write in" in row["advice"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_rays_that_is_too_long_for_its_sockets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))

    row = one(machine.folders(tmp_path), "RAY_TMPDIR")

    assert (row["state"], "for Ray's sockets" in row["found"]) == ("fail", True)


def test_unknown_and_empty_variables_are_named_and_guessed_and_secrets_are_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith(("LMOE_TUNE_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LMOE_TUNE_HOEM", "x")
    monkeypatch.setenv("LMOE_TUNE_HOME", " ")
    monkeypatch.setenv("MLFLOW_TRACKING_URL", "http://x")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:hunter2@server:5000")

    found = machine.variables()

    assert one(found, "LMOE_TUNE_HOEM")["advice"] == "did you mean 'LMOE_TUNE_HOME'?"
    assert one(found, "LMOE_TUNE_HOME")["found"] == "is set but empty"
    assert one(found, "MLFLOW_TRACKING_URL")["advice"] == "did you mean 'MLFLOW_TRACKING_URI'?"
    assert one(found, "MLFLOW_TRACKING_PASSWORD")["state"] == "ok"
    assert one(found, "MLFLOW_TRACKING_URI")["found"] == "http://***@server:5000"
    assert "hunter2" not in str(found)


def test_a_locale_that_is_not_utf8_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.locale, "getpreferredencoding", lambda do_setlocale: "ISO-8859-1")

    row = one(machine.variables(), "locale")

    assert (row["state"], "LC_ALL=C.UTF-8" in row["advice"]) == ("warn", True)


def test_the_capabilities_that_torch_has_code_for_are_read_from_its_names() -> None:
    assert machine._supported(["sm_75", "sm_90a", "sm_120", "compute_90"]) == [7, 9, 12]


def test_the_disk_of_a_cache_is_looked_at_against_its_limit(tmp_path: Path) -> None:
    def row(folder: Path, limit: int | None) -> machine.Finding:
        (found,) = machine.cache(folder, limit, [], in_home=False)
        return found

    plenty = row(tmp_path / "new" / "cache", 1000)
    little = row(tmp_path, 10**18)
    (tmp_path / "file").touch()
    unusable = row(tmp_path / "file" / "cache", None)

    assert plenty["state"] == "ok" and str(tmp_path / "new" / "cache") in plenty["found"]
    assert little["state"] == "warn" and "but cache_limit is 1,000,000,000 GB" in little["found"]
    assert (unusable["state"], unusable["what"]) == ("fail", "data.cache_dir")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_says_what_decoded_images_must_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "LITTLE_SPACE", 1e30)

    row = one(machine.folders(tmp_path), "free space")

    assert (row["state"], "less than 1.07 GB" in row["advice"]) == ("warn", True)
