from __future__ import annotations

import pytest

from lmoe_tune.errors import UsageError
from lmoe_tune.spec import find_spec, locate, shipped_specs


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("argument", ["cars", "cars.yaml", "spaces/cars.yaml", "/nowhere/cars.yml"])
def test_a_shipped_space_is_found_by_its_stem(argument, shipped):
    assert find_spec(argument) == shipped / "cars.yaml"


def test_a_file_that_exists_wins(elsewhere):
    (elsewhere / "cars.yaml").write_text("name: mine\n", encoding="utf-8")
    assert find_spec("cars.yaml").resolve() == elsewhere / "cars.yaml"


def test_a_folder_of_that_name_does_not_hide_a_shipped_space(elsewhere, shipped):
    (elsewhere / "digits").mkdir()
    assert find_spec("digits") == shipped / "digits.yaml"


@pytest.mark.parametrize(
    "argument", ["", ".", "..", "/", "nothing", "a\0b", "x" * 5000, "carz.yaml", "\udc80"]
)
def test_what_is_nowhere_is_a_usage_error_with_the_shipped_names(argument):
    with pytest.raises(
        UsageError, match="shipped: aircraft, birds, butterfly, cars, digits, folder"
    ) as caught:
        find_spec(argument)
    assert ("did you mean 'cars'?" in str(caught.value)) == (argument == "carz.yaml")


def test_an_installed_package_has_its_spaces_inside(elsewhere, monkeypatch):
    package = elsewhere / "site" / "lmoe_tune"
    (package / "search_spaces").mkdir(parents=True)
    (package / "search_spaces" / "birds.yaml").touch()
    monkeypatch.setattr(locate, "_PACKAGE", package)
    assert shipped_specs() == {"birds": package / "search_spaces" / "birds.yaml"}


def test_a_pipe_is_no_spec(elsewhere):
    with pytest.raises(UsageError, match="'/dev/null': is not a regular file"):
        find_spec("/dev/null")
