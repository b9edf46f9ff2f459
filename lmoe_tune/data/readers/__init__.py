"""The readers: every data set in every layout that it comes in, as one plain table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lmoe_tune.data.readers import (
    butterfly200,
    cub200,
    fgvc_aircraft,
    folder,
    nabirds,
    stanford_cars,
    webvision,
)
from lmoe_tune.data.readers.class_folders import PLAIN, SPLIT, is_plain
from lmoe_tune.data.readers.files import has_images, subfolders
from lmoe_tune.data.readers.layout import Entry, Layout, LayoutError, Reading, make_reading

__all__ = [
    "READERS",
    "TITLES",
    "Entry",
    "Layout",
    "LayoutError",
    "Reading",
    "find_layout",
    "make_reading",
    "read",
]

READERS: dict[str, tuple[Layout, ...]] = {
    "stanford_cars": stanford_cars.LAYOUTS,
    "fgvc_aircraft": fgvc_aircraft.LAYOUTS,
    "nabirds": nabirds.LAYOUTS,
    "butterfly200": butterfly200.LAYOUTS,
    "cub200": cub200.LAYOUTS,
    "webvision": webvision.LAYOUTS,
    "folder": folder.LAYOUTS,
}
TITLES = {
    "stanford_cars": "Stanford Cars",
    "fgvc_aircraft": "FGVC-Aircraft",
    "nabirds": "NABirds",
    "butterfly200": "Butterfly-200",
    "cub200": "CUB-200-2011",
    "webvision": "WebVision 1.0",
    "folder": "a folder of class folders",
}
MAX_LOOKED_INTO = 300  # folders below a root that is not what it should be


def read(dataset: str, root: str, *, labelled: bool = True) -> Reading:
    """The images of a data set on the disk.

    Args:
        labelled: whether classes are needed; without, `folder` takes any images.

    Raises:
        LayoutError: the folder is not laid out as the set is known to come; says what it is instead.
    """
    path = Path(root)
    return find_layout(dataset, path, labelled=labelled).read(path)


def find_layout(dataset: str, root: Path, *, labelled: bool = True) -> Layout:
    """The layout that a folder has. Lists a few folders and reads a few lines.

    Raises:
        LayoutError: none of the set's.
    """
    if root.is_file():
        raise LayoutError(
            f"{root} is a file, but must be a folder",
            "unpack it if it is an archive, and set root to that",
        )
    if not root.is_dir():
        raise LayoutError(
            f"there is no folder {root}", "put the images there, or set root to where they are"
        )
    own, general = _known(dataset), _general(dataset)
    layout = _first(own, root)
    if layout is not None:
        if layout.fix:
            raise LayoutError(f"{root} has {layout.name}", layout.fix)
        return layout
    other = _other(dataset, root)
    if other is not None:
        raise _is_another(dataset, root, other)
    near = _near(own, root)
    if near is not None:
        raise _is_near(dataset, root, near)
    layout = _first(general, root)
    if layout is not None and dataset == "folder":
        return layout
    _refuse_inside_another(dataset, root)
    if layout is not None:
        _refuse_class_names(dataset, root, layout)
        return layout
    if dataset == "folder" and not labelled and folder.ANY_IMAGES.recognises(root):
        return folder.ANY_IMAGES
    near = _near_class_folders(dataset, root)
    if near is not None:
        raise _is_near(dataset, root, near)
    raise _is_nothing(dataset, root)


def _known(dataset: str) -> tuple[Layout, ...]:
    """The layouts that are this data set's alone."""
    return tuple(layout for layout in READERS[dataset] if layout.name not in (PLAIN, SPLIT))


def _general(dataset: str) -> tuple[Layout, ...]:
    return tuple(layout for layout in READERS[dataset] if layout.name in (PLAIN, SPLIT))


def _first(layouts: tuple[Layout, ...], root: Path) -> Layout | None:
    return next((layout for layout in layouts if layout.recognises(root)), None)


def _other(dataset: str, root: Path) -> str | None:
    """The data set whose own layout a folder has."""
    return next((name for name in READERS if name != dataset and _first(_known(name), root)), None)


def _near(layouts: tuple[Layout, ...], root: Path) -> tuple[Path, Layout] | None:
    """The folder nearby, two levels below or above, that has one of the layouts."""
    for path in (*_below(root), *list(root.resolve().parents)[:2]):
        layout = _first(layouts, path)
        if layout is not None and not layout.fix:
            return path, layout
    return None


def _near_class_folders(dataset: str, root: Path) -> tuple[Path, Layout] | None:
    """The folder up to two levels below with class folders that are no other set's."""
    for path in _below(root):
        layout = _first(_general(dataset), path)
        if layout is not None and _other(dataset, path) is None:
            return path, layout
    return None


