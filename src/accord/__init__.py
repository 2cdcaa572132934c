"""Regularized latent-variable energy-based models with joint embedding.

A model maps (x, y) to an energy, which is a function of z. A minimiser turns an energy into a minimum, whose value is the
free energy F(x, y). An objective is a weighted sum of plain functions of that inference.

Public names are listed once, in the stub `__init__.pyi` beside this file, which type checkers read. They are imported when they
are first used, so that the command line answers at once.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path


def _listed() -> dict[str, str]:
    """The module of each public name: lines of the stub are ``from module import name as name``."""
    lines = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8").splitlines()
    return {name: module for _, module, _, name, _, _ in map(str.split, lines)}


_HOME = _listed()
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'accord' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
