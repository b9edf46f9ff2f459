from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lmoe_tune import weights as module
from lmoe_tune.errors import UsageError
from lmoe_tune.model import build_model
from lmoe_tune.weights import head_name, load_weights

Save = Callable[..., str]


def small(num_classes: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("small_cnn", num_classes, 3)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save(content: object, name: str = "weights.pt") -> str:
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return save


def load(model: nn.Module, weights: str, *, with_head: bool = False) -> None:
    load_weights(model, "small_cnn", weights, image_size=8, with_head=with_head)


def assert_same(model: nn.Module, other: nn.Module, *, but_head: bool = False) -> None:
    for name, value in model.state_dict().items():
        is_head = name.startswith(f"{head_name(model)}.")
        assert torch.equal(value, other.state_dict()[name]) != (but_head and is_head), name


def test_none_leaves_a_model_as_it_is() -> None:
    model = small()
    load(model, "none")
    assert_same(model, small())


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_weights_are_found_in_what_people_save(
    save: Save, wrapper: str | None, prefix: str
) -> None:
    state = {prefix + name: value for name, value in small(seed=1).state_dict().items()}
    model = small()
    load(model, save(state if wrapper is None else {"epoch": 3, wrapper: state}))
    assert_same(model, small(seed=1))


def test_a_head_for_other_classes_is_left_out(save: Save) -> None:
    model = small(num_classes=3)
    load(model, save(small(num_classes=5, seed=1).state_dict()))
    assert_same(model, small(num_classes=3, seed=1), but_head=True)
    headless = {
        name: value for name, value in small(seed=1).state_dict().items() if "head" not in name
    }
    model = small()
    load(model, save(headless))
    assert_same(model, small(seed=1), but_head=True)


def test_a_baseline_must_have_a_head_for_the_same_classes(save: Save) -> None:
    model = small(num_classes=3)
    load(model, save(small(num_classes=3, seed=1).state_dict()), with_head=True)
    assert_same(model, small(seed=1))
    with pytest.raises(UsageError, match="has 5 classes, but the search trains 3.*inspect"):
        load(model, save(small(num_classes=5).state_dict()), with_head=True)


def test_the_weights_of_another_network_are_refused_by_name(save: Save) -> None:
    state = small().state_dict()
    del state["features.0.weight"]
    state["layer1.0.weight"] = torch.zeros(1)
    state["features.3.weight"] = torch.zeros(2, 2)
    with pytest.raises(UsageError) as caught:
        load(small(), save(state))
    for part in (
        "does not fit small_cnn",
        "it lacks features.0.weight",
        "has besides layer1.0.weight",
        "has in other shapes features.3.weight",
    ):
        assert part in str(caught.value)


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not run",)


OTHER_VALUES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "integers": torch.Tensor.int,
    "complex": lambda value: value.to(torch.complex64),
    "sparse": lambda value: value.to_sparse() if value.ndim > 1 else value,
}


@pytest.mark.parametrize("kind", OTHER_VALUES)
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_values_that_a_copy_would_round_or_refuse_are_refused(kind: str, save: Save) -> None:
    state = {
        name: OTHER_VALUES[kind](value) if value.is_floating_point() else value
        for name, value in small().state_dict().items()
    }
    with pytest.raises(UsageError, match=r"no plain floating-point numbers in features\.0\.weight"):
        load(small(), save(state))


def test_half_precision_is_taken_and_what_is_not_finite_is_refused(save: Save) -> None:
    state = small().state_dict()
    load(small(), save({name: value.half() for name, value in state.items()}))
    state["head.bias"][0] = torch.nan
    with pytest.raises(UsageError, match=r"values that are not finite in head\.bias"):
        load(small(), save(state))


