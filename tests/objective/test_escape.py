"""From an almost collapsed start (a constant plus a spread of 1e-3) every principle gets away; invariance alone does not.

Figures are those of `benchmarks/escape.py`, which measures how far and how fast: Adam, 1e-3, embeddings of 8 dimensions.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "escape.py"
spec = importlib.util.spec_from_file_location("escape", PATH)
assert spec is not None
assert spec.loader is not None
escape = importlib.util.module_from_spec(spec)
spec.loader.exec_module(escape)


@pytest.mark.parametrize(
    ("principle", "steps", "std", "rank"),
    [
        ("vicreg", 100, 0.5, 2.0),
        ("barlow_twins + norm", 60, 0.9, 7.5),
        ("sigreg", 300, 0.8, 1.8),
        ("visreg", 300, 0.01, 1.8),
    ],
)
def test_escapes(principle: str, steps: int, std: float, rank: float) -> None:
    trace = escape.train(principle, spread=1e-3, steps=steps, optimizer="adam", every=steps)
    if principle != "barlow_twins + norm":  # whose batch norm hides the spread
        assert trace.std[0] == pytest.approx(1e-3, rel=0.1)
        assert trace.rank[0] < 1.1
    assert trace.std[-1] > std
    assert trace.rank[-1] > rank


def test_invariance_alone_collapses_further() -> None:
    trace = escape.train("invariance alone", spread=1e-3, steps=100, optimizer="adam", every=100)
    assert trace.std[-1] < 1e-3
    assert trace.rank[-1] < trace.rank[0]
