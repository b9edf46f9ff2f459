"""A sweep that was copied within its home is refused; its original, and one renamed, are not."""

from __future__ import annotations

import shutil

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.sweep.copies import original_of, refuse_copy
from lmoe_tune.sweep.folder import SweepFolder
from lmoe_tune.sweep.ledger import Ledger
from lmoe_tune.sweep.rebuild import write_about
from lmoe_tune.sweep.view import read_sweep


def test_only_a_copy_beside_its_original_is_refused(swept: Ledger) -> None:
    write_about(swept)
    original = swept.folder
    copied = SweepFolder(original.home, "backup")
    shutil.copytree(original.path, copied.path)

    with pytest.raises(UsageError, match=r"a copy of 'small'.*warm_start=\[small\]"):
        refuse_copy(read_sweep(copied))
    assert original_of(read_sweep(original)) is None

    shutil.rmtree(original.path)
    assert original_of(read_sweep(copied)) is None, "as if it had been renamed"