def test_files_that_hold_no_weights_are_refused_and_run_nothing(
    save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load(small(), str(tmp_path / "no.pt"))
    for text, why in (("not weights", "torch.save has not written it"), ("", "it is empty")):
        for start in ("", "h", "\x80"):  # as a pickle, each ends in another error
            if text or not start:
                (tmp_path / "text.pt").write_text(start + text, encoding="utf-8")
                with pytest.raises(UsageError, match=rf"cannot be read as weights \({why}"):
                    load(small(), str(tmp_path / "text.pt"))
    with pytest.raises(UsageError, match="it holds more than tensors: a whole model, perhaps"):
        load(small(), save({"model": Exploit()}))
    assert "must not run" not in capsys.readouterr().out
    with pytest.raises(UsageError, match="holds no weights by name"):
        load(small(), save([1, 2, 3]))


@pytest.mark.slow  # torchvision's import takes two seconds
class TestImagenet:
    @pytest.fixture
    def cached(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """torchvision's cache with a resnet18 of its 1000 classes, under a name with its checksum."""
        torch.manual_seed(1)
        torch.save(build_model("resnet18", 1000, 3).state_dict(), tmp_path / "made.pth")
        digest = hashlib.sha256((tmp_path / "made.pth").read_bytes()).hexdigest()[:8]
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        path = (tmp_path / "made.pth").rename(folder / f"resnet18-{digest}.pth")
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

        class Weights:
            url = f"http://127.0.0.1:9/models/resnet18-{digest}.pth"

        import torchvision

        monkeypatch.setattr(
            torchvision.models, "get_model_weights", lambda arch: {"IMAGENET1K_V1": Weights}
        )
        return path

    def test_they_come_from_torchvisions_cache(self, cached: Path) -> None:
        model = build_model("resnet18", 7, 3)
        load_weights(model, "resnet18", "imagenet", image_size=32, with_head=False)
        expected = torch.load(cached, weights_only=True)
        assert torch.equal(
            model.state_dict()["layer4.1.bn2.weight"], expected["layer4.1.bn2.weight"]
        )
        assert torch.equal(model.state_dict()["conv1.weight"], expected["conv1.weight"])
        assert model.state_dict()["fc.weight"].shape == (7, 512)

    def test_without_a_network_it_is_said_what_to_put_where(self, cached: Path) -> None:
        cached.unlink()
        with pytest.raises(UsageError) as caught:
            load_weights(
                build_model("resnet18", 7, 3),
                "resnet18",
                "imagenet",
                image_size=32,
                with_head=False,
            )
        assert str(cached) in str(caught.value)
        assert f"http://127.0.0.1:9/models/{cached.name}" in str(caught.value)
        assert "or set model.weights to where you put it" in str(caught.value)

    def test_a_damaged_file_is_refused(self, cached: Path) -> None:
        with cached.open("r+b") as file:
            file.seek(1000)
            file.write(b"damage")
        with pytest.raises(UsageError, match="damaged.*delete it"):
            module.imagenet_file("resnet18")

    def test_every_architecture_has_first_weights(self) -> None:
        import torchvision

        for arch in ("resnet18", "resnet34", "resnet50", "convnext_tiny", "vit_b_16"):
            assert torchvision.models.get_model_weights(arch)["IMAGENET1K_V1"].url.endswith(".pth")

    def test_position_embeddings_are_interpolated_to_the_crop(self, save: Save) -> None:
        source, model = build_model("vit_b_16", 3, 3, 64), build_model("vit_b_16", 3, 3, 96)
        positions = source.state_dict()["encoder.pos_embedding"]
        load_weights(model, "vit_b_16", save(source.state_dict()), image_size=96, with_head=True)
        found = model.state_dict()["encoder.pos_embedding"]
        assert (positions.shape[1], found.shape[1]) == (1 + 16, 1 + 36)
        assert torch.equal(found[:, 0], positions[:, 0])
        assert model.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 3)


def test_timm_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"timm is not installed: pip install 'lmoe-tune\[timm\]'"):
        build_model("timm/resnet18", 3, 3, 32)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["timm/resnet18", "timm/vit_tiny_patch16_224"])
def test_a_model_of_timm_ends_in_our_head(arch: str) -> None:
    pytest.importorskip("timm")
    model = build_model(arch, 3, 3, 64).eval()
    assert model.get_submodule(head_name(model)).out_features == 3
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.zeros(2, 3, 64, 64))
    assert (logits.shape, logits.dtype) == ((2, 3), torch.float32)
