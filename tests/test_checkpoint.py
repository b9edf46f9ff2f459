from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lmoe_tune import checkpoint
from lmoe_tune.errors import StorageError


def state(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "model": {"weight": torch.full((50,), float(epoch))},
        "nested": [{"a": 1.5, "b": None}],
    }


def save(folder: Path, *epochs: int) -> list[Path]:
    return [checkpoint.save(folder, epoch, state(epoch)) for epoch in epochs]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = (truncate, flip_a_bit, empty)


def newest_epoch(folder: Path) -> int | None:
    found = checkpoint.load_newest(folder)
    return None if found is None else found["epoch"]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    (path,) = save(tmp_path / "new" / "folder", 3)
    found = checkpoint.load(path)
    assert torch.equal(found.pop("model")["weight"], torch.full((50,), 3.0))
    assert found == {"epoch": 3, "nested": [{"a": 1.5, "b": None}]}
    assert checkpoint.epoch_of(path) == 3


def test_the_newest_is_found(tmp_path: Path) -> None:
    assert newest_epoch(tmp_path / "absent") is None
    assert newest_epoch(tmp_path) is None
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
        assert newest_epoch(tmp_path) == epoch


def test_only_two_are_kept(tmp_path: Path) -> None:
    paths = save(tmp_path, *range(1, 12))
    assert sorted(tmp_path.iterdir()) == sorted(paths[-2:])


@pytest.mark.parametrize("epoch", [9, 99, 9_999, 99_999])
def test_the_newest_is_the_one_of_the_latest_epoch_however_many_digits_it_has(
    tmp_path: Path, epoch: int
) -> None:
    save(tmp_path, epoch, epoch + 1)
    assert newest_epoch(tmp_path) == epoch + 1
    paths = save(tmp_path, epoch + 2)
    assert paths[0].exists()
    assert newest_epoch(tmp_path) == epoch + 2


def test_a_name_tells_epoch_and_checksum(tmp_path: Path) -> None:
    (path,) = save(tmp_path, 7)
    assert path.name == f"epoch-0007-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.pt"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_said_and_the_one_before_it_used(
    tmp_path: Path, damage, caplog: pytest.LogCaptureFixture
) -> None:
    before, newest = save(tmp_path, 1, 2)
    damage(newest)
    with caplog.at_level(logging.WARNING):
        assert newest_epoch(tmp_path) == 1
    assert str(newest) in caplog.text
    assert "damaged" in caplog.text
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load(newest)
    assert before.exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_all_are_damaged_there_is_none_and_it_is_said(
    tmp_path: Path, damage, caplog: pytest.LogCaptureFixture
) -> None:
    for path in save(tmp_path, 1, 2):
        damage(path)
    with caplog.at_level(logging.WARNING):
        assert newest_epoch(tmp_path) is None
    assert "training starts again with the first epoch" in caplog.text


def test_one_that_was_renamed_to_another_epoch_is_damaged(tmp_path: Path) -> None:
    before, newest = save(tmp_path, 1, 2)
    renamed = newest.rename(tmp_path / newest.name.replace("0002", "0009"))
    with pytest.raises(ValueError, match="its content is of epoch 2"):
        checkpoint.load(renamed)
    assert newest_epoch(tmp_path) == 1
    assert before.exists()


def test_one_that_cannot_be_read_is_damaged(tmp_path: Path) -> None:
    _, newest = save(tmp_path, 1, 2)
    newest.unlink()
    newest.mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoint.load(newest)
    assert newest_epoch(tmp_path) == 1


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "make room"), (errno.EROFS, "make .* writable")]
)
def test_a_disk_that_takes_nothing_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    save(tmp_path, 1)

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match=rf"epoch-0002-.*{os.strerror(number)}.*{said}"):
            save(tmp_path, 2)
    assert newest_epoch(tmp_path) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_training_goes_on_over_damaged_ones(tmp_path: Path, damage) -> None:
    """The newest was damaged, and its epoch trained again with other timings: the new file is used."""
    damage(save(tmp_path, 4, 5)[1])
    for epoch in (5, 6, 7):
        again = {**state(epoch), "epoch_s": 0.1}
        path = checkpoint.save(tmp_path, epoch, again)
        assert path.exists()
        assert newest_epoch(tmp_path) == epoch
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_just_written_is_never_the_one_dropped(tmp_path: Path, damage) -> None:
    """All were damaged, so training begins anew, at epochs before theirs."""
    for path in save(tmp_path, 4, 5):
        damage(path)
    for epoch in (1, 2, 3):
        (path,) = save(tmp_path, epoch)
        assert path.exists()
        assert newest_epoch(tmp_path) == epoch


