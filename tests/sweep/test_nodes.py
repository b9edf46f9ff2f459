from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from lmoe_tune.errors import LmoeTuneError, UsageError
from lmoe_tune.spec import Resources
from lmoe_tune.sweep import cluster
from lmoe_tune.sweep.nodes import Capacity, Nodes, refuse_too_large, slots_of


@pytest.mark.parametrize(
    ("cpus", "gpus", "cpu", "gpu", "slots"),
    [
        (2, 0, 1, 0, 2),
        (7, 0, 2, 0, 3),
        (1, 0, 0.5, 0, 2),
        (1, 0, 0.1, 0, 10),
        (0.3, 0, 0.1, 0, 3),  # 0.3 / 0.1 is 2.9999999999999996
        (16, 1, 4, 0.5, 2),
        (16, 1, 4, 1, 1),
        (64, 8, 4, 2, 4),
        (64, 1, 1, 0.1, 10),
        (64, 2, 1, 0.3, 6),  # three fit on one GPU; what is left of each cannot be joined
        (64, 3, 1, 0.6, 3),
        (3, 8, 1, 1, 3),
    ],
)
def test_as_many_trials_run_at_a_time_as_fit(
    cpus: float, gpus: float, cpu: float, gpu: float, slots: int
) -> None:
    asked = Resources(cpu=float(cpu), gpu=float(gpu))
    assert Capacity(cpus, gpus).slots(asked) == slots
    assert slots_of([Capacity(cpus, gpus)] * 2, asked, None) == 2 * slots


@pytest.mark.parametrize(("max_concurrent", "slots"), [(1, 1), (3, 3), (100, 8)])
def test_a_bound_on_the_slots_only_lowers_them(max_concurrent: int, slots: int) -> None:
    assert slots_of([Capacity(8, 0)], Resources(), max_concurrent) == slots


@pytest.mark.parametrize(
    ("cpu", "gpu", "said"),
    [
        (4.0, 0.0, "cpu 4 and gpu 0, but there are 2 CPUs and 1 GPUs"),
        (1.0, 2.0, "cpu 1 and gpu 2, but there are 2 CPUs and 1 GPUs"),
    ],
)
def test_where_not_even_one_fits_it_says_what_is_asked_for_and_what_there_is(
    cpu: float, gpu: float, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        refuse_too_large([Capacity(2, 1)], Resources(cpu=cpu, gpu=gpu))
    assert "--set resources.cpu" in str(raised.value)


def test_a_share_of_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="0 GPUs"):
        refuse_too_large([Capacity(2, 0)], Resources(gpu=0.5))


def test_halves_of_what_a_trial_needs_on_two_nodes_are_no_slot() -> None:
    assert slots_of([Capacity(1, 0), Capacity(1, 0)], Resources(cpu=2), None) == 0


def test_a_node_is_named_once_for_each_reason_and_all_of_them_when_none_is_left() -> None:
    nodes = Nodes()
    assert nodes.leave_out("a1", "gpu1", ["it runs other code"])
    assert not nodes.leave_out("a1", "gpu1", ["it runs other code"]), "another trial of the node"
    assert not nodes.leave_out("a2", "gpu1", ["it runs other code"]), "started again, as it was"
    assert nodes.leave_out("b1", "gpu2", ["it does not see the home /h"])
    nodes.refuse_none_left({"a2", "b1", "c1"}, "resume it")
    nodes.refuse_none_left(set(), "resume it")  # an empty cluster may grow
    with pytest.raises(LmoeTuneError, match="no node is fit") as caught:
        nodes.refuse_none_left({"a2", "b1"}, "resume it")
    assert "node gpu1: it runs other code" in str(caught.value)
    assert "node gpu2: it does not see the home /h" in str(caught.value)
    assert str(caught.value).endswith("resume it")


def test_gpus_of_several_kinds_are_noticed_once_each() -> None:
    nodes = Nodes()
    named = ["A100", "A100", "H100", "H100", "A100", "L4"]
    assert [nodes.is_another_gpu(name) for name in named] == [
        False, False, True, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(("length", "short"), [(3, True), (60, False)])
def test_ray_s_folder_is_ours_alone_short_and_gone_if_it_had_to_be_elsewhere(
    monkeypatch: pytest.MonkeyPatch, length: int, short: bool
) -> None:
    base = Path(tempfile.mkdtemp(prefix="b", suffix="x" * length, dir="/tmp"))
    try:
        monkeypatch.setattr(cluster.tempfile, "gettempdir", lambda: str(base))
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        with cluster._private_folder() as folder:
            assert (folder.parent == base) is short
            assert folder.stat().st_mode & 0o777 == 0o700
            path = folder / "ray/session_2099-01-01_00-00-00_000000_1234567/sockets/plasma_store.1"
            path.parent.mkdir(parents=True)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        assert folder.exists() is short
    finally:
        shutil.rmtree(base)
