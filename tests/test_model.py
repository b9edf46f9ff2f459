from __future__ import annotations

import pytest
import torch
from torch import nn

from lmoe_tune.errors import UsageError
from lmoe_tune.model import ARCHITECTURES, Head, SmallCNN, build_model


@pytest.mark.parametrize("side", [2, 8, 9, 28])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_cnn_maps_images_of_any_size_to_logits(side: int, channels: int) -> None:
    model = build_model("small_cnn", num_classes=7, in_channels=channels)
    assert model(torch.zeros(4, channels, side, side)).shape == (4, 7)


def test_the_small_cnn_is_the_one_described() -> None:
    """3 x 3 convolutions of 32, 64 and 64 channels with BatchNorm, max-pool after the second, linear."""
    model = SmallCNN(num_classes=5, in_channels=1)
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [
        (1, 32, (3, 3)),
        (32, 64, (3, 3)),
        (64, 64, (3, 3)),
    ]
    kinds = [type(layer).__name__ for layer in model.features]
    block = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds == [*block, *block, "MaxPool2d", *block]
    weights = 9 * (32 + 32 * 64 + 64 * 64) + 2 * (32 + 64 + 64) + 64 * 5 + 5
    assert sum(parameter.numel() for parameter in model.parameters()) == weights


def test_the_global_generator_decides_the_weights() -> None:
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(build_model("small_cnn", 3, 1).state_dict()["features.0.weight"])
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_the_head_stays_in_fp32_under_autocast() -> None:
    model = SmallCNN(num_classes=5, in_channels=1).eval()
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    features = []
    model.features.register_forward_hook(lambda module, args, output: features.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert features[0].dtype == torch.bfloat16, "the point of the test"
    assert logits.dtype == torch.float32
    pooled = features[0].mean(dim=(2, 3)).float()
    torch.testing.assert_close(logits, pooled @ model.head.weight.T + model.head.bias)


def test_the_head_is_a_linear_layer_otherwise() -> None:
    head, features = Head(4, 3), torch.randn(2, 4)
    torch.testing.assert_close(head(features), features @ head.weight.T + head.bias)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(
        UsageError, match="model.arch is 'lenet', but must be one of small_cnn, resnet18"
    ):
        build_model("lenet", 5, 3)


@pytest.mark.slow  # torchvision's import takes two seconds
@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch != "small_cnn"])
def test_torchvisions_networks_end_in_a_head_of_as_many_classes(arch: str) -> None:
    with torch.device("meta"):  # shapes only
        model = build_model(arch, 7, 3)
    heads = [layer for layer in model.modules() if isinstance(layer, Head)]
    assert [head.out_features for head in heads] == [7]
    assert heads[0] is list(model.modules())[-1]


@pytest.mark.slow
def test_a_network_of_torchvisions_maps_images_to_logits() -> None:
    model = build_model("resnet18", 7, 3).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.slow
def test_a_vision_transformer_is_built_for_the_size_of_its_images() -> None:
    with torch.device("meta"):
        model = build_model("vit_b_16", 7, 3, 448)
        assert model.encoder.pos_embedding.shape == (1, 1 + 28**2, 768)
