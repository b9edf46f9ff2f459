from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import trainables
from lmoe_tune.errors import UsageError
from lmoe_tune.spec import Declaration, load_spec
from trainables import METHODS, Method, declarations, load_method, resolve_declaration

OWN = """
    from dataclasses import dataclass
    from lmoe_tune.methods.baseline import CrossEntropy
    from lmoe_tune.spec import Declaration, Parameter
    from trainables import Method

    class Mine(Method):
        declaration = Declaration(
            name="mine",
            summary="cross-entropy of my own",
            parameters=(Parameter("sharpness", "float", 1.0, "how sharp", low=0),),
            needs_outliers=False,
        )

        def objective(self, params):
            return CrossEntropy()

    class Unfinished(Method):
        declaration = Mine.declaration

    class Undeclared(Method):
        def objective(self, params):
            return CrossEntropy()

    class Misdeclared(Mine):
        declaration = "mine"

    class NotOne:
        pass

    function = load = lambda: None
    """


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A spec's folder with a package of the user's own; import path and modules are restored afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    package = tmp_path / "my_methods"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "own.py").write_text(dedent(OWN), encoding="utf-8")
    (tmp_path / "broken_syntax.py").write_text("def f(:\n", encoding="utf-8")
    (tmp_path / "broken_import.py").write_text(
        "import a_module_that_does_not_exist\n", encoding="utf-8"
    )
    (tmp_path / "broken_code.py").write_text("1 / 0\n", encoding="utf-8")
    (tmp_path / "a_script.py").write_text("import sys\nsys.exit(3)\n", encoding="utf-8")
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.split(".")[0] in {
            "my_methods",
            "my_numbers",
            "broken_syntax",
            "broken_import",
            "broken_code",
            "a_script",
        }:
            del sys.modules[name]


