from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmoe_tune.cli.health import examine_nodes
from lmoe_tune.errors import LmoeTuneError
from lmoe_tune.spec import LoadedSpec, Spec
from lmoe_tune.sweep import preflight
from lmoe_tune.sweep.preflight import NodeFinding, look_at_nodes
from lmoe_tune.training.platform import resolve_platform


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_node_that_sees_the_home_is_fit_and_nothing_is_left_in_it(
    spec: Callable[..., Spec], tmp_path: Path
) -> None:
    home = tmp_path / "home"

    (node,) = look_at_nodes(None, resolve_platform(spec()), home, tmp_path)

    assert node.faults == ()
    assert "CPUs" in node.has
    assert list(home.glob(".doctor-*")) == []


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


def test_a_cluster_that_cannot_be_joined_is_a_finding(
    spec: Callable[..., Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise LmoeTuneError("nobody answers at head:6379")

    monkeypatch.setattr(preflight, "look_at_nodes", refuse)

    (found,) = examine_nodes("head:6379", LoadedSpec(spec(), tmp_path / "x.yaml"), tmp_path)

    assert (found["state"], "nobody answers" in found["found"]) == ("fail", True)
