from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from lmoe_tune.data import copies, leaks
from lmoe_tune.data.leaks import Leak, copied, find_leaks, find_near_duplicates, groups_of
from lmoe_tune.data.usable_images import ID, OUTLIERS, UsableImages, select
from lmoe_tune.spec import Dataset, DataSpec
from tests.data import trees


def photograph(name: str) -> Image.Image:
    """One of scikit-learn's two photographs, 640 x 427."""
    found = importlib.util.find_spec("sklearn")
    assert found is not None and found.submodule_search_locations
    return Image.open(
        Path(found.submodule_search_locations[0]) / "datasets/images" / f"{name}.jpg"
    ).convert("RGB")


@pytest.fixture
def learnt(tmp_path: Path) -> UsableImages:
    """Class folders, the two photographs among them."""
    trees.class_folders(tmp_path / "id", ("ant", "bee"), per_class=12)
    for name in ("china", "flower"):
        trees.save(tmp_path / "id" / "ant" / f"{name}.jpg", photograph(name))
    return select(DataSpec(id=Dataset(dataset="folder", root=str(tmp_path / "id"))), ID, None)


@pytest.fixture
def outliers(tmp_path: Path) -> Any:
    """What a folder of outliers holds after a function has put images there."""

    def make(*files: tuple[str, Image.Image, dict[str, object]]) -> UsableImages:
        trees.class_folders(tmp_path / "out", ("house",), per_class=20, seed=7)
        for name, image, options in files:
            trees.save(tmp_path / "out" / name, image, **options)
        both = DataSpec(
            id=Dataset(dataset="folder", root=str(tmp_path / "id")),
            outliers=Dataset(dataset="folder", root=str(tmp_path / "out")),
        )
        found = select(both, OUTLIERS, None)
        assert found is not None
        return found

    return make


def test_different_images_do_not_leak(learnt: UsableImages, outliers: Any) -> None:
    assert find_leaks(learnt, outliers()) == []


def test_the_same_bytes_are_found(learnt: UsableImages, outliers: Any, tmp_path: Path) -> None:
    copy = tmp_path / "out" / "house" / "copy.png"
    copy.parent.mkdir(parents=True)
    copy.write_bytes((tmp_path / "id/bee/img 3.jpg").read_bytes())
    assert find_leaks(learnt, outliers()) == [
        Leak("house/copy.png", "bee/img 3.jpg", "the same bytes")
    ]


def test_the_same_file_is_found_through_a_link(
    learnt: UsableImages, outliers: Any, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "linked").symlink_to(tmp_path / "id" / "bee")
    assert {(leak.path, leak.how) for leak in find_leaks(learnt, outliers())} == {
        (f"linked/img {place}.jpg", "the same file") for place in range(12)
    }


@pytest.mark.parametrize("name", ["china", "flower"])
def test_copies_encoded_anew_are_found(learnt: UsableImages, outliers: Any, name: str) -> None:
    image = photograph(name)
    turned = ImageOps.exif_transpose(image).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    copies = (
        ("q30.jpg", image, {"quality": 30}),
        ("q95.jpg", image, {"quality": 95}),
        ("lossless.png", image, {}),
        ("half.jpg", image.resize((320, 213)), {}),
        ("square.jpg", image.resize((512, 512)), {}),
        ("large.webp", image.resize((960, 640)), {}),
        ("grey.png", image.convert("L"), {}),
        ("turned.jpg", turned, {"exif": exif}),
        ("print.jpg", image.convert("CMYK"), {}),
    )
    found = find_leaks(learnt, outliers(*copies))
    assert {leak.path for leak in found} == {file for file, _, _ in copies}
    assert {leak.other for leak in found} == {f"ant/{name}.jpg"}
    assert {leak.how for leak in found} == {"a copy, encoded again"}


def test_small_noisy_images_encoded_anew_are_found(
    learnt: UsableImages, outliers: Any, tmp_path: Path
) -> None:
    files = [
        (
            f"{place}.png",
            Image.open(tmp_path / f"id/bee/img {place}.jpg").convert("RGB").resize((96, 80)),
            {},
        )
        for place in range(12)
    ]
    assert len(find_leaks(learnt, outliers(*files))) == 12


