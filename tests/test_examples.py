"""Every example runs, and shows what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_own_training_loop() -> None:
    assert load("own_training_loop").main(epochs=3) < 0.5


def test_two_encoders() -> None:
    chance = 10 / 359
    assert load("two_encoders").main(steps=150) > 5 * chance


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_tested(path: Path) -> None:
    assert f'load("{path.stem}")' in Path(__file__).read_text()
