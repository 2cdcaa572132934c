"""Is the representation alive? Rank, spread, correlation and flatness in one table, and the name of the collapse if there is one."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from accord import diagnostics

SPECTRUM = 512
"""So many singular values are kept for the report."""


def summary(
    views: Float[Tensor, "n views dim"],
    features: Float[Tensor, "m feature"],
    energies: Float[Tensor, "rows candidates"] | None = None,
    *,
    energy_auroc: float | None = None,
    pairs: int | None = None,
    values: int,
    s_x: Float[Tensor, "pairs dim"] | None = None,
    x_values: int | None = None,
    fixed: bool = False,
) -> dict[str, object]:
    """All label-free figures of a representation, and the verdict.

    Args:
        views: embeddings of several views of each sample, grouped: LiDAR needs them so; all others read them as n * views rows.
            One view, where a sample has no other: then there is no LiDAR.
        features: what probes read; only its effective rank is given.
        energies: F(x, y) of some x with many y: is the energy flat in y? None where there is but one y: then there is no AUROC either.
        energy_auroc: of matched against random pairs.
        pairs: how many of either.
        values: numbers in one y.
        s_x: embeddings of x where it has an encoder of its own: a collapse of either branch is a collapse.
        x_values: numbers in one x; by default `values`.
        fixed: y is taken as it is, and `views` are of x. Nothing pulls x to a point then: only a flat energy is a verdict.

    Returns:
        verdict (None, "constant", "dimensional" or "flat energy"), explanation and remedy (None where there is no verdict), rankme,
        feature_rankme, alpha_req, lidar, std_min, std_mean, std_share_below_0.1, off_diagonal_correlation, flatness, dim, and
        spectrum: singular values divided by the largest, at most 512, descending.

    Raises:
        ValueError: if anything is not finite, or there are fewer than 2 samples.
    """
    rows = views.flatten(0, 1)
    singular = diagnostics.spectrum(rows)
    std = diagnostics.std_statistics(rows)
    if fixed:
        found = None
        if energy_auroc is not None:
            found = diagnostics.flat(energy_auroc, "train longer, or accept that x tells little of y", pairs=pairs)
    else:
        found = diagnostics.verdict(rows, energy_auroc=energy_auroc, pairs=pairs, values=values)
    if found is None and s_x is not None:
        found = diagnostics.verdict(s_x, values=x_values or values)
    return {
        "verdict": None if found is None else found.kind,
        "explanation": None if found is None else found.explanation,
        "remedy": None if found is None else found.remedy,
        "rankme": diagnostics.effective_rank_of(singular),
        "feature_rankme": diagnostics.effective_rank(features),
        "alpha_req": diagnostics.alpha_req(rows),
        "lidar": diagnostics.lidar(views) if views.shape[1] > 1 else None,
        "std_min": std.least,
        "std_mean": std.mean,
        "std_share_below_0.1": std.share_below,
        "off_diagonal_correlation": diagnostics.off_diagonal_correlation(rows),
        "flatness": None if energies is None else diagnostics.flatness(energies),
        "spectrum": (singular / singular[0].clamp_min(1e-300))[:SPECTRUM].tolist(),
        "dim": views.shape[-1],
    }


def verdict_of(table: Mapping[str, object]) -> diagnostics.Verdict | None:
    """The verdict of a table of `summary`, as `calibrate` takes it."""
    kind, explanation, remedy = (table[key] for key in ("verdict", "explanation", "remedy"))
    if kind is None:
        return None
    return diagnostics.Verdict(str(kind), str(explanation), str(remedy))
