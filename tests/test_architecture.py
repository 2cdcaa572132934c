"""The shape of the code: layers point downwards, the public surface is exact, the command line starts without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import accord

SOURCE = Path(accord.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# A file imports only lower layers, or files before it in its own folder.
LAYERS = {
    "errors": 0,
    "storage": 0,
    "recipe": 0,
    "recipe_base": 0,
    "recipe_encoder": 0,
    "recipe_latent": 0,
    "recipe_objective": 0,
    "recipe_rivals": 0,
    "recipe_toml": 0,
    "presets": 0,
    "presets_tuning": 0,
    "intervals": 0,
    "collective": 0,
    "data": 1,
    "model": 1,
    "diagnostics": 1,
    "report": 1,
    "objective": 2,
    "baselines": 2,
    "train": 3,
    "evaluate": 3,
    "plan": 3,
    "about_data": 4,
    "build": 4,
    "build_baselines": 4,
    "build_encoder": 4,
    "build_latent": 4,
    "build_objective": 4,
    "division": 4,
    "output": 4,
    "sklearn": 4,
    "resolve": 4,
    "run": 4,
    "terminal": 4,
    "verbs": 4,
    "predict": 4,
    "predict_future": 4,
    "predict_table": 4,
    "scoring": 4,
    "scoring_steps": 4,
    "searching": 4,
    "compare": 4,
    "cli": 5,
    "cli_options": 5,
    "cli_compare": 5,
    "cli_pairs": 5,
    "__main__": 6,
    "__init__": 6,
}
SAME_LAYER = {
    "recipe_objective": ("recipe_rivals",),
    "recipe": ("recipe_base", "recipe_encoder", "recipe_latent", "recipe_objective"),
    "recipe_toml": ("recipe",),
    "resolve": ("build", "build_encoder", "division"),
    "run": ("build", "build_baselines", "build_encoder", "division", "resolve"),
    "build": ("build_baselines", "build_encoder", "build_latent", "build_objective"),
    "build_baselines": ("build_latent",),
    "about_data": ("resolve", "terminal"),
    "verbs": ("about_data", "output", "resolve", "run", "terminal"),
    "predict_table": ("output", "run", "verbs"),
    "predict_future": ("output", "predict_table", "run", "terminal", "verbs"),
    "predict": ("output", "predict_future", "predict_table", "run", "terminal", "verbs"),
    "scoring_steps": ("output", "terminal"),
    "scoring": ("output", "run", "scoring_steps", "terminal", "verbs"),
    "searching": ("output", "run", "terminal", "verbs"),
}  # files beside each other at the root
NO_TORCH = [
    "errors",
    "storage",
    "recipe",
    "recipe_toml",
    "presets",
    "report.page",
    "report.compare_page",
    "intervals",
    "presets_tuning",
    "terminal",
    "cli",
]
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "__import__", "globals"}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def imports_of(path: Path) -> list[str]:
    """Modules of accord a file imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("accord"):
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [
                b if (SOURCE / Path(*b.split(".")[1:])).with_suffix(".py").exists() else node.module for b in below
            ]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("accord")]
    return [name.removeprefix("accord").removeprefix(".") for name in found if name != "accord"]


def import_cycles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that (indirectly) import themselves."""

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        for following in graph.get(start, set()) - seen:
            seen.add(following)
            if following == goal or reaches(following, goal, seen):
                return True
        return False

    return [module for module in graph if reaches(module, module, set())]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_imports_only_downwards(path: Path) -> None:
    here = module_of(path)
    if here == "__init__":
        return
    layer = LAYERS[here.split(".")[0]]
    for name in imports_of(path):
        package = name.split(".")[0]
        assert package in LAYERS, f"{here} imports {name}, which has no layer"
        same_folder = "." in here and package == here.split(".")[0]
        lower = LAYERS[package] < layer
        assert lower or same_folder or package == "diagnostics" or LAYERS[package] == layer != 1, (
            f"{here} imports {name}"
        )


def test_no_cycles_within_a_folder() -> None:
    graph = {module_of(path): set(imports_of(path)) for path in FILES if module_of(path) != "__init__"}
    assert import_cycles(graph) == []
    assert import_cycles({"a": {"b"}, "b": {"a"}}) == ["a", "b"], "the check itself must be able to fail"


def test_public_surface_is_exact_and_importable() -> None:
    declared = ast.parse((SOURCE / "__init__.pyi").read_text())
    typed = {
        alias.asname
        for node in ast.walk(declared)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("accord.")
        for alias in node.names
    }
    assert set(accord.__all__) == typed
    for name in set(accord.__all__) - {"Cost", "Term", "Terms"}:  # names of types, which have no docstring of their own
        assert getattr(accord, name).__doc__, f"accord.{name} has no docstring"
    with pytest.raises(AttributeError, match="nonsense"):
        accord.nonsense  # noqa: B018


@pytest.mark.parametrize("module", NO_TORCH)
def test_light_modules_do_not_import_torch(module: str) -> None:
    code = f"import sys, accord.{module}; print([m for m in ('torch', 'sklearn', 'matplotlib', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_library_works_without_the_packages_of_the_command_line() -> None:
    code = """
import sys
for name in ("pydantic", "typer", "rich", "tomli_w"):
    sys.modules[name] = None
import accord
for name in accord.__all__:
    getattr(accord, name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_nothing_loads_code_from_data(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_MODULES
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in FORBIDDEN_CALLS | {"torch.load", "os.system"}, f"{path}:{node.lineno} calls {name}"
            for keyword in node.keywords:
                allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in {"allow_pickle", "shell", "trust_remote_code"}:
                    assert allowed, f"{path}:{node.lineno} sets {keyword.arg}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400, f"{path} is longer than 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            length = (node.end_lineno or 0) - node.lineno + 1 - (len(docstring.splitlines()) if docstring else 0)
            assert length <= 50, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_average_precision_is_defined_once() -> None:
    assert sum("def average_precision(" in path.read_text() for path in FILES) == 1
