from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmoe_tune.data.sealed_plan import TestPlan, plan_test
from lmoe_tune.data.search_plan import SearchPlan, plan_search
from lmoe_tune.data.splits import pools, split_official
from lmoe_tune.data.table import Part, read_table
from lmoe_tune.data.usable_images import class_split
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Dataset, DataSpec
from tests.data import trees


@pytest.fixture
def data(tmp_path: Path) -> Any:
    """A spec over a tree of Stanford Cars with a folder of outliers and one of coarse OOD."""
    trees.cars(tmp_path / "cars")
    trees.class_folders(tmp_path / "outliers", ("house", "tree", "cloud"), per_class=10, seed=1)
    trees.class_folders(tmp_path / "coarse", ("pot", "pan"), seed=2)

    def make(**settings: Any) -> DataSpec:
        id_ = settings.pop("id", {})
        outliers = settings.pop("outliers", {})
        return DataSpec(
            **{
                "id": Dataset(
                    **{"dataset": "stanford_cars", "root": str(tmp_path / "cars"), **id_}
                ),
                "outliers": Dataset(
                    **{"dataset": "folder", "root": str(tmp_path / "outliers"), **outliers}
                )
                if outliers is not None
                else None,
                "coarse_ood": (Dataset(dataset="folder", root=str(tmp_path / "coarse")),),
                **settings,
            }
        )

    return make


def names(part: Part | None) -> set[tuple[str, str]]:
    return (
        {(part.table.dataset, part.table.paths[index]) for index in part.indices}
        if part is not None
        else set()
    )


def parts(plan: SearchPlan | TestPlan) -> dict[str, set[tuple[str, str]]]:
    found = {name: names(value) for name, value in vars(plan).items() if isinstance(value, Part)}
    return {name: of_part for name, of_part in found.items() if of_part}


@pytest.mark.parametrize("split", range(4))
def test_the_parts_share_no_image(data: Any, split: int) -> None:
    found = parts(plan_search(data(split=split)))
    assert set(found) == {"train", "val", "val_fine", "outliers", "val_coarse"}
    assert sum(map(len, found.values())) == len(set.union(*found.values()))


@pytest.mark.parametrize("split", range(4))
def test_nothing_sealed_is_in_a_search_plan(data: Any, split: int) -> None:
    spec = data(split=split)
    shown = set.union(*parts(plan_search(spec)).values())
    sealed = plan_test(spec)
    assert sealed.test_outliers is not None
    for part in (sealed.test, sealed.test_fine, sealed.test_outliers, *sealed.test_coarse):
        assert len(part) and not names(part) & shown
    table = sealed.train.table
    official_test = {
        (table.dataset, path)
        for path, part in zip(table.paths, table.official, strict=True)
        if part == "test"
    }
    assert not official_test & shown
    assert not official_test & names(sealed.train)


def test_labels_count_over_the_classes_trained_on(data: Any) -> None:
    plan = plan_search(data(split=1))
    split = class_split(data(split=1), 6)
    assert plan.classes == tuple(plan.train.table.classes[label] for label in split.train)
    for part, labels in ((plan.train, plan.train_labels), (plan.val, plan.val_labels)):
        assert [plan.classes[label] for label in labels] == [
            part.table.classes[label] for label in part.labels
        ]
    assert set(plan.train_labels.tolist()) == set(range(len(plan.classes)))
    assert set(plan.val_fine.labels.tolist()) == set(split.val_novel)


def test_every_class_has_a_validation_image_without_an_official_validation_part(data: Any) -> None:
    plan = plan_search(data())
    assert Counter(plan.val_labels.tolist()) == dict.fromkeys(range(len(plan.classes)), 1)
    assert Counter(plan.train_labels.tolist()) == dict.fromkeys(range(len(plan.classes)), 4)


def test_the_final_training_has_all_in_distribution_classes(data: Any) -> None:
    spec = data()
    sealed, split = plan_test(spec), class_split(spec, 6)
    assert set(sealed.train.labels.tolist()) == set(split.in_distribution)
    assert set(sealed.test.labels.tolist()) == set(split.in_distribution)
    assert set(sealed.test_fine.labels.tolist()) == set(split.test_novel)
    assert sealed.classes == tuple(
        sealed.train.table.classes[label] for label in split.in_distribution
    )
    assert names(plan_search(spec).train) < names(sealed.train)


