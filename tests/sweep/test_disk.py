from __future__ import annotations

from typing import Any

import pytest

from lmoe_tune.sweep.disk import prune_checkpoints
from lmoe_tune.sweep.ledger import Ledger


@pytest.fixture
def with_checkpoints(swept: Ledger) -> Ledger:
    """Every trial with the checkpoints of two epochs, and what an upload left behind."""
    for number in range(5):
        folder = swept.folder.checkpoints(number)
        folder.mkdir(parents=True, exist_ok=True)
        for epoch in (1, 2):
            (folder / f"epoch-{epoch:06d}.pt").write_bytes(b"x" * 1000)
    (swept.folder.checkpoints(1) / "upload").mkdir()
    (swept.folder.checkpoints(1) / "upload" / "part").write_bytes(b"x" * 500)
    return swept


def left(ledger: Ledger) -> dict[int, int]:
    """How many files each trial has."""
    found = {}
    for number in range(5):
        files = list(ledger.folder.checkpoints(number).rglob("*"))
        if files:
            found[number] = len(files)
    return found


def test_the_best_keep_their_last_checkpoint_and_the_unfinished_all(
    with_checkpoints: Ledger,
) -> None:
    freed = prune_checkpoints(with_checkpoints, 1)

    assert (freed.best, freed.unfinished, freed.removed) == ((1,), (4,), (0, 2, 3))
    assert freed.num_bytes == 3 * 2000 + 1000 + 500
    assert left(with_checkpoints) == {1: 1, 4: 2}
    assert (with_checkpoints.folder.checkpoints(1) / "epoch-000002.pt").exists()


def test_by_default_the_spec_says_how_many_and_a_second_time_nothing_is_left_to_free(
    with_checkpoints: Ledger,
) -> None:
    freed = prune_checkpoints(with_checkpoints)

    assert freed.best == (1, 0)
    again = prune_checkpoints(with_checkpoints)
    assert (again.removed, again.num_bytes, again.best) == ((), 0, (1, 0))


def test_none_at_all_may_be_kept(with_checkpoints: Ledger) -> None:
    assert prune_checkpoints(with_checkpoints, 0).removed == (0, 1, 2, 3)
    assert left(with_checkpoints) == {4: 2}


def test_what_the_command_says(
    with_checkpoints: Ledger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lmoe_tune.cli.search import prune_checkpoints as command

    held: list[Any] = []
    monkeypatch.setattr(Ledger, "writing", lambda *args: held.append(args) or with_checkpoints)
    command("small", keep=1, home=str(with_checkpoints.folder.home))

    printed = capsys.readouterr().out
    assert "freed 7.5 kB: the checkpoints of 3 trials" in printed
    assert "kept of the best trials: trial 1" in printed
    assert "kept to continue from: trial 4" in printed
    assert held, "under the sweep's lock"
