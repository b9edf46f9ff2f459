"""What is trained on is what is served: the same pixels, bit for bit, wherever an image becomes a network's input."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lmoe_tune import description, export
from lmoe_tune.data import SearchData, image_source, load_search_data
from lmoe_tune.data.batches import PairedBatches
from lmoe_tune.data.image_source import ImageSource
from lmoe_tune.data.preprocessing import Preprocessing
from lmoe_tune.description import KEY, ModelDescription
from lmoe_tune.detector import Detector, load_detector
from lmoe_tune.detector.trained import load_trained
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import AugmentSpec, Dataset, DataSpec
from tests.data import trees

CPU = torch.device("cpu")
TREES: dict[str, Callable[[Path], Path]] = {
    "stanford_cars": trees.cars,
    "fgvc_aircraft": trees.aircraft,
    "nabirds": trees.nabirds,
    "butterfly200": trees.butterflies,
    "cub200": trees.cub,
    "webvision": trees.webvision,
    "folder": trees.class_folders,
}
SIZES = ((24, 16), (17, 12), (16, None))
NOT_AUGMENTED = AugmentSpec(random_crop=False, flip=False, brightness=0, saturation=0)


class Echo(nn.Module):
    """A network whose logits are its input."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small tree of every data set."""
    folder = tmp_path_factory.mktemp("trees")
    return {name: build(folder / name) for name, build in TREES.items()}


@pytest.fixture(autouse=True)
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "build_model", lambda *_: Echo())


@pytest.fixture
def opened(
    roots: dict[str, Path], tmp_path: Path
) -> Callable[..., tuple[SearchData, ImageSource, ModelDescription]]:
    def open_(dataset: str, resize: int, crop: int | None, **more: Any) -> Any:
        spec = DataSpec(
            id=Dataset(dataset=dataset, root=str(roots[dataset])),
            outliers=Dataset(dataset="webvision", root=str(roots["webvision"])),
            resize=resize,
            crop=crop,
            augment=NOT_AUGMENTED,
            **more,
        )
        data = load_search_data(spec, tmp_path)
        images = ImageSource(data, CPU, tmp_path)
        size = int(np.prod(images.preprocessing.shape))
        classes = tuple(str(number) for number in range(size))
        describes = ModelDescription(
            "small_cnn", classes, "max_logit", "fp32", images.preprocessing
        )
        return data, images, describes

    return open_


def exported(describes: ModelDescription, out: Path, patch: pytest.MonkeyPatch, onnx: bool) -> Path:
    """The folder that `lmoe-tune export` writes of a model with this description."""
    patch.setattr(export, "_measured", lambda *_: {"threshold": 0.0, "threshold_measured": {}})
    patch.setattr(export, "_provenance", lambda *_: {})
    patch.setattr(export, "caution_about", lambda *_: None)
    patch.setattr(export, "refuse_other_data", lambda *_: None)
    winner = export.Winner("it", 0, "", {}, {}, describes, None, {}, None)  # type: ignore[arg-type]
    home = SimpleNamespace(home=out.parent)
    ledger: Any = SimpleNamespace(folder=home, trial=lambda number: None)
    export.write_detector(ledger, winner, out, onnx=onnx)
    return out


def heard(detector: Detector) -> tuple[Detector, list[Tensor]]:
    """The detector, and what its network says from now on: here, what it is given."""
    said: list[Tensor] = []

    def network(pixels: Tensor) -> Tensor:
        said.append(detector.network(pixels))
        return said[-1]

    return dataclasses.replace(detector, network=network), said


def served(name: str, path: Path) -> Any:
    from lmoe_tune.tracking.served.detector import Served

    made = Served()
    made.load_context(SimpleNamespace(artifacts={name: str(path)}))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("resize_crop", SIZES, ids=str)
