"""scikit-learn's own checks of an estimator, all of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from sklearn.utils.estimator_checks import parametrize_with_checks

from accord.sklearn import EnergyDetector, EnergyRetriever, JointEmbedder

ESTIMATORS = [
    EnergyDetector(4, hidden=(8,), masks=3, steps=3, batch_size=64),
    JointEmbedder(3, hidden=(8,), dim=4, steps=3, batch_size=64),
    EnergyRetriever(4, hidden=(8,), steps=3, batch_size=64),
]


@parametrize_with_checks(ESTIMATORS)
def test_an_estimator_keeps_the_contract(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_scikit_learn_is_imported_by_accord_sklearn_only() -> None:
    code = "import sys, accord; assert 'sklearn' not in sys.modules; import accord.sklearn; assert 'sklearn' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