def run_python(code: str) -> str:
    root = Path(trainables.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    return done.stdout.strip()


# --- the shipped ones ---


@pytest.mark.parametrize("name", METHODS)
def test_a_shipped_method_declares_itself_under_its_name(name: str) -> None:
    method = load_method(name)
    assert isinstance(method, Method)
    assert method.declaration.name == name
    assert method.declaration.summary
    for parameter in method.declaration.parameters:
        assert parameter.help, parameter.name
        assert parameter.default is not None or "; default: " in parameter.help, parameter.name


def test_the_declarations_are_those_of_all_methods() -> None:
    found = declarations()
    assert list(found) == list(METHODS)
    assert all(isinstance(declaration, Declaration) for declaration in found.values())


def test_a_shipped_method_can_be_named_by_its_path_too() -> None:
    for name, path in METHODS.items():
        assert load_method(path).declaration is load_method(name).declaration


def test_declaring_imports_neither_torch_nor_ray() -> None:
    heavy = {"torch", "ray", "optuna", "mlflow", "numpy", "sklearn"}
    said = run_python(
        "import sys, trainables\n"
        "names = list(trainables.declarations())\n"
        f"print(names, sorted({heavy!r} & set(sys.modules)))"
    )
    assert said == f"{list(METHODS)} []"


@pytest.mark.slow  # imports torch in a fresh process
def test_an_objective_needs_neither_ray_nor_optuna() -> None:
    said = run_python(
        "import sys, trainables\n"
        "for name in trainables.METHODS:\n"
        "    method = trainables.load_method(name)\n"
        "    method.objective(method.declaration.resolve({}))\n"
        "print(sorted({'ray', 'optuna', 'mlflow', 'sklearn'} & set(sys.modules)))"
    )
    assert said == "[]"


# --- the user's own ---


def test_a_class_of_ones_own_is_found_in_the_specs_folder(folder: Path) -> None:
    method = load_method("my_methods.own:Mine", folder)
    assert method.declaration.name == "mine"
    assert type(method.objective({"sharpness": 2.0})).__name__ == "CrossEntropy"
    assert resolve_declaration("my_methods.own:Mine", folder) == method.declaration


def test_a_spec_may_name_it_and_its_parameters_are_checked(folder: Path) -> None:
    spec = folder / "mine.yaml"
    spec.write_text(
        dedent("""
        name: mine
        trainable: my_methods.own:Mine
        data: {id: {dataset: digits}}
        space: {sharpness: {low: 0.5, high: 2}}
        """),
        encoding="utf-8",
    )
    loaded = load_spec(spec, declarations=declarations(), resolve=resolve_declaration)
    assert loaded.spec.trainable == "my_methods.own:Mine"
    spec.write_text(
        spec.read_text(encoding="utf-8").replace("sharpness", "sharpnes"), encoding="utf-8"
    )
    with pytest.raises(UsageError, match="did you mean 'sharpness'"):
        load_spec(spec, declarations=declarations(), resolve=resolve_declaration)


def test_the_folder_comes_last_so_that_it_hides_no_installed_package(folder: Path) -> None:
    (folder / "json.py").write_text("raise RuntimeError('the wrong json')\n", encoding="utf-8")
    load_method("my_methods.own:Mine", folder)
    installed = [place for place, path in enumerate(sys.path) if path.endswith("site-packages")]
    assert sys.path.index(str(folder)) > max(installed)
    assert sys.path.count(str(folder)) == 1
    load_method("my_methods.own:Mine", folder)
    assert sys.path.count(str(folder)) == 1


def test_two_folders_may_call_their_modules_alike(folder: Path, tmp_path: Path) -> None:
    """In a notebook, a search gets the code beside its own spec."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "my_methods").mkdir()
    (other / "my_methods" / "__init__.py").touch()
    text = dedent(OWN).replace("sharpness", "roundness")
    (other / "my_methods" / "own.py").write_text(text, encoding="utf-8")

    def declared(where: Path) -> list[str]:
        method = load_method("my_methods.own:Mine", where)
        return [parameter.name for parameter in method.declaration.parameters]

    for _ in range(2):
        assert "sharpness" in declared(folder)
        assert "roundness" in declared(other)
    assert declared(other) and sys.path.index(str(other)) < sys.path.index(str(folder))


def test_a_module_that_the_program_has_under_the_same_name_is_not_taken_for_the_one_beside_the_spec(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "my_numbers.py").write_text("DOCS = 'the program'\n", encoding="utf-8")
    (folder / "my_numbers.py").write_text("DOCS = 'the spec'\n", encoding="utf-8")
    own = folder / "my_methods" / "own.py"
    own.write_text(f"from my_numbers import DOCS\n{dedent(OWN)}", encoding="utf-8")
    monkeypatch.syspath_prepend(app)
    programs = importlib.import_module("my_numbers")

    load_method("my_methods.own:Mine", folder)
    assert sys.modules["my_methods.own"].DOCS == "the spec"
    assert importlib.import_module("my_numbers") is programs
    assert sys.path[0] == str(app)
    (folder / "my_numbers.py").write_text("DOCS = 'edited'\n", encoding="utf-8")
    load_method("my_methods.own:Mine", folder)
    assert sys.modules["my_methods.own"].DOCS == "edited"
    assert sys.modules["my_numbers"] is programs


@pytest.mark.parametrize(
    ("takes", "is_right"),
    [
        ("self, model, batch, draws, params", True),
        ("self, model, batch, draws, params, extra=1", True),
        ("self, *what", True),
        ("self, model, batch", False),
        ("self, model, batch, draws, params, extra", False),
    ],
)
def test_a_loss_that_cannot_be_called_is_refused_before_it_is(
    takes: str, is_right: bool, folder: Path
) -> None:
    own = folder / "my_methods" / "own.py"
    objective = "    def objective(self, params):\n        return CrossEntropy()\n"
    loss = f"    def loss({takes}): ...\n"
    text = dedent(OWN)
    own.write_text(text.replace(objective, loss, 1), encoding="utf-8")
    if is_right:
        load_method("my_methods.own:Mine", folder)
    else:
        with pytest.raises(UsageError, match=r"Mine\.loss cannot be called with \(model, batch"):
            load_method("my_methods.own:Mine", folder)
    own.write_text(text.replace(objective, f"{objective}\n{loss}", 1), encoding="utf-8")
    load_method("my_methods.own:Mine", folder)  # its own objective calls it, or not


def test_a_method_that_takes_an_argument_or_a_reserved_name_is_refused(folder: Path) -> None:
    text = dedent(OWN)
    own = folder / "my_methods" / "own.py"
    needy = text.replace(
        "    def objective", "    def __init__(self, size): ...\n\n    def objective", 1
    )
    own.write_text(needy, encoding="utf-8")
    with pytest.raises(UsageError, match=r"Mine\(\) raises TypeError: .*made without arguments"):
        load_method("my_methods.own:Mine", folder)
    own.write_text(text.replace("sharpness", "method"), encoding="utf-8")
    with pytest.raises(UsageError, match="declares a parameter 'method'"):
        load_method("my_methods.own:Mine", folder)


def test_a_folder_that_is_on_the_import_path_stays_where_it_is(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    before = list(sys.path)
    load_method("my_methods.own:Mine", folder)
    assert sys.path == before


def test_a_file_that_is_called_like_this_package_hides_nothing(folder: Path) -> None:
    (folder / "trainables.py").write_text("raise RuntimeError('the wrong one')\n", encoding="utf-8")
    sys.modules.pop("trainables.mixoe", None)
    assert load_method("mixoe", folder).declaration.name == "mixoe"
    assert sys.modules["trainables"] is trainables


def test_a_package_of_the_program_is_not_taken_for_the_one_beside_the_spec_either(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where, said in (("app", "the program"), (".", "the spec")):
        package = folder / where / "my_numbers"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("from my_numbers.docs import DOCS\n", encoding="utf-8")
        (package / "docs.py").write_text(f"DOCS = '{said}'\n", encoding="utf-8")
    own = folder / "my_methods" / "own.py"
    own.write_text(f"from my_numbers import DOCS\n{dedent(OWN)}", encoding="utf-8")
    monkeypatch.syspath_prepend(folder / "app")
    programs = importlib.import_module("my_numbers.docs")

    load_method("my_methods.own:Mine", folder)
    assert sys.modules["my_methods.own"].DOCS == "the spec"
    assert sys.modules["my_numbers.docs"] is programs


@pytest.mark.parametrize("is_relative", [False, True])
def test_a_module_that_was_edited_is_imported_again_with_what_it_imports(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_relative: bool
) -> None:
    if is_relative:  # as of a spec that is called `mine.yaml`
        monkeypatch.chdir(folder)
        folder = Path()
    own = folder / "my_methods" / "own.py"
    (folder / "my_numbers.py").write_text("DOCS = 'one'\n", encoding="utf-8")
    text = f"from my_numbers import DOCS\n{dedent(OWN)}"
    own.write_text(text, encoding="utf-8")

    first = load_method("my_methods.own:Mine", folder)
    assert type(load_method("my_methods.own:Mine", folder)) is type(first), "nothing has changed"
    assert sys.modules["my_methods.own"].DOCS == "one"
    (folder / "my_numbers.py").write_text("DOCS = 'another'\n", encoding="utf-8")
    load_method("my_methods.own:Mine", folder)
    assert sys.modules["my_methods.own"].DOCS == "another"
    assert "." not in sys.path, "it would follow the working directory"


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("no_such_module:Mine", "ModuleNotFoundError"),
        ("my_methods.nothing:Mine", "ModuleNotFoundError"),
        ("broken_import:Mine", "a_module_that_does_not_exist"),
        ("broken_syntax:Mine", "SyntaxError"),
        ("broken_code:Mine", "ZeroDivisionError"),
        ("a_script:Mine", "SystemExit"),
    ],
)
def test_a_module_that_cannot_be_imported_is_said_with_its_cause(
    folder: Path, name: str, cause: str
) -> None:
    with pytest.raises(UsageError, match=cause) as caught:
        load_method(name, folder)
    assert f"cannot import '{name.split(':')[0]}'" in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "class_name", ["Nothing", "NotOne", "function", "Method", "Unfinished", ""]
)
def test_what_is_no_method_is_refused(folder: Path, class_name: str) -> None:
    """`Method` itself and a subclass without an `objective` are none: they cannot be instantiated."""
    with pytest.raises(UsageError, match=f"'my_methods.own'.*{class_name}"):
        load_method(f"my_methods.own:{class_name}", folder)


@pytest.mark.parametrize("class_name", ["Undeclared", "Misdeclared"])
def test_a_method_without_a_declaration_is_refused(folder: Path, class_name: str) -> None:
    with pytest.raises(UsageError, match=f"{class_name}.*declaration"):
        resolve_declaration(f"my_methods.own:{class_name}", folder)
