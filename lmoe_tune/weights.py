"""Weights for a model to start from: ImageNet's, or a file that the user gives."""

from __future__ import annotations

import hashlib
import pickle
import socket
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmoe_tune import advice
from lmoe_tune.errors import UsageError
from lmoe_tune.model import Head, create_timm
from lmoe_tune.spec.architectures import TIMM
from lmoe_tune.wording import first_few, shortened

WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "weights")
"""The names under which files keep weights beside other things."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers of a model put before the names of its weights."""

NETWORK_TIMEOUT_S = 30.0
NUM_SHOWN = 4  # names in a message

State = dict[str, Tensor]


def load_weights(
    model: nn.Module, arch: str, weights: str, *, image_size: int, with_head: bool
) -> None:
    """Put weights into a model that `build_model` made.

    Args:
        weights: `none` (nothing is done), `imagenet`, or the path of a file that torch.save wrote:
            the weights by name, or a checkpoint that holds them.
        image_size: H = W that the model was built for; position embeddings of another size are
            interpolated.
        with_head: the file's head must have as many classes as the model's. Otherwise it is used if
            it has, and left out if not.

    Raises:
        UsageError: there is no such file, it cannot be read, or its weights are for another
            network.
    """
    if weights == "none":
        return
    if weights != "imagenet":
        state, source = _read(Path(weights)), weights
    elif arch.startswith(TIMM):
        state, source = _timm_imagenet(arch, image_size), f"timm's weights of {arch}"
    else:
        path = imagenet_file(arch)
        state, source = _read(path), str(path)
    state = _fitted_positions(arch, state, model, image_size)
    head = head_name(model)
    own = model.state_dict()
    head_keys = [name for name in own if name.startswith(f"{head}.")]
    if not all(name in state and state[name].shape == own[name].shape for name in head_keys):
        if with_head:
            raise UsageError(_wrong_head(source, state, own, head))
        state = {name: value for name, value in state.items() if name not in head_keys}
        state |= {name: own[name] for name in head_keys}
    _refuse_other_network(source, arch, state, own)
    _refuse_other_values(source, state, own)
    model.load_state_dict(state)


def head_name(model: nn.Module) -> str:
    """The name of the module that is the model's head."""
    name: str = next(name for name, module in model.named_modules() if isinstance(module, Head))
    return name


def imagenet_file(arch: str) -> Path:
    """torchvision's file of ImageNet weights in its cache, downloaded first if it is not there.

    Raises:
        UsageError: it is not there and cannot be downloaded, or it is damaged.
    """
    import torchvision

    # The first published weights: the ones that the published protocol starts from.
    url: str = torchvision.models.get_model_weights(arch)["IMAGENET1K_V1"].url
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rpartition("/")[2]
    if not path.is_file():
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(NETWORK_TIMEOUT_S)  # torch.hub waits forever
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                url, str(path), hash_prefix=_hash_prefix(path), progress=False
            )
        except (OSError, RuntimeError) as error:
            raise UsageError(
                f"model.weights is 'imagenet', but {path} is not there and cannot be downloaded ({error}). Fetch\n"
                f"  {url}\non a machine with a network and put it there, or set model.weights to where you put it"
            ) from error
        finally:
            socket.setdefaulttimeout(before)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(_hash_prefix(path)):
        raise UsageError(
            f"{path}: damaged (its content does not match the checksum in its name); delete it"
        )
    return path


def _hash_prefix(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def _read(path: Path) -> State:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"model.weights: there is no file {path}") from None
    except Exception as error:  # of a file that torch.save has not written, torch raises anything
        why = _why_unreadable(path, error)
        raise UsageError(
            f"model.weights: {path} cannot be read as weights ({why}); save them with "
            "torch.save(model.state_dict(), path)"
        ) from error
    state = _state_in(content)
    if state is None:
        raise UsageError(
            f"model.weights: {path} holds no weights by name; save them with torch.save(model.state_dict())"
        )
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _why_unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if not path.stat().st_size:
        return "it is empty"
    if not zipfile.is_zipfile(path):
        return "torch.save has not written it"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors: a whole model, perhaps"
    if "TorchScript" in str(error):
        return "it is a TorchScript archive"
    lines = str(error).splitlines() or [type(error).__name__]
    return shortened(lines[0].partition(". ")[0], 120)


def _state_in(content: Any) -> State | None:
    if not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(value, Tensor) for value in content.values()):
        return {str(name): value for name, value in content.items()}
    return next(
        (found for name in WRAPPERS if (found := _state_in(content.get(name))) is not None), None
    )


def _timm_imagenet(arch: str, image_size: int) -> State:
    try:
        return create_timm(arch, 0, image_size, pretrained=True).state_dict()
    except UsageError:
        raise
    except Exception as error:  # any error of the hub's client: no network, or no weights
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"model.weights is 'imagenet', but timm's weights of {arch} are not in its cache and cannot be downloaded "
            f"({reason}); run it once on a machine with a network and copy the cache, or set model.weights to a file"
        ) from error


def _fitted_positions(arch: str, state: State, model: nn.Module, image_size: int) -> State:
    """The weights with a vision transformer's position embeddings for this size of images."""
    name = "encoder.pos_embedding"
    if (
        arch != "vit_b_16"
        or name not in state
        or state[name].shape == model.state_dict()[name].shape
    ):
        return state
    from torchvision.models.vision_transformer import interpolate_embeddings

    try:
        return dict(interpolate_embeddings(image_size, 16, state))
    except ValueError as error:
        raise UsageError(
            f"model.weights: the position embeddings cannot be interpolated ({error})"
        ) from error


def _wrong_head(source: str, state: State, own: State, head: str) -> str:
    key = f"{head}.weight"
    if key in state and state[key].ndim:
        has = f"{len(state[key])} classes"
    else:
        has = f"no head named {head}"
    return (
        f"model.weights: {source} has {has}, but the search trains {len(own[key])}: with model.baseline.epochs: 0 it "
        "is the baseline itself, so it must have been trained on exactly the classes that the search trains on "
        f"({advice.inspect()} names them). Give it epochs to train a new head"
    )


def _refuse_other_network(source: str, arch: str, state: State, own: State) -> None:
    faults = {
        "lacks": sorted(own.keys() - state.keys()),
        "has besides": sorted(state.keys() - own.keys()),
        "has in other shapes": sorted(
            name for name in own.keys() & state.keys() if own[name].shape != state[name].shape
        ),
    }
    if any(faults.values()):
        told = "; ".join(
            f"it {what} {first_few(names, NUM_SHOWN)}" for what, names in faults.items() if names
        )
        raise UsageError(
            f"model.weights: {source} does not fit {arch}: {told}. Is it for another network?"
        )


def _refuse_other_values(source: str, state: State, own: State) -> None:
    """Values that torch would round, cut or refuse when it copies them, and those that train to
    nothing.
    """
    wanted = sorted(name for name, value in own.items() if value.is_floating_point())
    other = [name for name in wanted if not _is_dense(state[name])]
    if other:
        raise UsageError(
            f"model.weights: {source} has no plain floating-point numbers in {first_few(other, NUM_SHOWN)}: they are "
            "integers, complex, sparse or quantized; save the weights as they were trained"
        )

    bad = [name for name in wanted if not state[name].isfinite().all()]
    if bad:
        raise UsageError(
            f"model.weights: {source} has values that are not finite in {first_few(bad, NUM_SHOWN)}: its training has "
            "diverged; take an earlier checkpoint"
        )


def _is_dense(value: Tensor) -> bool:
    return value.is_floating_point() and value.layout == torch.strided and not value.is_quantized
