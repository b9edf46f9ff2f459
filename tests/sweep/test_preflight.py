from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmoe_tune.cli.doctor import examine_memory, examine_nodes
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.spec import LoadedSpec, Spec
from lmoe_tune.sweep import preflight
from lmoe_tune.sweep.ledger import system_ms
from lmoe_tune.sweep.nodes import Capacity
from lmoe_tune.sweep.preflight import Answer, NodeFinding, judged, look_at_nodes
from lmoe_tune.training import platform
from lmoe_tune.training.platform import Gpu, resolve_platform


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_node_that_sees_the_home_is_fit_and_nothing_is_left_in_it(
    spec: Callable[..., Spec], tmp_path: Path
) -> None:
    home = tmp_path / "home"

    (node,) = look_at_nodes(None, resolve_platform(spec()), home, tmp_path)

    assert node.faults == ()
    assert "CPUs" in node.has and "of memory" in node.has
    assert list(home.glob(".doctor-*")) == []


H100 = Gpu("NVIDIA H100", 9.0, 80 * 2**30)
T4 = Gpu("Tesla T4", 7.5, 16 * 2**30)


def judge(spec: Spec, *gpus: Gpu, needed: int | None = None, ahead_s: int = 0) -> NodeFinding:
    now = system_ms()
    reply = Answer((), 64 * 2**30, gpus, now + 1000 * ahead_s)
    return judged("one", Capacity(8.0, len(gpus)), reply, spec, needed, now)


def test_a_node_is_told_by_its_memory_gpus_and_clock(spec: Callable[..., Spec]) -> None:
    on_gpu = resolve_platform(spec("resources.gpu=1", "train.precision=bf16"))

    good = judge(on_gpu, H100, needed=70 * 2**30)
    assert good.faults == () and "NVIDIA H100 (" in good.has

    (said,) = judge(on_gpu, T4).faults
    assert "its Tesla T4 has no bf16" in said
    (said,) = judge(on_gpu, H100, needed=90 * 2**30).faults
    assert said.startswith("a trial needs ") and "its share there is" in said
    assert judge(resolve_platform(spec()), ahead_s=300).faults == ("its clock is 5m 00s ahead",)


def test_a_node_that_is_too_small_is_no_fault_and_one_that_does_not_answer_is(
    spec: Callable[..., Spec],
) -> None:
    on_gpu = resolve_platform(spec("resources.gpu=1"))
    head = judge(on_gpu)
    assert (head.faults, head.is_large) == ((), False)
    assert "too small for a trial" in head.has

    silent = judged("one", Capacity(8.0, 1.0), "it does not answer", on_gpu, None, 0)
    assert silent.faults == ("it does not answer",)


def test_where_no_node_is_large_enough_doctor_says_what_a_trial_asks_for(
    spec: Callable[..., Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = NodeFinding("head", "0 CPUs, 0 GPUs; too small for a trial", (), is_large=False)
    monkeypatch.setattr(preflight, "look_at_nodes", lambda *arguments: [head])

    found = examine_nodes("auto", LoadedSpec(spec(), tmp_path / "x.yaml"), tmp_path)

    assert [row["state"] for row in found] == ["ok", "warn"]
    assert "no node has cpu 1 and gpu 0" in found[-1]["found"]


def test_what_doctor_says_of_the_nodes(
    spec: Callable[..., Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [
        NodeFinding("one", "8 CPUs, 1 GPUs", ()),
        NodeFinding("two", "8 CPUs, 1 GPUs", ("it does not see the home /runs",)),
    ]
    monkeypatch.setattr(preflight, "look_at_nodes", lambda *arguments: nodes)
    loaded = LoadedSpec(spec(), tmp_path / "small.yaml")

    good, bad = examine_nodes("auto", loaded, tmp_path)

    assert (good["state"], good["what"], good["found"]) == ("ok", "node one", "8 CPUs, 1 GPUs")
    assert (bad["state"], bad["found"]) == ("fail", "it does not see the home /runs")


@pytest.mark.parametrize(("memory", "state"), [(80 * 10**9, "ok"), (10**7, "warn"), (None, "warn")])
def test_doctor_of_a_spec_compares_a_trial_with_this_machine(
    spec: Callable[..., Spec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    memory: int | None,
    state: str,
) -> None:
    monkeypatch.setattr(platform, "gpu_bytes", lambda: memory)
    loaded = LoadedSpec(spec("resources.gpu=0.5", "train.precision=fp32"), tmp_path / "small.yaml")
    (found,) = examine_memory(loaded)
    assert (found["what"], found["state"]) == ("GPU memory for small", state)
    assert "a trial needs at least" in found["found"]
    assert ("too little; set train.batch_size: " in found["found"]) == (memory == 10**7)
    assert examine_memory(LoadedSpec(spec(), tmp_path / "small.yaml")) == []


def test_a_cluster_that_cannot_be_joined_is_a_finding(
    spec: Callable[..., Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise LmoeTuneError("nobody answers at head:6379")

    monkeypatch.setattr(preflight, "look_at_nodes", refuse)

    (found,) = examine_nodes("head:6379", LoadedSpec(spec(), tmp_path / "x.yaml"), tmp_path)

    assert (found["state"], "nobody answers" in found["found"]) == ("fail", True)
