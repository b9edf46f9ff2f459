"""What stands at the door for those who come after: paths that exist, hooks that need no network, a citation."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def test_every_file_that_the_recipes_name_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/.-]+(?:/|\.py|\.md|\.toml))`", text)

    assert len(named) > 20
    for name in named:
        places = [ROOT / name, ROOT / "lmoe_tune" / name, ROOT / "docs" / name]
        assert any(place.exists() for place in places), name


def test_every_part_of_the_package_is_on_the_page_of_its_architecture() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    package = ROOT / "lmoe_tune"
    folders = [f"{path.parent.name}/" for path in package.glob("*/__init__.py")]
    files = [path.name for path in package.glob("*.py") if not path.name.startswith("_")]

    for part in (*folders, *files):
        assert f"`{part}`" in text, part


def test_the_hooks_are_local_and_run_what_make_lint_runs() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (repository,) = yaml.safe_load(text)["repos"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert repository["repo"] == "local"
    assert "://" not in text
    for hook in repository["hooks"]:
        assert hook["entry"].startswith(".venv/bin/")
        if hook["id"] != "spaces":
            assert hook["entry"].split()[0].removeprefix(".venv/bin/") in makefile


def test_the_citation_names_the_paper_of_the_method_and_the_licence() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    assert cited["cff-version"] == "1.2.0"
    assert cited["license"] == "Apache-2.0"
    assert "arXiv:2509.11892" in str(cited["references"])
