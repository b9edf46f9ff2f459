from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lmoe_tune.durable import cannot_write, write_durably
from lmoe_tune.errors import StorageError


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second, longer", b""):
        write_durably(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


def test_a_memoryview_will_do(tmp_path: Path) -> None:
    write_durably(tmp_path / "file", memoryview(bytearray(b"content")))
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def fail(*args: object) -> None:
        raise error

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError if isinstance(error, OSError) else type(error)):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (events.append("sync"), fsync(descriptor))[1]
    )
    monkeypatch.setattr(
        os, "replace", lambda path, to: (events.append("rename"), replace(path, to))[1]
    )
    write_durably(tmp_path / "file", b"content")
    assert events == ["sync", "rename", "sync"]


def test_what_is_to_be_made_writable_is_there(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "Permission denied")
    said = str(cannot_write(tmp_path / "no" / "such" / "file", error))
    assert said.endswith(f"cannot be written (Permission denied); make {tmp_path} writable")
    assert str(cannot_write(tmp_path, error)).endswith("make it writable")
    assert cannot_write(tmp_path, error).exit_code == 2, "the user chose that place"
    found = cannot_write(tmp_path / "file" / "report", NotADirectoryError(errno.ENOTDIR, "Not a"))
    assert str(found).endswith("something else has that name: move it, or choose another place")
    assert found.exit_code == 2
    assert cannot_write(tmp_path, OSError(errno.ENOSPC, "No space left on device")).exit_code == 1
