"""Benchmarks are not run by the tests, but the parts of accord they name have to be there."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


def named(path: Path) -> Iterator[tuple[str, str]]:
    """Every (module of accord, name in it) a file imports, or reads from a module it imports."""
    tree, modules = ast.parse(path.read_text()), dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update({a.asname or a.name: a.name for a in node.names if a.name.split(".")[0] == "accord"})
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "accord":
            assert node.module is not None
            for alias in node.names:
                yield node.module, alias.name
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield modules[node.value.id], node.attr


def there(module: str, name: str) -> bool:
    """Whether it can be imported; what is no module (a class, a function) may have any attribute."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        return True
    if hasattr(found, name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_a_benchmark_names_is_there(path: Path) -> None:
    absent = sorted({f"{module}.{name}" for module, name in named(path) if not there(module, name)})
    assert not absent


def test_a_name_that_went_is_found(tmp_path: Path) -> None:
    file = tmp_path / "old.py"
    file.write_text("from accord import build\nbuild.gone(1)\nfrom accord.storage import never_there\n")
    absent = {name for module, name in named(file) if not there(module, name)}
    assert absent == {"gone", "never_there"}