@pytest.mark.parametrize("name", ["china", "flower"])
def test_another_view_of_the_same_scene_is_no_copy(
    tmp_path: Path, outliers: Any, name: str
) -> None:
    image = photograph(name)
    trees.class_folders(tmp_path / "id", ("ant", "bee"), per_class=2)
    trees.save(tmp_path / "id/ant/view.jpg", image.crop((0, 0, 400, 400)))
    learnt = select(DataSpec(id=Dataset(dataset="folder", root=str(tmp_path / "id"))), ID, None)
    views = [
        (f"{by}.jpg", image.crop((by, by // 2, 400 + by, 400 + by // 2)), {})
        for by in (5, 8, 12, 20, 40)
    ]
    assert find_leaks(learnt, outliers(*views)) == []


@pytest.mark.parametrize("size", [48, 224])
def test_the_same_pattern_under_different_noise_is_no_copy(
    tmp_path: Path, outliers: Any, size: int
) -> None:
    rng = np.random.default_rng(0)
    pattern = np.asarray(
        trees.picture(3).resize((4, 4)).resize((size, size), Image.Resampling.BICUBIC)
    ).astype(float)
    noisy = [
        Image.fromarray(
            np.clip(pattern + rng.normal(0, 12, pattern.shape), 0, 255).astype(np.uint8)
        )
        for _ in range(8)
    ]
    trees.class_folders(tmp_path / "id", ("ant", "bee"), per_class=2)
    trees.save(tmp_path / "id/ant/noisy.jpg", noisy[0])
    learnt = select(DataSpec(id=Dataset(dataset="folder", root=str(tmp_path / "id"))), ID, None)
    files = [(f"{place}.jpg", image, {}) for place, image in enumerate(noisy[1:])]
    assert find_leaks(learnt, outliers(*files)) == []


def test_uniform_images_are_copies_only_byte_for_byte(tmp_path: Path, outliers: Any) -> None:
    trees.class_folders(tmp_path / "id", ("ant", "bee"), per_class=2)
    trees.save(tmp_path / "id/ant/white.jpg", Image.new("RGB", (60, 60), (250, 250, 250)))
    learnt = select(DataSpec(id=Dataset(dataset="folder", root=str(tmp_path / "id"))), ID, None)
    assert (
        find_leaks(learnt, outliers(("white.png", Image.new("RGB", (60, 60), (250, 250, 250)), {})))
        == []
    )


def test_what_was_found_is_kept_as_long_as_the_files_are_the_same(
    learnt: UsableImages, outliers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    found = outliers(("copy.png", photograph("china"), {}))
    first = find_leaks(learnt, found, home)
    assert len(first) == 1
    with monkeypatch.context() as patch:
        patch.setattr(leaks, "copies_between", lambda *sets: pytest.fail("looked again"))
        assert find_leaks(learnt, found, home) == first
    more = outliers(("another.png", photograph("flower"), {}))
    assert len(find_leaks(learnt, more, home)) == 2


@pytest.mark.parametrize("damage", [b"", b"[[1, 2]]", b"[]]", b"\xff", b"5"])
def test_a_damaged_record_of_what_was_found_is_found_anew(
    damage: bytes, learnt: UsableImages, outliers: Any, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    found = outliers(("copy.png", photograph("china"), {}))
    first = find_leaks(learnt, found, home)
    (record,) = (home / "data" / "leaks").iterdir()
    whole = record.read_bytes()
    record.write_bytes(damage)
    assert find_leaks(learnt, found, home) == first
    assert record.read_bytes() == whole


@pytest.mark.parametrize("name", ["china", "flower"])
@pytest.mark.parametrize("change", ["mirrored", "mirrored and half", "mirrored and q30"])
def test_mirrored_copies_are_found(
    learnt: UsableImages, outliers: Any, name: str, change: str
) -> None:
    image = ImageOps.mirror(photograph(name))
    if "half" in change:
        image = image.resize((320, 213))
    quality = 30 if "q30" in change else 90
    (leak,) = find_leaks(learnt, outliers(("copy.jpg", image, {"quality": quality})))
    assert leak == Leak("copy.jpg", f"ant/{name}.jpg", "a mirrored copy")


def test_near_duplicates_of_one_set_are_connected_in_groups(tmp_path: Path) -> None:
    root = trees.class_folders(tmp_path / "id", per_class=8)
    image = photograph("china")
    trees.save(root / "ant/a.jpg", image)
    trees.save(root / "ant/b.jpg", image.resize((320, 213)), quality=50)
    trees.save(root / "bee/c.png", ImageOps.mirror(image))
    trees.save(root / "bee/d.jpg", ImageOps.mirror(image).resize((480, 320)))
    trees.save(root / "cat/e.jpg", photograph("flower"))
    trees.save(root / "dog/f.jpg", photograph("flower").convert("L"))
    found = select(DataSpec(id=Dataset(dataset="folder", root=str(root))), ID, None)

    pairs = find_near_duplicates(found)
    assert len(pairs) == 4
    assert sorted(map(sorted, groups_of(pairs))) == [
        ["ant/a.jpg", "ant/b.jpg", "bee/c.png", "bee/d.jpg"],
        ["cat/e.jpg", "dog/f.jpg"],
    ]
    assert copied(pairs, {"bee/d.jpg", "dog/f.jpg", "ant/img 0.jpg"}, {"ant/a.jpg"}) == {
        "bee/d.jpg"
    }


def test_pictures_of_one_set_that_are_all_different_have_no_near_duplicates(tmp_path: Path) -> None:
    root = trees.class_folders(tmp_path, per_class=40)
    found = select(DataSpec(id=Dataset(dataset="folder", root=str(root))), ID, None)
    assert find_near_duplicates(found) == []


def test_copies_are_found_whatever_their_brightness_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures are compared block by block, sorted by brightness: each with those of like brightness."""
    root = trees.class_folders(tmp_path, per_class=3)
    image = np.asarray(photograph("china")) // 2
    for level in range(0, 128, 16):
        trees.save(root / f"ant/{level}.png", Image.fromarray(image + level))
        trees.save(root / f"bee/{level}.jpg", Image.fromarray(image + level), quality=80)
    found = select(DataSpec(id=Dataset(dataset="folder", root=str(root))), ID, None)

    pairs = find_near_duplicates(found)
    groups = sorted(sorted(group) for group in groups_of(pairs))
    assert groups == sorted([f"ant/{level}.png", f"bee/{level}.jpg"] for level in range(0, 128, 16))
    monkeypatch.setattr(copies, "BLOCK", 3)
    assert find_near_duplicates(found) == pairs
