r"""The encoder of rows of a table: each number and each category has an embedding, one more says that it is missing.

$e_f = \mathrm{GELU}(x_f w_f + b_f)$ for a number, row $x_f$ of a table for a category, $m_f$ where $x_f$ is not observed. An MLP reads
all $e_f$.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import DataError, UsageError
from accord.model.mlp import MLP


class Tabular(nn.Module):
    """Embeddings of the columns, then an MLP: (batch, column) to (batch, feature_dim). NaN is not observed.

    Args:
        features: number of columns.
        categories: for each column the number of its categories, whose codes are 0, 1, ...; 0 for a column of numbers. By default
            all are numbers.
        width: of the embedding of a column.
        hidden: widths of the layers; the last one is `feature_dim`.

    Numbers should be standardised; codes must not be. Numbers get an embedding as in Gorishniy, Rubachev, Babenko 2022,
    arXiv:2203.05556 (there "LR").

    Raises:
        UsageError: lengths that do not fit, or widths below 1; when called, another number of columns.
        DataError: when called, a code that is none of the column.
    """

    numbers: Tensor
    codes: Tensor
    first: Tensor
    counts: Tensor

    def __init__(
        self,
        features: int,
        *,
        categories: Sequence[int] = (),
        width: int = 16,
        hidden: tuple[int, ...] = (256, 256),
    ):
        super().__init__()
        kinds = list(categories) or [0] * features
        if features < 1 or width < 1 or len(kinds) != features or min(kinds) < 0:
            raise UsageError(
                f"{features} columns, categories for {len(kinds)} and width {width} do not fit each other",
                help="one number of categories per column, 0 for a column of numbers",
            )
        self.in_features = features
        counts = [count for count in kinds if count]
        self._indices("numbers", [f for f, count in enumerate(kinds) if not count])
        self._indices("codes", [f for f, count in enumerate(kinds) if count])
        self._indices("first", list(itertools.accumulate(counts, initial=0))[:-1])
        self._indices("counts", counts)
        self.slope = nn.Parameter(torch.empty(len(self.numbers), width).uniform_(-1, 1))
        self.offset = nn.Parameter(torch.empty(len(self.numbers), width).uniform_(-1, 1))
        self.category = nn.Parameter(torch.randn(sum(counts), width))
        self.missing = nn.Parameter(torch.randn(features, width))
        self.mlp = MLP(features * width, hidden)
        self.feature_dim = self.mlp.feature_dim

    def _indices(self, name: str, values: list[int]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.long), persistent=False)

    def forward(self, x: Float[Tensor, "batch column"]) -> Float[Tensor, "batch feature"]:
        """Features."""
        if x.ndim != 2 or x.shape[1] != self.in_features:
            raise UsageError(f"this encoder was made for rows of {self.in_features} columns, got {tuple(x.shape)}")
        features: Tensor = self.mlp(self.embed(x).flatten(1))
        return features

    def embed(self, x: Float[Tensor, "batch column"]) -> Float[Tensor, "batch column width"]:
        """Embeddings of the columns: first those of numbers, then those of categories."""
        known = ~torch.isnan(x)
        values = torch.where(known, x, 0.0)
        numbers = F.gelu(values[:, self.numbers, None] * self.slope + self.offset)
        parts = [numbers, self.category[self._rows(values[:, self.codes])]] if len(self.codes) else [numbers]
        order = torch.cat([self.numbers, self.codes])
        return torch.where(known[:, order, None], torch.cat(parts, dim=1), self.missing[order])

    def _rows(self, codes: Tensor) -> Tensor:
        """Rows of the table of all categories."""
        unknown = (codes < 0) | (codes >= self.counts) | (codes != codes.round())
        if bool(unknown.any()):
            row, column = unknown.nonzero()[0].tolist()
            code, last = float(codes[row, column]), int(self.counts[column]) - 1
            raise DataError(
                f"column {int(self.codes[column])} holds the code {code:g}, its categories are 0 to {last}",
                where=f"row {row} of a batch",
                help="a category that was not there in training cannot be encoded: drop the row or give NaN, not observed",
            )
        return codes.long() + self.first
