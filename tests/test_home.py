from __future__ import annotations

from pathlib import Path

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.home import resolve_home


@pytest.fixture(autouse=True)
def _plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LMOE_TUNE_HOME", raising=False)


def test_the_home_is_what_is_given_else_the_environments_else_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_home() == tmp_path / "lmoe_runs"

    monkeypatch.setenv("LMOE_TUNE_HOME", "elsewhere")
    assert resolve_home() == tmp_path / "elsewhere"
    assert resolve_home("given") == tmp_path / "given"


@pytest.mark.parametrize("empty", ["", "  "])
def test_a_variable_that_is_set_but_empty_is_as_good_as_not_set(
    empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMOE_TUNE_HOME", empty)

    assert resolve_home() == tmp_path / "lmoe_runs"


@pytest.mark.parametrize("given", ["s3://bucket/runs", "gs://bucket", Path("s3://bucket/runs")])
def test_an_object_store_is_refused_with_what_to_mount(given: str | Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--home is '(s3|gs):/") as caught:
        resolve_home(given, called="--home")
    assert "Mount storage that the driver and all workers share" in str(caught.value)
    assert resolve_home("a:b") == tmp_path / "a:b"


def test_what_cannot_be_a_home_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    for given, words in (
        ("", "--home is empty"),
        ("~nosuch/runs", "'~nosuch'"),
        ("file", "and that is a file"),
        ("file/below", f"{tmp_path / 'file'} is a file"),
        ("nul\0", "must be a folder"),
        ("$HOME/runs", "contains a variable that the shell did not replace"),
        ("/data/${USER}", "contains a variable"),
    ):
        with pytest.raises(UsageError, match="--home is") as caught:
            resolve_home(given, called="--home")
        assert words in str(caught.value)

    monkeypatch.setenv("LMOE_TUNE_HOME", "file")
    with pytest.raises(UsageError, match="LMOE_TUNE_HOME is 'file', but must be a folder"):
        resolve_home()
