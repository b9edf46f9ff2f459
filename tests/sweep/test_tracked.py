from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmoe_tune.errors import TrackingError
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.tracked import FILE, address, append, remember_address, tracked

SERVER = "http://ann:secret@host:5000"
SHOWN = {"server": "http://host:5000"}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    made = SweepFolder(tmp_path / "home", "digits")
    made.path.mkdir(parents=True)
    return made


def test_what_was_learnt_later_holds(folder: SweepFolder) -> None:
    append(folder, [SHOWN | {"experiment_id": "1", "parent_run_id": "p"}])
    append(folder, [SHOWN | {"trial": 0, "run_id": "a"}, SHOWN | {"models": {0: "m"}}])
    append(folder, [SHOWN | {"trial": 0, "run_id": "b"}, SHOWN | {"models": {1: "n"}, "runs": 2}])
    found = tracked(folder, SERVER)
    assert (found.experiment_id, found.parent_run_id, found.runs) == ("1", "p", 2)
    assert (found.run_ids, found.models) == ({0: "b"}, {1: "n"})
    assert found.run_of(0) == ("1", "b")
    assert found.run_of(7) == ("1", "p"), "the sweep's, where a trial has none"


def test_each_server_has_ids_of_its_own(folder: SweepFolder) -> None:
    append(folder, [SHOWN | {"experiment_id": "1", "parent_run_id": "p"}])
    elsewhere = tracked(folder, "http://elsewhere")
    assert elsewhere.parent_run_id is None
    with pytest.raises(TrackingError, match="lmoe-tune sync"):
        elsewhere.run_of(0)


def test_a_line_that_a_kill_tore_hides_no_other(folder: SweepFolder) -> None:
    append(folder, [SHOWN | {"trial": 0, "run_id": "a"}])
    with (folder.path / FILE).open("ab") as file:
        file.write(b'{"server": "http://host:5000", "trial": 1, "run')
    append(folder, [SHOWN | {"trial": 2, "run_id": "c"}])
    assert tracked(folder, SERVER).run_ids == {0: "a", 2: "c"}


def test_a_relative_file_means_the_same_wherever_a_later_command_is_typed(
    folder: SweepFolder,
    tmp_path: Path,
    spec: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs/mlflow.db")
    first, second = tmp_path / "first", tmp_path / "second"
    for place in (first, second):
        place.mkdir()
    monkeypatch.chdir(first)
    remember_address(folder, spec())
    expected = f"sqlite:///{first}/runs/mlflow.db"
    monkeypatch.chdir(second)
    assert address(folder, spec()) == expected
    remember_address(folder, spec())
    assert address(folder.confirmation, spec()) == expected, "its confirmation is there too"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert address(folder, spec()) == f"sqlite:///{second}/other.db"
