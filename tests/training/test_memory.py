from __future__ import annotations

import pytest
import torch
from torch import nn

from lmoe_tune.errors import DeviceMemoryError, TrainingError
from lmoe_tune.model import build_model
from lmoe_tune.testing.methods import objective_of
from lmoe_tune.training.memory import (
    SET_FOR_A_TRIAL,
    explained,
    model_memory,
    rows_of_step,
)


def really_saved(rows: int) -> int:
    """The bytes that a real forward keeps, by the addresses of their storages."""
    model = build_model("small_cnn", 5, 1).train()
    found: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    held: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randn(rows, 1, 8, 8))
    return sum(found.values())


def test_what_a_row_keeps_is_what_a_real_forward_keeps() -> None:
    found = model_memory("small_cnn", 5, 1, 8, bf16=False)
    assert found.saved_per_row == (really_saved(6) - really_saved(2)) / 4
    state = build_model("small_cnn", 5, 1).state_dict()
    assert found.weights == sum(value.nbytes for value in state.values())


@pytest.mark.slow  # imports torchvision
def test_resnet_50_at_448_pixels_keeps_about_a_sixth_of_a_gigabyte_a_row() -> None:
    found = model_memory("resnet50", 100, 3, 448, bf16=True)
    assert found.saved_per_row == pytest.approx(0.175e9, rel=0.03)
    exact = model_memory("resnet50", 100, 3, 448, bf16=False)
    assert exact.saved_per_row > 1.8 * found.saved_per_row


@pytest.mark.parametrize(
    ("name", "params", "rows"),
    [
        ("baseline", {}, 32),
        ("outlier_exposure", {}, 64),
        ("mixoe", {}, 64),
        ("logit_mixoe", {}, 96),
        ("logit_mixoe", {"outlier_ratio": 2.0}, 160),
        ("logit_mixoe", {"outlier_ratio": 0.01}, 36),
        ("logit_mixoe", {"consistency_weight": 0.0}, 64),
        ("logit_mixoe", {"batch_norm": "separate"}, 96),
    ],
)
def test_the_rows_of_a_step_are_counted(name: str, params: dict[str, float], rows: int) -> None:
    assert rows_of_step(objective_of(name, **params), 32) == rows


def test_a_trainings_memory_grows_with_its_rows() -> None:
    model = model_memory("small_cnn", 5, 1, 8, bf16=False)
    assert model.of_training(160) - model.of_training(96) == 64 * model.saved_per_row
    assert model.of_training(0) == model.fixed == 3 * model.weights


def test_an_evaluation_holds_two_maps_at_a_time() -> None:
    model = model_memory("small_cnn", 5, 1, 8, bf16=False)
    assert model.evaluated_per_row == 2 * 32 * 8 * 8 * 4 * 2, "64 channels of 8 x 8, in fp32"
    assert model.of_evaluation(10) == model.fixed + 10 * model.evaluated_per_row


def test_running_out_of_memory_is_said_with_what_to_set() -> None:
    with (
        pytest.raises(DeviceMemoryError, match="the memory does not suffice; set a smaller"),
        explained(torch.device("cpu"), SET_FOR_A_TRIAL),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(ValueError, match="other"), explained(torch.device("cpu"), ""):
        raise ValueError("other errors stay what they are")


def test_counting_needs_no_model_in_memory_and_changes_no_generator() -> None:
    before = torch.get_rng_state()
    model_memory("small_cnn", 6, 1, 8, bf16=False)
    rows_of_step(objective_of("logit_mixoe"), 16)
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(build_model("small_cnn", 5, 1), nn.Module)


def test_a_compiler_that_fails_says_what_to_set() -> None:
    from torch._dynamo.exc import Unsupported

    with (
        pytest.raises(TrainingError, match="Unsupported: a loop; set train.compile: false"),
        explained(torch.device("cpu"), ""),
    ):
        raise Unsupported("a loop\nthat cannot be compiled")
