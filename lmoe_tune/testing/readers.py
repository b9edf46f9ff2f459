"""What every reader of a data set must do.

from lmoe_tune.testing.readers import ReaderCase

class TestCub200(ReaderCase):
    dataset = "cub200"

    def build(self, root: Path) -> Path:
        ...  # a small tree in the original layout, a few images per class
        return root
"""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

from lmoe_tune.readers import READERS, LayoutError, Reader
from lmoe_tune.readers.class_folders import CLASS_FOLDERS
from lmoe_tune.readers.layout import Reading
from lmoe_tune.readers.recognition import find_layout, missing

ON_DISK = tuple(name for name, reader in READERS.items() if not reader.is_embedded)


class ReaderCase:
    """Inherit from it, set `dataset` to the name in `READERS`, and write `build`.

    pytest's `tmp_path` is the only fixture that the tests use.
    """

    dataset: str

    def build(self, root: Path) -> Path:
        """Write a small tree in the original layout into a folder that does not exist yet; return
        its root."""
        raise NotImplementedError

    @property
    def reader(self) -> Reader:
        """The declaration."""
        return READERS[self.dataset]

    def read(self, root: Path) -> Reading:
        """What a search reads of the folder."""
        return find_layout(self.dataset, root, labelled=self.reader.has_classes).read(root)

    def refusal(self, root: Path, dataset: str | None = None) -> LayoutError:
        """The error that a folder is refused with."""
        try:
            layout = find_layout(dataset or self.dataset, root)
        except LayoutError as error:
            return error
        raise AssertionError(f"{root} was taken for '{layout.name}' of {dataset or self.dataset}")

    def test_the_declaration_fits_together(self) -> None:
        reader = self.reader
        assert reader.title and reader.source and reader.layouts
        assert len({layout.name for layout in reader.layouts}) == len(reader.layouts)
        assert not reader.layouts[0].fix, "the first layout is the original one, which can be read"

        if reader.num_id_classes is not None:
            assert reader.num_classes is not None
            assert 2 <= reader.num_id_classes < reader.num_classes
        if reader.crop is not None:
            assert reader.resize is not None and reader.crop <= reader.resize
        assert reader.crop_bottom >= 0

    def test_the_folder_is_recognised_by_its_original_layout(self, tmp_path: Path) -> None:
        root = self.build(tmp_path / "set")
        assert find_layout(self.dataset, root) in self.reader.layouts
        assert missing(self.dataset, str(root)) is None

    def test_every_image_is_there_and_listed_once_in_a_fixed_order(self, tmp_path: Path) -> None:
        root = self.build(tmp_path / "set")
        paths = [entry.path for entry in self.read(root).entries]

        assert paths and paths == sorted(set(paths))
        assert all((root / path).is_file() for path in paths)
        assert not any(path.startswith("/") or "\\" in path for path in paths)

    def test_every_class_has_images_and_every_image_a_class(self, tmp_path: Path) -> None:
        reading = self.read(self.build(tmp_path / "set"))
        labels = {entry.label for entry in reading.entries}

        assert len(set(reading.classes)) == len(reading.classes) >= 2
        assert labels == set(reading.classes)
        assert all(unicodedata.is_normalized("NFC", name) for name in reading.classes)

    def test_the_published_parts_are_those_of_the_declaration(self, tmp_path: Path) -> None:
        reading = self.read(self.build(tmp_path / "set"))
        found = {entry.official for entry in reading.entries}
        assert found == set(self.reader.parts or ("",))

    def test_reading_is_repeatable_and_changes_nothing(self, tmp_path: Path) -> None:
        root = self.build(tmp_path / "set")
        before = sorted(path.relative_to(root) for path in root.rglob("*"))

        first, second = self.read(root), self.read(root)
        assert first.entries == second.entries and first.classes == second.classes
        assert sorted(path.relative_to(root) for path in root.rglob("*")) == before

    def test_an_image_that_is_gone_is_not_read(self, tmp_path: Path) -> None:
        root = self.build(tmp_path / "set")
        whole = self.read(root)
        gone = whole.entries[0].path
        (root / gone).unlink()

        reading = self.read(root)
        assert [entry.path for entry in reading.entries] == [e.path for e in whole.entries[1:]]
        assert reading.absent in ((), (gone,)), "a list that names it says that it is absent"

    def test_what_systems_leave_behind_is_no_image(self, tmp_path: Path) -> None:
        root = self.build(tmp_path / "set")
        whole = self.read(root)
        image = root / whole.entries[0].path
        for name in ("._" + image.name, ".hidden" + image.suffix, "Thumbs.db"):
            shutil.copy(image, image.parent / name)

        assert self.read(root).entries == whole.entries

    def test_no_other_data_set_takes_the_folder_for_its_own(self, tmp_path: Path) -> None:
        root = self.build(tmp_path / "data" / "here")
        if self.reader.layouts == CLASS_FOLDERS:
            return  # class folders may be an upload of any set

        for other in ON_DISK:
            if other != self.dataset:
                fix = self.refusal(root, other).fix
                assert f"set dataset to {self.dataset}" in fix, f"{other}: {fix}"

    def test_a_parent_folder_is_refused_with_the_root_to_set(self, tmp_path: Path) -> None:
        root = self.build(tmp_path / "a" / "b")
        for parent in root.parents[:2]:
            error = self.refusal(parent)
            assert "deeper: it is a parent folder" in error.what
            assert error.fix == f"set root to {root}"

    def test_an_empty_folder_and_none_are_refused_as_what_they_are(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_bytes(b"")
        assert "is empty" in self.refusal(tmp_path / "empty").what
        assert "there is no folder" in self.refusal(tmp_path / "absent").what
        assert "is a file" in self.refusal(tmp_path / "file").what