@pytest.mark.parametrize("dataset", TREES)
def test_every_way_gives_the_network_the_same_input(
    dataset: str,
    resize_crop: tuple[int, int | None],
    opened: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, images, describes = opened(dataset, *resize_crop, cache="off")
    files = [file.path for file in data.val.files]
    expected = torch.cat(list(images.val_chunks(8)))[: len(files)].flatten(1)  # the evaluation's

    folder = exported(describes, tmp_path / "out", monkeypatch, onnx=False)
    checkpoint = tmp_path / "epoch.pt"
    torch.save({"model": {}, KEY: describes.document()}, checkpoint)
    for detector in (load_detector(folder), load_trained(checkpoint)):
        assert detector.preprocessing == images.preprocessing
        asked, said = heard(detector)
        assert len(asked(files)) == len(files)
        assert torch.equal(torch.cat(said)[: len(files)], expected)

    contents = pd.DataFrame({"image": [path.read_bytes() for path in files]})
    for name, path in (("detector", folder), ("checkpoint", checkpoint)):
        model = served(name, path)
        model.detector, said = heard(model.detector)
        assert len(model.predict(None, contents)) == len(files)
        assert torch.equal(torch.cat(said)[: len(files)], expected)


@pytest.mark.parametrize("resize_crop", SIZES, ids=str)
@pytest.mark.parametrize("dataset", TREES)
def test_training_has_the_pixels_that_are_served(
    dataset: str,
    resize_crop: tuple[int, int | None],
    opened: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before they are augmented; here the crop is taken from the centre."""
    seen: list[np.ndarray] = []
    augment = image_source.augment

    def watched(pixels: Tensor, *more: Any) -> Tensor:
        seen.extend(pixels.numpy().transpose(0, 3, 1, 2).copy())
        return augment(pixels, *more)

    monkeypatch.setattr(image_source, "augment", watched)
    data, images, _ = opened(dataset, *resize_crop)
    list(PairedBatches(images, batch_size=len(data.train), outlier_ratio=0, seed=0).epoch(1))
    served = [images.preprocessing.read(file.path) for file in data.train.files]
    assert sorted(one.tobytes() for one in seen) == sorted(one.tobytes() for one in served)


def test_the_banner_of_an_aircraft_is_cut_off_wherever_it_is_read(
    opened: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describes = opened("fgvc_aircraft", 16, 16)[2]
    detector = load_detector(exported(describes, tmp_path / "out", monkeypatch, onnx=False))
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 60, 3), np.uint8))
    photo.save(tmp_path / "with.png")
    photo.crop((0, 0, 60, 44)).resize((16, 16), Image.Resampling.BILINEAR).save(
        tmp_path / "cut.png"
    )
    read = detector.preprocessing.read(tmp_path / "with.png").transpose(1, 2, 0)
    np.testing.assert_array_equal(read, np.asarray(Image.open(tmp_path / "cut.png")))


def test_onnx_is_given_the_same_input(
    opened: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    for dataset in ("fgvc_aircraft", "cub200"):
        data, images, describes = opened(dataset, 24, 16)
        files = [file.path for file in data.val.files]
        expected = torch.cat(list(images.val_chunks(8)))[: len(files)].flatten(1)
        folder = exported(describes, tmp_path / dataset, monkeypatch, onnx=True)
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        read = load_detector(folder).preprocessing.read
        pixels = np.stack([read(path) for path in files]).astype(np.float32)
        (logits,) = session.run(["logits"], {"pixels": pixels})
        np.testing.assert_array_equal(logits, expected.numpy())


def forms(photo: Image.Image) -> Iterator[Any]:
    """One image in every form in which a detector takes it, but as a file."""
    content = io.BytesIO()
    photo.save(content, "PNG")
    yield content.getvalue()
    yield photo
    yield np.asarray(photo)


def test_a_file_its_content_its_image_and_its_pixels_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coloured = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8))
    rules = Preprocessing.of_square(
        crop_bottom=7, resize=20, crop=16, mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0)
    )
    for photo in (coloured, coloured.convert("L"), coloured.convert("RGBA")):
        photo.save(tmp_path / "photo.png")
        expected = rules.read(tmp_path / "photo.png")
        for form in forms(photo):
            np.testing.assert_array_equal(rules.read(form), expected)


def test_pixels_that_are_no_image_are_refused() -> None:
    rules = Preprocessing.as_stored((3, 8, 8), (0.0,) * 3, (1.0,) * 3)
    for wrong in (np.zeros((8, 8, 3)), np.zeros((3, 8, 8), np.uint8), np.zeros(8, np.uint8)):
        with pytest.raises(UsageError, match=r"must be uint8 of shape \(H, W\)"):
            rules.read(wrong)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (None, "it has no such record"),
        ({"preprocessing": None}, "NoneType"),
        ({"crop_bottom": ...}, "'crop_bottom' is missing"),
        ({"decoder": 99}, "rules of version 99"),
    ],
)
def test_a_checkpoint_that_does_not_say_how_its_images_were_read_is_refused(
    change: dict[str, Any] | None, what: str
) -> None:
    rules = Preprocessing.as_stored((3, 8, 8), (0.0,) * 3, (1.0,) * 3)
    whole = ModelDescription("small_cnn", ("a", "b"), "msp", "bf16", rules)
    document: Any = whole.document()
    assert ModelDescription.of_record(document, whose="it", fix="") == whole
    if change is None:
        document = None
    elif "preprocessing" in change:
        document |= change
    else:
        (name,) = change
        document["preprocessing"] |= change
        if change[name] is ...:
            del document["preprocessing"][name]
    with pytest.raises(UsageError, match=what) as caught:
        ModelDescription.of_record(document, whose="trial 3", fix="train it again")
    assert str(caught.value).startswith("the checkpoint of trial 3 does not say")
    assert str(caught.value).endswith("train it again")
