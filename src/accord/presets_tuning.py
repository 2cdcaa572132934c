"""What `accord compare` knows of each principle beside its recipe: its group, other names for it, and the settings that are tried.

Every principle gets the same number of settings: three learning rates times three values of what matters most in it. Where nothing
stands out, nine learning rates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

GROUPS: dict[str, tuple[str, ...]] = {
    "regularised": ("vicreg", "vicregl", "barlow_twins", "sigreg", "visreg", "rdmreg", "mmcr", "coding_rate"),
    "contrastive": (
        "info_nce",
        "dcl",
        "siglip",
        "triplet",
        "siamese",
        "square_square",
        "logistic",
        "spectral",
        "align_uniform",
        "contrastive_divergence",
        "score_matching",
    ),
    "distilled": ("byol", "simsiam", "dino", "jepa"),
    "generative": ("autoencoder", "masked_autoencoder", "pixel_predictor"),
    "probabilistic": ("gaussian", "mixture", "cvae", "flow", "flow_matching"),
}
"""Every principle is in one group; a group names all of its members at once."""

ALIASES = {
    "regularized": "regularised",
    "infonce": "info_nce",
    "nt_xent": "info_nce",
    "simclr": "info_nce",
    "barlow": "barlow_twins",
    "barlowtwins": "barlow_twins",
    "lejepa": "sigreg",
    "mae": "masked_autoencoder",
    "ae": "autoencoder",
    "mdn": "mixture",
}


class Knob(NamedTuple):
    """A key of the objective's section and the values that are tried beside the one it has."""

    key: str
    values: tuple[float, float]


KNOBS: dict[str, Knob] = {
    "vicreg": Knob("covariance", (4.0, 0.25)),
    "vicregl": Knob("alpha", (0.5, 0.9)),
    "barlow_twins": Knob("off_diagonal", (0.02, 0.00125)),
    "sigreg": Knob("weight", (0.02, 0.125)),
    "visreg": Knob("weight", (0.8, 0.95)),
    "info_nce": Knob("temperature", (0.5, 0.07)),
    "dcl": Knob("temperature", (0.5, 0.07)),
    "siglip": Knob("scale", (5.0, 20.0)),
    "triplet": Knob("margin", (0.2, 1.0)),
    "siamese": Knob("margin", (0.7, 1.4)),
    "square_square": Knob("margin", (0.5, 1.5)),
    "logistic": Knob("temperature", (0.3, 1.0)),
    "spectral": Knob("mu", (0.3, 3.0)),
    "mmcr": Knob("local", (0.05, 0.0)),
    "coding_rate": Knob("invariance", (50.0, 800.0)),
    "rdmreg": Knob("weight", (60.0, 1000.0)),
    "contrastive_divergence": Knob("noise", (0.03, 0.3)),
    "score_matching": Knob("sigma", (0.1, 0.4)),
    "align_uniform": Knob("t", (1.0, 4.0)),
    "dino": Knob("teacher_temperature", (0.07, 0.02)),
}
"""The weight, temperature or margin that matters most in each principle."""

RATES = (1.0, 1 / 3, 3.0)
RATES_ALONE = (*RATES, 0.1, 10.0, 0.5, 2.0, 0.2, 5.0)
"""The learning rate of the recipe times these."""
MOST = len(RATES) ** 2
TRIAL_SHARE = 1 / 3
"""A trial is trained for this share of the budget of a run."""
VALIDATION = 0.2
"""Share of the training part on which trials are judged, and which they are not trained on."""


class Setting(NamedTuple):
    """One of the settings tried: a factor of the learning rate, and a key of the objective with its value, or None."""

    rate: float
    key: str | None = None
    value: float | None = None

    def over(self, learning_rate: float, principle: str) -> dict[str, Any]:
        """What stands over the recipe."""
        changed: dict[str, Any] = {"optimizer": {"learning_rate": self.rate * learning_rate}}
        if self.key is not None:
            changed["objective"] = {"name": principle, self.key: self.value}
        return changed

    def words(self) -> str:
        """For people: "as the recipe says", or what differs."""
        parts = [] if self.rate == 1 else [f"learning rate x {self.rate:.2g}"]
        parts += [] if self.key is None else [f"{self.key} {self.value:g}"]
        return ", ".join(parts) or "as the recipe says"


def grid(principle: str) -> list[Setting]:
    """The settings of a principle, `MOST` of them: as the recipe says first, then one thing changed, then two."""
    knob = KNOBS.get(principle)
    if knob is None:
        return [Setting(rate) for rate in RATES_ALONE]
    one = [Setting(rate) for rate in RATES] + [Setting(1.0, knob.key, value) for value in knob.values]
    return one + [Setting(rate, knob.key, value) for rate in RATES[1:] for value in knob.values]