def test_what_a_killed_writer_left_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / ".epoch-0002-0123456789abcdef.pt.99.tmp").write_bytes(b"half")
    assert newest_epoch(tmp_path) == 1


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("record.json", "lock", "epoch-0001.pt"):
        (tmp_path / name).write_text("", encoding="utf-8")
    save(tmp_path, 1, 2, 3)
    assert {"record.json", "lock", "epoch-0001.pt"} < set(os.listdir(tmp_path))
    assert newest_epoch(tmp_path) == 3


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    paths = save(tmp_path, 1, 2)

    def fail(descriptor: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError if isinstance(error, OSError) else type(error)):
            save(tmp_path, 3)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert newest_epoch(tmp_path) == 2


def test_what_is_known_late_joins_the_weights_in_one_file(tmp_path: Path) -> None:
    late = {"metrics": {"val_auroc": 0.1 + 0.2, "lr": 1e-300}, "describes": {"classes": ["ä", "b"]}}
    with checkpoint.Writer(tmp_path) as writer:
        for epoch in (1, 2):
            writer.begin(epoch, state(epoch))
            path = writer.finish(late)
            assert path.name.endswith(f"-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.pt")
    found = checkpoint.load(path)
    assert torch.equal(found.pop("model")["weight"], torch.full((50,), 2.0))
    assert found == {"epoch": 2, "nested": [{"a": 1.5, "b": None}], **late}
    assert torch.load(path, weights_only=True)["epoch"] == 2, "torch alone reads the weights"


def test_an_epoch_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="diverged"), checkpoint.Writer(tmp_path) as writer:
        writer.begin(1, state(1))
        writer.finish({"metrics": {}})
        writer.begin(2, state(2))
        raise RuntimeError("the evaluation diverged")
    assert [checkpoint.epoch_of(path) for path in tmp_path.iterdir()] == [1]


@pytest.mark.parametrize("large", [False, True])
def test_weights_are_written_before_the_evaluation_has_ended_and_not_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """As many as are worth a wait of their own for the disk are on it, too."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    weights = torch.zeros(3_000_000 if large else 50)
    with checkpoint.Writer(tmp_path) as writer:
        writer.begin(1, {"epoch": 1, "model": {"weight": weights}})
        give_up = time.monotonic() + 30
        while not (
            (aside := list(tmp_path.glob(".epoch-0001*.tmp"))) and len(synced) == int(large)
        ):
            assert time.monotonic() < give_up
            time.sleep(0.001)
        assert checkpoint.list_newest_first(tmp_path) == []
        path = writer.finish({"metrics": {"val_auroc": 0.5}})
        assert not aside[0].exists()
    assert checkpoint.load(path)["metrics"] == {"val_auroc": 0.5}


def test_a_disk_that_is_full_while_an_epoch_is_evaluated_is_said_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(tmp_path, 1)
    with checkpoint.Writer(tmp_path) as writer, monkeypatch.context() as patch:
        patch.setattr(checkpoint.Aside, "write", fail)
        writer.begin(2, state(2))
        with pytest.raises(StorageError, match=r"epoch-0002.*make room"):
            writer.finish({})
    assert newest_epoch(tmp_path) == 1
    assert len(list(tmp_path.iterdir())) == 1


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_loading_unpickles_no_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even from a file whose checksum is right."""
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"epoch": 1, "model": Malicious()}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    path = tmp_path / f"epoch-0001-{digest}.pt"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(pickle.UnpicklingError, match="[Ww]eights"):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_that_another_process_drops_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a baseline looks for its checkpoints while another process writes and drops them."""
    first, second = save(tmp_path, 1, 2)
    flip_a_bit(second)
    listed = checkpoint.list_newest_first(tmp_path)
    first.unlink()
    monkeypatch.setattr(checkpoint, "list_newest_first", lambda folder: listed)
    assert newest_epoch(tmp_path) is None
