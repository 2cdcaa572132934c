"""A multi-layer perceptron as a backbone for vectors: Linear - norm - GELU, repeated."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from accord.errors import UsageError
from accord.model.batch_norm import BatchNorm1d
from accord.model.projector import Norm


class MLP(nn.Module):
    """Features of a vector.

    Args:
        in_features: width of the input.
        widths: of the layers; the last one is `feature_dim`. Without any the features are the vector itself, so that with a projector
            without hidden layers the encoder is linear.
        norm: layer after each linear map, made from its width; None for none.

    Raises:
        UsageError: a width below 1.
    """

    def __init__(self, in_features: int, widths: tuple[int, ...] = (512, 512), *, norm: Norm | None = BatchNorm1d):
        super().__init__()
        if min(in_features, *widths, 1) < 1:
            raise UsageError(f"an MLP needs widths >= 1, got {in_features} -> {widths}")
        self.in_features = in_features
        self.feature_dim = (in_features, *widths)[-1]
        layers: list[nn.Module] = []
        width = in_features
        for wide in widths:
            layers += [nn.Linear(width, wide, bias=norm is None), *([] if norm is None else [norm(wide)]), nn.GELU()]
            width = wide
        self.net = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch feature"]:
        """The features, (batch, feature_dim)."""
        if x.shape[-1] != self.in_features:
            raise UsageError(f"this encoder was made for vectors of {self.in_features} numbers, got {x.shape[-1]}")
        features: Tensor = self.net(x)
        return features