def test_it_can_leave_out_what_the_search_held_out(data: Any) -> None:
    spec = data()
    sealed, searched = plan_test(spec, with_held_out=False), plan_search(spec)
    whole, split = plan_test(spec), class_split(spec, 6)
    assert sealed.classes == searched.classes
    assert names(sealed.train) == names(searched.train) and names(sealed.val) == names(searched.val)
    np.testing.assert_array_equal(sealed.train_labels, searched.train_labels)
    assert set(sealed.test.labels.tolist()) == set(split.train)
    assert names(sealed.test) < names(whole.test)
    assert names(sealed.test_fine) == names(whole.test_fine)
    assert sealed.fingerprint != whole.fingerprint


def test_official_parts_are_kept(tmp_path: Path) -> None:
    trees.aircraft(tmp_path)
    plan = plan_search(
        DataSpec(id=Dataset(dataset="fgvc_aircraft", root=str(tmp_path)), outliers=None)
    )
    official = plan.train.table.official
    assert {official[index] for index in plan.train.indices} == {"train"}
    assert {official[index] for index in plan.val.indices} == {"val"}
    assert {official[index] for index in plan.val_fine.indices} == {"train", "val"}
    assert plan.outliers is None and len(plan.val_coarse) == 0


def test_without_an_official_split_every_class_is_split_60_20_20(tmp_path: Path) -> None:
    trees.class_folders(tmp_path, ("a1b", "c2d", "e3f", "g4h", "i5j"), per_class=10)
    sealed = plan_test(DataSpec(id=Dataset(dataset="folder", root=str(tmp_path)), num_id_classes=4))
    counts = [
        Counter(part.labels.tolist()).values() for part in (sealed.train, sealed.val, sealed.test)
    ]
    assert [set(count) for count in counts] == [{6}, {2}, {2}]
    assert len(sealed.test_fine) == 10


