"""Rows of a table: embeddings of numbers, categories and of what is missing, against loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from accord.errors import DataError, UsageError
from accord.model.tabular import Tabular


def test_embeddings_of_columns() -> None:
    torch.manual_seed(0)
    encoder = Tabular(4, categories=[3, 0, 2, 0], width=5)
    x = torch.tensor([[2.0, 0.5, 1.0, -1.0], [math.nan, math.nan, 0.0, 3.0], [0.0, 0.0, math.nan, math.nan]])
    found = encoder.embed(x)
    tables = {0: encoder.category[:3], 2: encoder.category[3:]}
    for row in range(3):
        for place, column in enumerate([1, 3, 0, 2]):
            value = float(x[row, column])
            if math.isnan(value):
                expected = encoder.missing[column]
            elif column in tables:
                expected = tables[column][int(value)]
            else:
                k = [1, 3].index(column)
                expected = F.gelu(value * encoder.slope[k] + encoder.offset[k])
            torch.testing.assert_close(found[row, place], expected)


@pytest.mark.parametrize("categories", [(), (0, 0), (2, 3)])
def test_tables_of_one_kind_of_column(categories: tuple[int, ...]) -> None:
    encoder = Tabular(2, categories=categories, width=3, hidden=(8,))
    assert encoder(torch.tensor([[0.0, 1.0], [1.0, 2.0]])).shape == (2, 8)


@pytest.mark.parametrize("code", [3.0, -1.0, 0.5, math.inf])
def test_a_code_of_no_category_is_named(code: float) -> None:
    with pytest.raises(DataError, match=r"column 1 holds the code .*, its categories are 0 to 2[\s\S]*row 1"):
        Tabular(2, categories=[0, 3])(torch.tensor([[0.0, 1.0], [0.0, code]]))


def test_refusals() -> None:
    with pytest.raises(UsageError, match="3 columns, categories for 2"):
        Tabular(3, categories=[0, 2])
    with pytest.raises(UsageError, match=r"rows of 3 columns, got \(5, 2\)"):
        Tabular(3)(torch.zeros(5, 2))
