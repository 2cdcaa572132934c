"""Regularized latent-variable energy-based models with joint embedding.

A model maps (x, y) to an energy, which is a function of z. A minimiser turns an energy into a minimum, whose value is the
free energy F(x, y). An objective is a weighted sum of plain functions of that inference.

Names are imported when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accord.data.pair import Pair as Pair
    from accord.model.joint_embedding import JointEmbedding as JointEmbedding

_HOME = {
    "JointEmbedding": "accord.model.joint_embedding",
    "Pair": "accord.data.pair",
}

__all__ = ["JointEmbedding", "Pair"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'accord' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
