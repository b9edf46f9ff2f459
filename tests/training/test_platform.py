from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmoe_tune.spec import Resources, Spec
from lmoe_tune.training import platform
from lmoe_tune.training.platform import Gpu, resolve_platform, smallest_memory

MakeSpec = Callable[..., Spec]


@pytest.fixture
def undecided(make_spec: MakeSpec) -> Spec:
    """A spec that leaves everything to us."""
    spec = make_spec()
    auto = {
        "device": "auto",
        "precision": "auto",
        "compile": "auto",
        "threads": None,
        "seed": None,
    }
    return spec.model_copy(update={"train": spec.train.model_copy(update=auto)})


def with_resources(spec: Spec, **resources: float) -> Spec:
    return spec.model_copy(update={"resources": Resources(**resources)})


@pytest.mark.parametrize("has_bf16", [True, False])
def test_nothing_is_left_undecided(
    undecided: Spec, monkeypatch: pytest.MonkeyPatch, has_bf16: bool
) -> None:
    monkeypatch.setattr(platform, "_cpu_has_bf16", lambda: has_bf16)
    train = resolve_platform(undecided).train
    assert (train.device, train.threads, train.seed) == ("cpu", 1, 0)
    assert train.precision == ("bf16" if has_bf16 else "fp32")
    assert train.compile is False


def test_a_gpu_is_taken_where_the_trials_are_given_a_share_of_one(undecided: Spec) -> None:
    assert resolve_platform(with_resources(undecided, gpu=0.25)).train.device == "cuda"
    assert resolve_platform(with_resources(undecided, gpu=0.0)).train.device == "cpu"


@pytest.mark.parametrize("cuda", [True, False])
def test_whoever_knows_may_say_whether_there_is_a_gpu(undecided: Spec, cuda: bool) -> None:
    for gpu in (0.0, 1.0):
        found = resolve_platform(with_resources(undecided, gpu=gpu), cuda=cuda)
        assert found.train.device == ("cuda" if cuda else "cpu")


def test_a_gpu_computes_in_bf16(undecided: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "_cpu_has_bf16", lambda: False)
    assert resolve_platform(undecided, cuda=True).train.precision == "bf16"


@pytest.mark.parametrize(
    ("said", "precision"),
    [
        ("9.0\n", "bf16"),
        ("NVIDIA A100, 8.0, 81920\nNVIDIA A100, 8.0, 81920\n", "bf16"),
        ("Tesla T4, 7.5, 15360\n", "fp32"),
        ("NVIDIA A100, 8.0, 81920\nTesla V100, 7.0, 16384\n", "fp32"),
        ("NVIDIA GB10, 12.1, [N/A]\n", "bf16"),
        ("No devices were found\n", "bf16"),
        (None, "bf16"),
    ],
)
def test_gpus_without_bf16_compute_in_fp32(
    undecided: Spec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str | None,
    precision: str,
) -> None:
    """As nvidia-smi says it; where there is none, or it cannot say, bf16 is taken for granted."""
    if said is not None:
        (tmp_path / "said").write_text(said, encoding="utf-8")
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n/bin/cat {tmp_path}/said\n", encoding="utf-8")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resolve_platform(undecided, cuda=True).train.precision == precision


def test_the_smallest_gpu_decides_on_memory() -> None:
    gpus = [Gpu("A", 8.0, 80 * 2**30), Gpu("B", 8.0, 40 * 2**30), Gpu("C", 12.1, None)]
    assert smallest_memory(gpus) == 40 * 2**30
    assert smallest_memory(gpus[2:]) is None
    assert [str(gpu) for gpu in gpus[1:]] == ["B (42.9 GB)", "C"]


@pytest.mark.parametrize(("cpu", "threads"), [(0.5, 1), (1, 1), (2.9, 2), (8, 8)])
def test_a_trial_has_as_many_threads_as_whole_cpus(
    undecided: Spec, cpu: float, threads: int
) -> None:
    assert resolve_platform(with_resources(undecided, cpu=cpu)).train.threads == threads


