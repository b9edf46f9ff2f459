"""Which layout a folder has, or what it is instead if it has none of a data set's layouts."""

from __future__ import annotations

from pathlib import Path

from lmoe_tune.readers import READERS
from lmoe_tune.readers.class_folders import CLASS_FOLDERS, SPLIT, SPLIT_FOLDERS, is_plain
from lmoe_tune.readers.files import has_images, on_disk, subfolders
from lmoe_tune.readers.folder import ANY_IMAGES
from lmoe_tune.readers.layout import Layout, LayoutError
from lmoe_tune.readers.names import folded, some

MAX_LOOKED_INTO = 300  # folders below a root that is not what it should be


def find_layout(dataset: str, root: Path, *, labelled: bool = True) -> Layout:
    """The layout that a folder has. Lists a few folders and reads a few lines.

    Raises:
        LayoutError: it has none of the set's layouts.
    """
    if root.is_file():
        raise LayoutError(
            f"{root} is a file, but must be a folder",
            "unpack it if it is an archive, and set root to that",
        )
    if not root.is_dir():
        raise LayoutError(
            f"there is no folder {root}{_spelt_otherwise(root)}",
            "put the images there, or set root to where they are",
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
    _refuse_incomplete(dataset, root)

    layout = _first(general, root)
    if layout is not None and dataset == "folder":
        return layout
    _refuse_inside_another(dataset, root)
    if layout is not None:
        _refuse_class_names(dataset, root, layout)
        return layout
    if dataset == "folder" and not labelled and ANY_IMAGES.recognises(root):
        return ANY_IMAGES

    _refuse_incomplete_below(dataset, root)
    near = _near_class_folders(dataset, root)
    if near is not None:
        raise _is_near(dataset, root, near)
    raise _is_nothing(dataset, root)


def _spelt_otherwise(root: Path) -> str:
    """The folder beside it that differs only in case, blanks or Unicode form."""
    for name in subfolders(root.parent):
        if folded(name) == folded(root.name):
            return f" (there is {root.parent / name}, spelt otherwise)"
    return ""


def _known(dataset: str) -> tuple[Layout, ...]:
    """The layouts that are this data set's alone."""
    return tuple(layout for layout in READERS[dataset].layouts if layout not in CLASS_FOLDERS)


def _general(dataset: str) -> tuple[Layout, ...]:
    return tuple(layout for layout in READERS[dataset].layouts if layout in CLASS_FOLDERS)


def _first(layouts: tuple[Layout, ...], root: Path) -> Layout | None:
    return next((layout for layout in layouts if layout.recognises(root)), None)


def _other(dataset: str, root: Path) -> str | None:
    """The data set whose own layout a folder has."""
    return next((name for name in READERS if name != dataset and _first(_known(name), root)), None)


def _near(layouts: tuple[Layout, ...], root: Path) -> tuple[Path, Layout] | None:
    """The folder up to two levels below or above that has one of the layouts."""
    for path in (*_below(root), *list(root.resolve().parents)[:2]):
        layout = _first(layouts, path)
        if layout is not None and not layout.fix:
            return path, layout
    return None


def _near_class_folders(dataset: str, root: Path) -> tuple[Path, Layout] | None:
    """The folder up to two levels below with class folders that do not belong to another set.

    Raises LayoutError if there are several side by side: one of them may be the test.
    """
    found = _with_class_folders(dataset, root, MAX_LOOKED_INTO)
    for parent in _children(root, MAX_LOOKED_INTO):
        found = found or _with_class_folders(dataset, parent, MAX_LOOKED_INTO // 10)
    if not found:
        return None

    first = found[0][0]
    if len(found) > 1:
        names = [path.name for path, _ in found]
        raise LayoutError(
            f"{first.parent} has several folders with class folders in them: {some(names)}",
            "rename them to train/, val/ and test/ if they are parts of one set, else set root "
            "to one of them",
        )
    if SPLIT_FOLDERS.get(folded(first.name), "train") != "train":
        raise LayoutError(
            f"{first.parent} has class folders in {first.name}/, but none in train/",
            "put the training images there as train/class/image.jpg",
        )
    return found[0]


def _with_class_folders(dataset: str, parent: Path, most: int) -> list[tuple[Path, Layout]]:
    found = []
    for path in _children(parent, most):
        layout = _first(_general(dataset), path)
        if layout is not None and _other(dataset, path) is None:
            found.append((path, layout))
    return found


def _children(folder: Path, most: int) -> list[Path]:
    return [folder / name for name in subfolders(folder)[:most]]


def _below(root: Path) -> list[Path]:
    """The folders one level below, then those two levels below."""
    below = _children(root, MAX_LOOKED_INTO)
    deeper = [_children(path, MAX_LOOKED_INTO // 10) for path in below]
    return below + [path for paths in deeper for path in paths]


def _refuse_incomplete(dataset: str, root: Path) -> None:
    """Raises LayoutError if a folder, or one that it lies in, has some files of the data set's own
    layout: read as class folders, its published split would be lost."""
    for layout in _known(dataset):
        _refuse_parts_of(dataset, layout, root)

    for folder in list(root.resolve().parents)[:2]:
        path = root.resolve().relative_to(folder)
        for layout in _known(dataset):
            if _is_part_of(layout, path):
                _refuse_parts_of(dataset, layout, folder, f", and set root to {folder}")


def _refuse_incomplete_below(dataset: str, root: Path) -> None:
    for folder in _below(root):
        for layout in _known(dataset):
            _refuse_parts_of(dataset, layout, folder, f", and set root to {folder}")


def _is_part_of(layout: Layout, path: Path) -> bool:
    """Whether a path is one that a layout holds, or a folder above one."""
    wanted = folded(path.as_posix())
    return any(f"{name}/".startswith(f"{wanted}/") for name in layout.holds)


def _refuse_parts_of(dataset: str, layout: Layout, root: Path, then: str = "") -> None:
    """Raises LayoutError with what a folder lacks of a layout, if it has something telling of it.

    Args:
        then: what else to do, after the fix.
    """
    actual = {name: on_disk(root, name) for name in layout.holds}
    marks = [path for name, path in actual.items() if path and _is_telling(root, name, path)]
    if layout.fix or not marks:
        return

    title = READERS[dataset].title
    other = {path: name for name, path in actual.items() if path and path != name}
    if other:
        renamed = [f"{path} to {name}" for path, name in other.items()]
        raise LayoutError(
            f"{root} looks like {title}, but has {', '.join(other)} instead of "
            f"{', '.join(other.values())}",
            f"rename {' and '.join(renamed)}{then}",
        )

    lacking = [name for name, path in actual.items() if path is None]
    if lacking:
        raise LayoutError(
            f"{root} looks like {title}, but lacks {', '.join(lacking)}",
            f"{READERS[dataset].source}{then}",
        )


def _is_telling(root: Path, name: str, path: str) -> bool:
    """Whether a file or folder shows that a layout is meant. Names such as `images` are everywhere,
    and class folders may be in a folder that is named as in the original."""
    if name.rpartition("/")[2] in ("images", "classes.txt"):
        return False
    return path != name or not is_plain(root / path)


def _refuse_class_names(dataset: str, root: Path, layout: Layout) -> None:
    """Raises LayoutError if most class folders are named like those of another set."""
    names = subfolders(root)
    if layout is SPLIT:
        names = subfolders(root / next(name for name in names if name.lower().startswith("train")))

    likely = [name for name in READERS if _is_named_like(name, names)]
    if likely and dataset not in likely:
        titles = " or ".join(READERS[name].title for name in likely)
        raise LayoutError(
            f"{root} has class folders named as those of {titles} ('{names[0]}'), "
            f"not of {READERS[dataset].title}",
            f"set dataset to {' or '.join(likely)}, or to folder for your own images",
        )


def _is_named_like(dataset: str, names: list[str]) -> bool:
    """Whether most class folders are named like those of a data set."""
    pattern = READERS[dataset].class_folder
    if pattern is None:
        return False

    return 2 * sum(bool(pattern.match(name)) for name in names) > len(names)


def _refuse_inside_another(dataset: str, root: Path) -> None:
    for parent in list(root.resolve().parents)[:2]:
        other = _other(dataset, parent)
        if other is not None:
            raise LayoutError(
                f"{root} is a folder inside {READERS[other].title}",
                f"set dataset to {other} and root to {parent}",
            )


def _is_another(dataset: str, root: Path, other: str) -> LayoutError:
    what, fix = f"{root} is {READERS[other].title}", f"set dataset to {other}"
    if dataset == "folder":
        return LayoutError(what, fix)

    title = READERS[dataset].title
    return LayoutError(f"{what}, not {title}", f"{fix}, or root to the folder of {title}")


def _is_near(dataset: str, root: Path, near: tuple[Path, Layout]) -> LayoutError:
    path, layout = near
    kind = READERS[dataset].title
    if dataset == "folder":
        kind = layout.name
    elif layout in CLASS_FOLDERS:
        kind = f"the class-folder re-upload of {kind}"

    if path in root.resolve().parents:
        return LayoutError(f"{root} is a folder inside {kind}", f"set root to {path}")

    levels = len(path.relative_to(root).parts)
    deeper = ("one level", "two levels")[levels - 1]
    return LayoutError(
        f"{root} looks like {kind} {deeper} deeper: it is a parent folder", f"set root to {path}"
    )


def _is_nothing(dataset: str, root: Path) -> LayoutError:
    title = READERS[dataset].title
    for name in subfolders(root)[:MAX_LOOKED_INTO]:
        other = _other(dataset, root / name)
        if other is not None:
            fix = f"dataset to {other} and root to {root / name}"
            if dataset != "folder":
                fix = f"root to the folder of {title}, or {fix}"
            return LayoutError(
                f"{root} does not hold {title}, but {READERS[other].title} in {name}/", f"set {fix}"
            )

    if not any(root.iterdir()):
        return LayoutError(
            f"{root} is empty", "put the images there, or set root to where they are"
        )
    if dataset == "folder":
        return _is_no_class_folders(root)

    lacking = []
    for layout in _known(dataset):
        names = [name for name in layout.holds if not (root / name).exists()]
        if names and not layout.fix:
            lacking.append(", ".join(names))
    return LayoutError(
        f"{root} is there, but lacks {', or '.join(lacking)}",
        f"unpack {title} there, or set root to it",
    )


def _is_no_class_folders(root: Path) -> LayoutError:
    names = subfolders(root)
    filled = [name for name in names if has_images(root / name)]

    if len(filled) == 1:
        fix = "put images into the other folders"
        if len(names) == 1:
            fix = "add the folders of the other classes"
        return LayoutError(
            f"{root} has images in one folder only, {filled[0]}/, but must have a folder for each "
            "of at least two classes",
            fix,
        )

    if has_images(root):
        fix = "give every class a folder of its own: class/image.jpg"
        if is_plain(root.parent):
            fix += f". If this is one class's folder, set root to {root.parent}"
        return LayoutError(f"the images lie directly in {root}, so they have no class", fix)

    return LayoutError(
        f"{root} holds no images",
        "put them there as class/image.jpg, or set root to where they are",
    )


def missing(dataset: str, root: str | None, *, labelled: bool = True) -> str | None:
    """What a data set lacks: None when all is there, else what was looked for, where, and how to
    provide it.

    Args:
        labelled: whether its classes are needed.
    """
    reader = READERS[dataset]
    if reader.is_embedded:
        return None

    assert root is not None, f"{dataset} needs a root"
    folder = Path(root)
    try:
        if folder.is_dir():
            find_layout(dataset, folder, labelled=labelled)
            return None
    except LayoutError as error:
        return f"{reader.title} not found: {error.what}. To fix it: {error.fix}"
    except OSError as error:  # no right to look there, a name that is too long, a lost disk
        what = f"{error.filename or folder} cannot be looked at ({error.strerror or error})"
        return f"{reader.title} not found: {what}. Make it readable, or set this key to where it is"

    layouts = [", ".join(layout.holds) for layout in reader.layouts if not layout.fix]
    if dataset == "folder":
        layouts.append("images, if it is for outliers or coarse OOD")
    return (
        f"{reader.title} not found: there is no folder {folder}{_spelt_otherwise(folder)}, where "
        f"it should hold {', or '.join(layouts)}. To provide it: {reader.source}. "
        "Put it there, or set this key to where it is"
    )