@pytest.mark.parametrize(
    ("parts_there", "sizes"),
    [
        (("train", "test"), (8, 2, 10)),
        (("train", "val"), (8, 10, 2)),
        (("train", "val", "test"), (10, 10, 10)),
        (("train",), (6, 2, 2)),
    ],
)
def test_what_an_official_split_lacks_is_taken_from_its_training_images(
    parts_there: tuple[str, ...], sizes: tuple[int, ...]
) -> None:
    official = [part for part in parts_there for _ in range(20)]
    labels = np.tile([0, 1], len(official) // 2)
    found = split_official(labels, official, split=0)
    for part, size in zip((found.train, found.val, found.test), sizes, strict=True):
        assert [int((labels[part] == label).sum()) for label in (0, 1)] == [size, size]
    assert len(np.unique(np.concatenate([found.train, found.val, found.test]))) == len(official)


def test_the_published_class_numbers_are_used_where_the_class_count_is_the_published_one() -> None:
    cars = DataSpec(id=Dataset(dataset="stanford_cars", root="/x"), split=3)
    found = class_split(cars, 196)
    chosen = np.random.RandomState(3).choice(196, 150, replace=False)
    assert found.in_distribution == tuple(sorted(chosen.tolist()))
    assert len(found.val_novel) == 15
    assert len(class_split(cars, 100).in_distribution) == 75
    birds = DataSpec(id=Dataset(dataset="nabirds", root="/x"))
    assert len(class_split(birds, 555).in_distribution) == 416
    butterflies = DataSpec(id=Dataset(dataset="butterfly200", root="/x"))
    assert max(class_split(butterflies, 200).in_distribution) <= 199
    assert len(class_split(butterflies, 200).in_distribution) == 150


def test_a_plan_is_repeatable_and_another_split_gives_another(data: Any) -> None:
    first, second = plan_search(data()), plan_search(data())
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(first.train.indices, second.train.indices)
    others = [
        data(split=1),
        data(num_id_classes=5),
        data(outliers={"limit": 20}),
        data(outliers={"exclude": ("tree",)}),
    ]
    assert len({first.fingerprint, *(plan_search(other).fingerprint for other in others)}) == 5


def test_the_fingerprint_follows_the_content_and_not_the_place(data: Any, tmp_path: Path) -> None:
    before = plan_search(data())
    shutil.move(tmp_path / "cars", tmp_path / "elsewhere")
    moved = plan_search(data(id={"root": str(tmp_path / "elsewhere")}))
    assert moved.fingerprint == before.fingerprint
    trees.save(moved.train.files()[0], trees.picture(99))
    changed = plan_search(data(id={"root": str(tmp_path / "elsewhere")}))
    assert changed.fingerprint != before.fingerprint


def test_what_is_known_of_the_files_is_kept_under_the_home(
    data: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    from lmoe_tune.data import digests

    read_files: list[Path] = []
    examine = digests._examine
    monkeypatch.setattr(
        digests, "_examine", lambda path: (read_files.append(path), examine(path))[1]
    )
    home = tmp_path / "home"
    first = plan_search(data(), home)
    assert len(read_files) == 60 + 30
    read_files.clear()
    assert plan_search(data(split=1), home).fingerprint != first.fingerprint
    assert not read_files
    trees.save(first.train.files()[3], trees.picture(5))
    store = max((home / "data" / "digests").iterdir(), key=lambda path: path.stat().st_size)
    with store.open("ab") as file:
        file.write(b'["torn')
    plan_search(data(), home)
    assert read_files == [first.train.files()[3]]
    read_files.clear()
    plan_search(data(), home)
    assert not read_files


def test_several_processes_find_the_same(tmp_path: Path) -> None:
    from lmoe_tune.data.digests import digest_images

    trees.class_folders(tmp_path, ("a", "b"), per_class=140)
    (tmp_path / "a" / "img 7.jpg").write_bytes(b"")
    paths = read_table("folder", str(tmp_path)).paths
    seen: list[tuple[int, int]] = []
    there = digest_images(
        tmp_path, paths, processes=2, progress=lambda *counts: seen.append(counts)
    )
    assert there == digest_images(tmp_path, paths, processes=1)
    assert seen[-1] == (280, 280)
    assert [path for path, digest in zip(paths, there, strict=True) if digest.broken] == [
        "a/img 7.jpg"
    ]


def test_outlier_pools_hang_on_the_content_alone() -> None:
    keys = [f"{number:x}" for number in range(2000)]
    found = pools(keys)
    sizes = [len(part) for part in (found.train, found.val, found.test)]
    assert sum(sizes) == 2000 and all(150 <= size <= 250 for size in sizes[1:])
    backwards = pools(keys[::-1])
    assert {keys[::-1][index] for index in backwards.val} == {keys[index] for index in found.val}


@pytest.mark.parametrize("count", [60, 200, 1999])
def test_fewer_images_move_none_to_another_pool(count: int) -> None:
    keys = [f"image {number}" for number in range(2000)]
    whole, fewer = pools(keys), pools(keys[:count])
    for name in ("train", "val", "test"):
        part = set(getattr(whole, name).tolist())
        assert set(getattr(fewer, name).tolist()) == {index for index in part if index < count}


def test_no_pool_of_a_few_images_is_empty() -> None:
    for seed in range(20):
        found = pools([f"{seed} {number}" for number in range(4)])
        parts = [set(part.tolist()) for part in (found.train, found.val, found.test)]
        assert all(parts) and sum(map(len, parts)) == 4 == len(set.union(*parts)), seed


def test_limits_take_a_fixed_subset(data: Any) -> None:
    whole, few = plan_search(data()), plan_search(data(outliers={"limit": 20}))
    assert names(few.outliers) < names(whole.outliers)
    assert names(few.val_coarse) <= names(whole.val_coarse)
    again = plan_search(data(outliers={"limit": 20}, split=2))
    assert names(again.outliers) == names(few.outliers)


def test_classes_are_left_out_of_the_outliers(data: Any, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("Cloud\nouter/none.jpg\n", encoding="utf-8")
    plan = plan_search(data(outliers={"exclude": (str(tmp_path / "list.txt"), "house")}))
    assert {name.split("/")[0] for _, name in names(plan.outliers) | names(plan.val_coarse)} == {
        "tree"
    }


def test_a_misspelt_class_to_leave_out_is_refused(data: Any) -> None:
    with pytest.raises(UsageError, match=r"'hous' is not a class here.*did you mean 'house'"):
        plan_search(data(outliers={"exclude": ("hous",)}))


def test_identical_images_are_dropped_or_refused(data: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cars/cars_train"
    shutil.copy(folder / "00001.jpg", folder / "00007.jpg")
    shutil.copy(folder / "00002.jpg", tmp_path / "cars/cars_test/00002.jpg")
    sealed = plan_test(data())
    shown = set.union(*(parts(sealed).values()))
    kept = {path for dataset, path in shown if dataset == "stanford_cars"}
    assert "cars_train/00007.jpg" not in kept
    assert "cars_train/00002.jpg" not in kept  # the official test image stays
    with pytest.raises(UsageError, match="2 images appear twice"):
        plan_search(data(duplicates="refuse"))


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_broken_images_are_skipped_or_refused(
    data: Any, tmp_path: Path, content: bytes | None
) -> None:
    victim = tmp_path / "cars/cars_train/00001.jpg"
    victim.write_bytes(victim.read_bytes()[:-300] if content is None else content)
    assert ("stanford_cars", "cars_train/00001.jpg") not in set.union(
        *parts(plan_test(data())).values()
    )
    with pytest.raises(UsageError, match=r"1 of 60 images are broken: .*00001.jpg"):
        plan_search(data(corrupt="refuse"))


def test_many_broken_images_are_refused_in_any_case(data: Any, tmp_path: Path) -> None:
    for number in range(1, 9):
        (tmp_path / f"cars/cars_train/{number:05d}.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="interrupted download or copy"):
        plan_search(data())


def test_a_part_without_images_is_refused(data: Any) -> None:
    with pytest.raises(
        UsageError, match=r"3 classes without a training image .*: raise data\.id\.limit"
    ):
        plan_search(data(id={"limit": 4}))
    with pytest.raises(UsageError, match=r"data\.outliers: too few images"):
        plan_search(data(outliers={"limit": 2}))
    with pytest.raises(UsageError, match="num_id_classes is 7"):
        plan_search(data(num_id_classes=7))


def test_a_set_of_its_own_to_validate_with_takes_the_place_of_the_outliers_pool(
    data: Any, tmp_path: Path
) -> None:
    trees.class_folders(tmp_path / "val", ("cup", "jug"), per_class=3, seed=4)
    own = Dataset(dataset="folder", root=str(tmp_path / "val"))
    before, after = plan_search(data()), plan_search(data(val_coarse=own))
    assert names(after.val_coarse) == {
        ("folder", f"{name}/img {place}.jpg") for name in ("cup", "jug") for place in range(3)
    }
    assert names(after.outliers) == names(before.outliers)
    assert after.fingerprint != before.fingerprint

    alone = plan_search(data(val_coarse=own, outliers=None))
    assert alone.outliers is None and names(alone.val_coarse) == names(after.val_coarse)
    sealed = plan_test(data(val_coarse=own))
    assert names(sealed.val_coarse) == names(after.val_coarse)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda image, other: image.write_bytes(b""), "broken"),
        (lambda image, other: shutil.copy(other, image), "copies, such as cat/img 0.jpg of ant/"),
    ],
)
def test_a_class_without_a_usable_image_is_named_with_the_reason(
    tmp_path: Path, spoil: Any, why: str
) -> None:
    trees.class_folders(tmp_path, ("ant", "bee", "dog", "elk"))
    trees.class_folders(tmp_path, ("cat",), per_class=1, seed=1)
    spoil(tmp_path / "cat/img 0.jpg", tmp_path / "ant/img 0.jpg")
    data = DataSpec(id=Dataset(dataset="folder", root=str(tmp_path)), num_id_classes=5)
    with pytest.raises(UsageError, match=f"cat: its images are {why}"):
        plan_search(data)


def test_a_class_that_is_in_the_official_test_only_is_named_with_the_reason(
    tmp_path: Path,
) -> None:
    lists = [
        trees.aircraft(tmp_path) / f"data/images_variant_{part}.txt"
        for part in ("train", "val", "test")
    ]
    lines = [path.read_text(encoding="utf-8").splitlines() for path in lists]
    lost = [line for of_part in lines[:2] for line in of_part if "Yak-42" in line]
    for path, of_part in zip(lists, lines, strict=True):
        kept = [line for line in of_part if line not in lost]
        trees.text(path, [*kept, *lost] if path == lists[2] else kept)

    data = DataSpec(id=Dataset(dataset="fgvc_aircraft", root=str(tmp_path)), num_id_classes=6)
    with pytest.raises(UsageError, match="Yak-42: its images are in test only"):
        plan_search(data)