def test_the_seed_of_the_search_is_that_of_the_training_unless_it_has_its_own(
    undecided: Spec,
) -> None:
    search = undecided.search.model_copy(update={"seed": 5})
    spec = undecided.model_copy(update={"search": search})
    assert resolve_platform(spec).train.seed == 5
    own = spec.model_copy(update={"train": spec.train.model_copy(update={"seed": 0})})
    assert resolve_platform(own).train.seed == 0


def test_what_the_spec_says_stays(make_spec: MakeSpec) -> None:
    settings = {"device": "cuda", "precision": "fp32", "threads": 3, "seed": 9}
    spec = make_spec(
        "resources.gpu=1", *(f"train.{name}={value}" for name, value in settings.items())
    )
    for cuda in (None, True, False):
        found = resolve_platform(with_resources(spec, gpu=0, cpu=16), cuda=cuda).train
        assert {name: getattr(found, name) for name in settings} == settings


def test_deciding_twice_changes_nothing(undecided: Spec) -> None:
    once = resolve_platform(undecided)
    assert resolve_platform(once, cuda=True) == once


def test_only_the_platform_is_touched(undecided: Spec) -> None:
    found = resolve_platform(undecided)
    assert found.model_copy(update={"train": undecided.train}) == undecided


def test_deciding_imports_no_torch() -> None:
    """The driver decides, and should start at once."""
    code = (
        "import sys, lmoe_tune.training.platform, lmoe_tune.training.baseline_record\n"
        "print(sorted({'torch', 'ray', 'optuna', 'mlflow'} & set(sys.modules)))"
    )
    root = Path(platform.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stdout.strip() == "[]"


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU and a C compiler."""
    monkeypatch.setattr(platform, "gpus_here", lambda: [Gpu("H100", 9.0, 80 * 2**30)])
    monkeypatch.setattr(platform, "lacking_compiler", lambda device: None)


def large(make_spec: MakeSpec, *overrides: str) -> Spec:
    spec = make_spec("resources.gpu=1", *overrides)
    model = spec.model.model_copy(update={"arch": "resnet50"})
    data = spec.data.model_copy(update={"crop": 448})
    train = spec.train.model_copy(update={"device": "auto", "compile": "auto"})
    return spec.model_copy(update={"data": data, "model": model, "train": train})


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("ratios", "compiled"),
    [
        ("{low: 0.25, high: 2}", False),
        ("{low: 0.5, high: 2, step: 0.5}", True),
        ("{low: 0.25, high: 2, step: 0.25}", False),
        ("{choices: [0.5, 1]}", True),
    ],
)
def test_what_wins_back_its_compiling_is_compiled(
    make_spec: MakeSpec, ratios: str, compiled: bool
) -> None:
    """Each number of rows takes its own minute."""
    spec = large(make_spec, f"space.outlier_ratio={ratios}", "train.batch_size=32")
    assert spec.data.image_crop == 448
    assert resolve_platform(spec).train.compile is compiled


@pytest.mark.usefixtures("a_gpu")
def test_small_images_are_not_compiled_nor_what_is_on_a_cpu(make_spec: MakeSpec) -> None:
    few = "space.outlier_ratio={choices: [0.5, 1]}"
    assert resolve_platform(large(make_spec, few)).train.compile is True
    assert resolve_platform(large(make_spec, few), cuda=False).train.compile is False
    small = large(make_spec, few)
    small = small.model_copy(update={"data": small.data.model_copy(update={"crop": 64})})
    assert resolve_platform(small).train.compile is False
    assert resolve_platform(make_spec("train.compile=true", few)).train.compile is True


@pytest.mark.parametrize("lacks", ["gpu", "compiler"])
def test_a_driver_that_cannot_know_leaves_it_out(
    make_spec: MakeSpec, a_gpu: None, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    if lacks == "gpu":
        monkeypatch.setattr(platform, "gpus_here", list)
    else:
        monkeypatch.setattr(platform, "lacking_compiler", lambda device: "there is none")
    few = "space.outlier_ratio={choices: [0.5, 1]}"
    assert resolve_platform(large(make_spec, few)).train.compile is False
