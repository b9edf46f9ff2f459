"""Whole trials on a pretended GPU: the CPU's numbers, no race, no pageable copy, and no wait of the host in a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Alone = Callable[..., Any]
WAITS_PER_EPOCH = 6
"""However many steps it has: for the loss terms, whether the validation is finite, its metrics; for the
weights in the checkpoint (fp32 and int64), and for the momentum or, in the last epoch, the placements."""
RUN = "from tests.gpu.trials import compared\nfound = compared(source, method, params, arch, overrides)"
WITHOUT_BATCH_NORM = ("convnext_tiny", "vit_b_16")
SHORT = [
    ("embedded", "logit_mixoe", {}, "small_cnn", ()),
    (
        "files",
        "logit_mixoe",
        {"per": "sample", "outlier_weight": 0.5},
        "resnet18",
        ("data.cache=disk",),
    ),
]
LONG = [
    ("embedded", "logit_mixoe", {"batch_norm": "separate"}, "small_cnn", ()),
    ("embedded", "logit_mixoe", {"batch_norm": "frozen", "consistency": "kl"}, "small_cnn", ()),
    ("embedded", "logit_mixoe", {"consistency": "js", "center_logits": True}, "small_cnn", ()),
    ("embedded", "logit_mixoe", {"consistency": "mse_log_softmax"}, "small_cnn", ()),
    ("embedded", "logit_mixoe", {"stop_gradient": "mixed_input"}, "small_cnn", ()),
    ("embedded", "mixoe", {"mixing": "mixup"}, "small_cnn", ()),
    ("embedded", "mixoe", {"mixing": "cutmix", "per": "sample"}, "small_cnn", ()),
    ("embedded", "outlier_exposure", {}, "small_cnn", ()),
    ("embedded", "energy_oe", {}, "small_cnn", ()),
    ("embedded", "baseline", {}, "small_cnn", ()),
    ("files", "logit_mixoe", {}, "resnet18", ("data.cache=device",)),
    ("files", "mixoe", {"mixing": "cutmix"}, "resnet18", ("data.cache=off",)),
    ("files", "logit_mixoe", {}, "convnext_tiny", ("data.cache=disk",)),
    ("files", "logit_mixoe", {}, "vit_b_16", ("data.cache=disk",)),
]


def check(alone: Alone, case: tuple[Any, ...]) -> None:
    source, method, params, arch, overrides = case
    found = alone(
        RUN, source=source, method=method, params=params, arch=arch, overrides=list(overrides)
    )
    assert found["same"], (found["on_cpu"], found["there"])
    assert found["faults"] == []
    assert found["pageable"] == []
    per_epoch = sum(found["waits"].values())
    expected = WAITS_PER_EPOCH
    if arch in WITHOUT_BATCH_NORM:
        expected -= 1  # no whole numbers in the checkpoint
    assert per_epoch == expected, found["waits"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", SHORT, ids=lambda case: "-".join(case[:2]))
def test_a_trial_gives_the_cpus_numbers_and_never_waits_in_a_step(
    alone: Alone, case: tuple[Any, ...]
) -> None:
    check(alone, case)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", LONG, ids=str)
def test_every_method_option_cache_and_architecture_does(
    alone: Alone, case: tuple[Any, ...]
) -> None:
    check(alone, case)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_that_is_killed_continues_on_the_gpu_with_the_same_bits(alone: Alone) -> None:
    found = alone(
        """
        from tests.gpu.trials import trials
        with trials("embedded", "logit_mixoe", "small_cnn", []) as both, PretendedGpu():
            whole = list(both.epochs("cuda", {}))
            first = next(both.epochs("cuda", {}, folder="killed"))
            again = list(both.epochs("cuda", {}, folder="killed"))
        found = {"whole": whole, "continued": [first, *again[1:]], "repeated": again[0] == first}
        """
    )
    assert found["repeated"]
    assert found["continued"] == found["whole"]


@pytest.mark.slow
def test_each_epoch_on_a_gpu_says_how_much_memory_it_took(alone: Alone) -> None:
    found = alone(
        """
        from tests.gpu.trials import trials
        with trials("embedded", "baseline", "small_cnn", []) as both:
            here = list(both.epochs("cpu", {}, left_out=()))
            with PretendedGpu(peak_bytes=3 * 10**9) as gpu:
                there = list(both.epochs("cuda", {}, left_out=()))
        name = "gpu_mem_peak_mb"
        found = [[name in epoch for epoch in here], [epoch[name] for epoch in there], gpu.num_peaks]
        """
    )
    epochs_with_those_of_the_baseline = 3
    assert found == [[False, False], [3000.0, 3000.0], epochs_with_those_of_the_baseline]
