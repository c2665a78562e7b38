"""The architecture: which packages may import which, and which heavy libraries."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import dvae
from dvae.commands.cli import ROOT
from dvae.console import COMMANDS
from dvae.errors import UserError

SOURCE = ROOT / "src" / "dvae"
MODULES = {
    ".".join(["dvae", *path.relative_to(SOURCE).with_suffix("").parts]): path
    for path in SOURCE.rglob("*.py")
}
# A package may import from the levels above it; packages on one level do not import each other.
LEVELS = [
    {"errors", "files", "options"},
    {"distributions", "randomness", "schedules"},
    {"estimators", "likelihoods", "networks"},
    {"priors"},
    {"layers"},
    {"models"},
    {"data"},
    {"training"},
    {"tasks"},
    {"runs"},
    {"commands"},
    {"benchmark"},
    {"console"},
]
ORDER = {package: level for level, packages in enumerate(LEVELS) for package in packages}
# Root modules may also import root modules on their own level.
ROOT_LEVEL = {"errors", "files", "options", "distributions", "randomness", "schedules"}
HEAVY = {"torch", "torchvision", "pytorch_lightning", "lightning_fabric", "matplotlib"}


def _imports(path):
    """Modules that a file imports anywhere, except for type checking."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def _at_import(path):
    """Modules that a file imports as soon as it is imported, not inside functions."""
    tree = ast.parse(path.read_text())
    top = ast.Module([node for node in tree.body if not isinstance(node, ast.If)], [])
    for node in ast.walk(top):
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Pass()]
    names = set()
    for node in ast.walk(top):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _package(module):
    return module.split(".")[1]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module):
    if module == "dvae.__init__":
        return
    package = _package(module)
    for imported in _imports(MODULES[module]) & set(MODULES):
        other = _package(imported)
        same = other == package or (other in ROOT_LEVEL and ORDER[other] == ORDER[package])
        assert same or ORDER[other] < ORDER[package], f"{module} imports {imported}"


def test_a_wrong_import_is_found(tmp_path):
    """Control: the test above finds an import from a level below."""
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from dvae.training.module import TaskModule\n")
    [imported] = _imports(path) & set(MODULES)
    assert ORDER[_package(imported)] > ORDER["models"]


def test_there_are_no_circular_imports():
    graph = {name: _at_import(path) & set(MODULES) for name, path in MODULES.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, " → ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for following in graph[name]:
            visit(following)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_models_and_levels_above_import_neither_lightning_nor_hydra(module):
    package = _package(module)
    if module == "dvae.__init__" or ORDER[package] > ORDER["models"]:
        return
    packages = {name.split(".")[0] for name in _imports(MODULES[module])}
    assert not packages & {"pytorch_lightning", "lightning_fabric", "hydra", "omegaconf"}


OPTIONS = sorted(
    module
    for module in MODULES
    if module.endswith(("options", ".config")) or module.endswith(".__init__")
)


@pytest.mark.parametrize("module", OPTIONS)
def test_options_import_no_torch(module):
    """Neither do the `__init__` files of the packages that contain them."""
    names = {name.split(".")[0] for name in _at_import(MODULES[module])}
    assert not names & HEAVY


def _loaded(module):
    code = f"import sys, {module}; print(*(name for name in sys.modules if '.' not in name))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_configurations_are_checked_without_torch():
    tasks = ", ".join(f"dvae.tasks.{name}.task" for name in _tasks())
    commands = ", ".join(f"dvae.console.{name}" for name in COMMANDS)
    assert not _loaded(f"dvae, dvae.commands.api, {commands}, {tasks}") & HEAVY


def test_the_package_itself_imports_only_the_standard_library():
    assert not _loaded("dvae") & {"hydra", "omegaconf", "pydantic", "numpy", *HEAVY}


def _tasks():
    from dvae.tasks import TASKS

    return TASKS


def test_the_root_is_small_and_no_file_is_long():
    assert len(list(SOURCE.glob("*.py"))) <= 8
    for path in [*SOURCE.rglob("*.py"), *(ROOT / "src" / "hydra_plugins").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 300, path
    for path in (ROOT / "scripts").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 60, path


def test_no_image_shape_is_hard_coded():
    """The numbers 28 and 784 occur only in the sources of such images."""
    words = {"28", "784"}
    for path in SOURCE.rglob("*.py"):
        if path.is_relative_to(SOURCE / "data" / "sources"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, int):
                assert str(node.value) not in words, path


def test_public_names_are_listed_and_exist():
    for module, path in MODULES.items():
        if Path(path).name == "__init__.py":
            continue
        names = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
        assert any(ast.unparse(node.targets[0]) == "__all__" for node in names), module


def test_the_layers_are_exported():
    from dvae.layers import CategoricalLayer, GumbelSoftmax

    assert dvae.GumbelSoftmax is GumbelSoftmax
    assert dvae.CategoricalLayer is CategoricalLayer
    with pytest.raises(AttributeError, match="nothing"):
        _ = dvae.nothing


def test_other_names_are_exported():
    from dvae.commands.api import compose, load, train

    assert (dvae.compose, dvae.load, dvae.train) == (compose, load, train)
    assert dvae.UserError is UserError
    assert {*dvae.__all__, "__version__"} <= set(dir(dvae))


def test_the_version_is_that_of_the_package():
    assert dvae.__version__ == version("dvae")
