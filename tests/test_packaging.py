"""What is declared about the package is true: versions, layers, the content of a wheel."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
REQUIREMENTS = [
    Requirement(text)
    for text in [*PROJECT["project"]["dependencies"], *EXTRAS["dev"], *EXTRAS["cmaes"]]
]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.partition("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in pinned}


def test_constraints_are_names_and_versions_in_order_and_nothing_else() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==\d[\w.]*", line)] == []
    assert lines == sorted(lines, key=str.lower)
    assert len(pins()) == len(lines)


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    pinned = pins()
    for requirement in REQUIREMENTS:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, requirement
        assert requirement.specifier.contains(version), requirement


def test_every_dependency_has_its_reason_written_down() -> None:
    page = (ROOT / "docs/decisions/0001-dependencies.md").read_text(encoding="utf-8")
    for text in PROJECT["project"]["dependencies"]:
        assert re.search(rf"^\|[^|]*\b{Requirement(text).name}\b", page, re.MULTILINE), text


def test_every_module_has_its_layer() -> None:
    layers = " ".join(PROJECT["tool"]["importlinter"]["contracts"][0]["layers"])
    modules = [
        path
        for path in (ROOT / "lmoe_tune").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    ]
    names = sorted(path.stem for path in modules if path.stem not in ("__init__", "__main__"))
    assert [name for name in names if not re.search(rf"\blmoe_tune\.{name}\b", layers)] == []


@pytest.mark.slow
def test_a_wheel_holds_both_packages_and_finds_the_shipped_search_spaces(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="needs the extra `dev`")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    assert {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")} == {
        "lmoe_tune",
        "trainables",
    }

    shipped = sorted(path.name for path in (ROOT / "search_spaces").glob("*.yaml"))
    assert sorted(path.name for path in (unpacked / "lmoe_tune/search_spaces").iterdir()) == shipped

    find = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "import trainables; from lmoe_tune.spec import find_spec; "
        "print(trainables.__file__, find_spec('spaces/digits.yaml'), sep='\\n')"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", find, str(unpacked)],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ).stdout.split()
    assert found == [
        str(unpacked / "trainables/__init__.py"),
        str(unpacked / "lmoe_tune/search_spaces/digits.yaml"),
    ]
