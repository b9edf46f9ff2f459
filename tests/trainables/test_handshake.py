from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lmoe_tune import source_code
from lmoe_tune.api.loading import load_spec
from lmoe_tune.spec import Spec
from trainables import handshake
from trainables.handshake import faults, leave_sign


@pytest.fixture
def digits_spec() -> Spec:
    return load_spec("digits").spec


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "PATIENCE_S", 0.0)


def look(nonce: str, folder: Path, spec: Spec) -> list[str]:
    return faults(nonce, folder, folder.parent, spec, folder)


def test_one_who_sees_the_sign_and_has_the_code_is_fit(tmp_path: Path, digits_spec: Spec) -> None:
    nonce = leave_sign(tmp_path, source_code.code_of(digits_spec, tmp_path))
    assert look(nonce, tmp_path, digits_spec) == []


def test_without_the_sign_the_home_is_not_there_and_with_an_old_one_it_is_a_copy(
    tmp_path: Path, digits_spec: Spec
) -> None:
    assert look("new", tmp_path, digits_spec) == [f"it does not see the home {tmp_path.parent}"]
    leave_sign(tmp_path, {})
    (said,) = look("new", tmp_path, digits_spec)
    assert "is another one than the driver's, or an old copy" in said
    (tmp_path / handshake.SIGN).write_text('{"nonce": ', encoding="utf-8")
    assert look("new", tmp_path, digits_spec) == [f"it does not see the home {tmp_path.parent}"]


def test_other_code_and_other_versions_are_named(tmp_path: Path, digits_spec: Spec) -> None:
    code = source_code.code_of(digits_spec, tmp_path)
    code |= {"lmoe_tune/methods/logit_mixoe.py": "other", "torch": "1.0"}
    found = look(leave_sign(tmp_path, code), tmp_path, digits_spec)
    assert any(said.startswith("it has torch ") and "the driver 1.0" in said for said in found)
    assert "it runs other code: lmoe_tune/methods/logit_mixoe.py differs" in found


def test_data_that_cannot_be_read_are_a_fault(
    tmp_path: Path, digits_spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> None:
        raise OSError(13, "Permission denied", "/data/cars")

    monkeypatch.setattr("lmoe_tune.data.load_search_data", unreadable)
    nonce = leave_sign(tmp_path, source_code.code_of(digits_spec, tmp_path))
    (said,) = look(nonce, tmp_path, digits_spec)
    assert said.startswith("it cannot read the data: ")
    assert "/data/cars" in said


def test_a_clock_is_wrong_only_where_the_answer_cannot_have_come_in_time() -> None:
    assert handshake.clock_fault(0, 3_600_000, 1_800_000) is None
    assert handshake.clock_fault(0, 1_000, 100_000) is None
    assert handshake.clock_fault(0, 1_000, 301_000) == "its clock is 5m 00s ahead"
    assert handshake.clock_fault(300_000, 301_000, 0) == "its clock is 5m 00s late"


def test_a_device_that_is_not_there_is_a_fault(
    digits_spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_device(device: str) -> Spec:
        train = digits_spec.train.model_copy(update={"device": device})
        return digits_spec.model_copy(update={"train": train})

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert handshake.device_faults(with_device("cpu")) == []
    (said,) = handshake.device_faults(with_device("cuda"))
    assert "this process sees no GPU" in said


def test_a_node_that_cannot_compile_is_left_out(
    digits_spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = digits_spec.train.model_copy(update={"device": "cpu", "compile": True})
    spec = digits_spec.model_copy(update={"train": train})
    monkeypatch.setattr("lmoe_tune.training.trial.lacking_compiler", lambda device: "there is none")
    (said,) = handshake.device_faults(spec)
    assert said.startswith("train.compile is on, but there is none")
    assert said.endswith("set train.compile: false")


def test_every_run_leaves_a_sign_of_its_own_whole(tmp_path: Path) -> None:
    first = leave_sign(tmp_path, {"a": "1"})
    second = leave_sign(tmp_path, {"a": "1"})
    assert first != second
    found = json.loads((tmp_path / handshake.SIGN).read_text(encoding="utf-8"))
    assert found == {"nonce": second, "code": {"a": "1"}}
    assert os.listdir(tmp_path) == [handshake.SIGN]


def test_what_decides_on_numbers_is_there_and_in_the_hash(
    tmp_path: Path, digits_spec: Spec
) -> None:
    found = source_code.code_of(digits_spec, tmp_path)
    for name in (
        "lmoe_tune/weights.py",
        "lmoe_tune/methods/logit_mixoe.py",
        "lmoe_tune/data/batches.py",
        "lmoe_tune/readers/folder.py",
        "trainables/worker.py",
    ):
        assert name in found
    assert not any(name.startswith(("lmoe_tune/cli", "lmoe_tune/report")) for name in found)