def _below(root: Path) -> Iterator[Path]:
    below = [root / name for name in subfolders(root)[:MAX_LOOKED_INTO]]
    yield from below
    for path in below:
        yield from (path / name for name in subfolders(path)[: MAX_LOOKED_INTO // 10])


_NAMES = {
    re.compile(r"\d{3}\.\D"): ("cub200", "butterfly200"),
    re.compile(r".*\D(19|20)\d\d$"): ("stanford_cars",),
    re.compile(r"q\d{4}$"): ("webvision",),
}
"""How the class folders of a set are named, where that tells the set."""


def _refuse_class_names(dataset: str, root: Path, layout: Layout) -> None:
    """Raises LayoutError where most class folders are named as those of another set than the named one."""
    above = next(
        (root / name for name in subfolders(root) if name.lower().startswith("train")), root
    )
    names = subfolders(above if layout.name == SPLIT else root)
    for pattern, sets in _NAMES.items():
        if dataset not in sets and 2 * sum(bool(pattern.match(name)) for name in names) > len(
            names
        ):
            likely = " or ".join(TITLES[name] for name in sets)
            raise LayoutError(
                f"{root} has class folders named as those of {likely} ('{names[0]}'), not of {TITLES[dataset]}",
                f"set dataset to {' or '.join(sets)}, or to folder for images of your own",
            )


def _refuse_inside_another(dataset: str, root: Path) -> None:
    for parent in list(root.resolve().parents)[:2]:
        other = _other(dataset, parent)
        if other is not None:
            raise LayoutError(
                f"{root} is a folder inside {TITLES[other]}",
                f"set dataset to {other} and root to {parent}",
            )


def _is_another(dataset: str, root: Path, other: str) -> LayoutError:
    own = f", or root to the folder of {TITLES[dataset]}" if dataset != "folder" else ""
    what = f"{root} is {TITLES[other]}" + (
        f", not {TITLES[dataset]}" if dataset != "folder" else ""
    )
    return LayoutError(what, f"set dataset to {other}{own}")


def _is_near(dataset: str, root: Path, near: tuple[Path, Layout]) -> LayoutError:
    path, layout = near
    kind = (
        f"the class-folder re-upload of {TITLES[dataset]}"
        if layout.name in (PLAIN, SPLIT)
        else TITLES[dataset]
    )
    if dataset == "folder":
        kind = layout.name
    if path in root.resolve().parents:
        return LayoutError(f"{root} is a folder inside {kind}", f"set root to {path}")
    levels = len(path.relative_to(root).parts)
    deeper = "one level" if levels == 1 else f"{levels} levels"
    return LayoutError(
        f"{root} looks like {kind} {deeper} deeper: it is a parent folder", f"set root to {path}"
    )


def _is_nothing(dataset: str, root: Path) -> LayoutError:
    for name in subfolders(root)[:MAX_LOOKED_INTO]:
        other = _other(dataset, root / name)
        if other is not None:
            instead = f"dataset to {other} and root to {root / name}"
            fix = (
                f"set root to the folder of {TITLES[dataset]}, or {instead}"
                if dataset != "folder"
                else f"set {instead}"
            )
            return LayoutError(
                f"{root} does not hold {TITLES[dataset]}, but {TITLES[other]} in {name}/", fix
            )
    if not any(root.iterdir()):
        return LayoutError(
            f"{root} is empty", "put the images there, or set root to where they are"
        )
    if dataset == "folder":
        return _is_no_class_folders(root)
    lacking = [
        [name for name in layout.holds if not (root / name).exists()]
        for layout in _known(dataset)
        if not layout.fix
    ]
    listed = ", or ".join(", ".join(names) for names in lacking if names)
    return LayoutError(
        f"{root} is there, but lacks {listed}", f"unpack {TITLES[dataset]} there, or set root to it"
    )


def _is_no_class_folders(root: Path) -> LayoutError:
    names = subfolders(root)
    filled = [name for name in names if has_images(root / name)]
    if len(filled) == 1:
        return LayoutError(
            f"{root} has images in one folder only, {filled[0]}/, but must have a folder for each of at least two "
            "classes",
            "add the folders of the other classes"
            if len(names) == 1
            else "put images into the other folders",
        )
    if has_images(root):
        return LayoutError(
            f"the images lie directly in {root}, so they have no class",
            "give every class a folder of its own: class/image.jpg"
            + (
                f". If this is one class's folder, set root to {root.parent}"
                if is_plain(root.parent)
                else ""
            ),
        )
    return LayoutError(
        f"{root} holds no images",
        "put them there as class/image.jpg, or set root to where they are",
    )
