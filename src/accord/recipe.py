"""What a run is: a validated configuration.

Nothing here is executed and no value is expanded: a name stands for one entry of a literal dictionary in `accord.build`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from accord.recipe_base import Count, Fraction, NotNegative, Positive, Section
from accord.recipe_encoder import EncoderSection, EncoderYSection
from accord.recipe_latent import DeterministicLatent, LatentSection, MinimizerSection
from accord.recipe_objective import ObjectiveSection, VICReg

ColumnKind = Literal["image", "audio", "series", "text", "number", "category"]
Kind = Literal["image", "vector", "series", "text", "audio"]


class TableSide(Section):
    """Columns of a table that are one side of pairs; all but their names is told from the data, and written down.

    Numbers are divided by the spread of their own column, or with unit="side" by that of the whole side: for columns in one unit, whose
    proportions say which of them counts (coefficients, pixels, spectra). Silence of sounds that is more than `trim` decibels below
    their loudest moment is cut off at both ends, and they are cut or padded to `seconds`, if these are set. With `level`, which new runs
    have, a sound counts as equally loud as others, and with `centre` each of its bands is seen from its mean, see `accord.LogMel`.
    """

    columns: Annotated[list[str], Field(min_length=1)]
    unit: Literal["column", "side"] = "column"
    kinds: list[ColumnKind] | None = None
    kind: Kind | None = None
    shape: list[int] | None = None
    categories: list[list[str]] | None = None
    rate: Count | None = None
    trim: Positive | None = None
    seconds: Positive | None = None
    level: bool | None = None
    centre: bool = False

    def __str__(self) -> str:
        """Without the keys that came later, unless they are set: calibrations, which are bound to this text, stay valid."""
        return " ".join(f"{key}={value!r}" for key, value in self if key not in ("trim", "level") or value is not None)


class Data(Section):
    """What is read, and how much of it is held out for evaluation."""

    source: str
    column: str | None = None
    label: str | None = None
    x: TableSide | None = None
    y: TableSide | None = None
    kinds: dict[str, ColumnKind] | None = None
    kind: Kind | Literal["pair"] | None = None
    rate: Count | None = None
    trim: Positive | None = None
    seconds: Positive | None = None
    level: bool | None = None
    centre: bool = False
    shape: list[int] | None = None
    canvas: Count | None = None
    features: list[str] | None = None
    time: str | None = None
    group: list[str] | None = None
    window: Count | None = None
    stride: Count | None = None
    length: Count | None = None
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    hold_out_by: Literal["sample", "time", "series", "x", "y"] | None = None
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    max_bad_fraction: Fraction = 0.01
    shuffle_buffer: Annotated[int, Field(ge=0)] | None = None
    impute: Annotated[float, Field(allow_inf_nan=False)] | None = None
    follow_links: bool | None = None
    max_pixels: Count | None = None


Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]


class Augment(Section):
    """Random changes that make a view; what is unset comes from the preset of the kind of data."""

    preset: Literal["none", "light", "photo", "grey_photo", "digits", "vector", "series", "audio", "text"] | None = None
    scale: Bounds | NotNegative | None = None
    ratio: Bounds | None = None
    flip: Fraction | None = None
    rotate: NotNegative | None = None
    shear: NotNegative | None = None
    outside: Literal["repeat", "black"] | None = None
    shift: Fraction | None = None
    jitter: Fraction | None = None
    brightness: Fraction | None = None
    contrast: Fraction | None = None
    saturation: Fraction | None = None
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = None
    grey: Fraction | None = None
    blur: Fraction | None = None
    blur_sigma: Bounds | None = None
    solarise: Fraction | None = None
    noise: NotNegative | None = None
    mask: Fraction | None = None
    stretch: NotNegative | None = None
    wrap: Annotated[float, Field(ge=0, le=0.5)] | None = None
    drift: NotNegative | None = None
    trend: NotNegative | None = None
    channel_drop: Fraction | None = None
    drop_words: Fraction | None = None
    drop_characters: Fraction | None = None


class TwoViews(Section):
    """Pairs of two random views of one sample, or of several small crops and one full view."""

    name: Literal["two_views"] = "two_views"
    size: Count | None = None
    local: Annotated[int, Field(ge=0)] = 0
    local_size: Count | None = None
    plain_size: Count | None = None
    augment: Augment = Augment()


class Halves(Section):
    """Pairs of one half of an image and the other; with `augment` the whole image is changed before it is cut."""

    name: Literal["halves"]
    split: Literal["left_right", "right_left", "top_bottom", "bottom_top"] = "left_right"
    size: Count | None = None
    augment: Augment | None = None


class Columns(Section):
    """Pairs of columns of a table: of [data.x] and [data.y], or in a table of numbers x and y, by name or place.

    Those named x, x0, ... and y, y0, ... are told apart without saying. `augment_x` and `augment_y` change the sides of [data].
    """

    name: Literal["columns"]
    x: list[str | int] | None = None
    y: list[str | int] | None = None
    augment_x: Augment | None = None
    augment_y: Augment | None = None
    size: Count | None = None


class MaskedBlocks(Section):
    """Pairs of an image with hidden blocks of patches and their content (Assran et al. 2023, arXiv:2301.08243)."""

    name: Literal["masked_blocks"]
    patch: Count = 4
    block: Count = 3
    blocks: Count = 1
    whole: bool = False
    size: Count | None = None
    augment: Augment | None = None


class Future(Section):
    """Pairs of some steps of a series and those that follow; windows begin every `stride` steps."""

    name: Literal["future"]
    context: Count = 48
    horizon: Count = 12
    stride: Count = 1


class Masked(Section):
    """Pairs of what is visible of a row or a series and what is hidden of it: columns, or runs of `block` steps."""

    name: Literal["masked"]
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    block: Count = 8


PairingSection = Annotated[TwoViews | Halves | Columns | MaskedBlocks | Future | Masked, Field(discriminator="name")]


class Projector(Section):
    """The expander between the features and the embeddings that carry the energy.

    With a bottleneck the embedding consists of cosines of a vector of this width with `dim` prototypes, as in DINO. With a grid it has,
    beside `dim` numbers for the image, `local_dim` for each cell of a grid x grid map, as in VICRegL.
    """

    hidden: list[Count] = Field(default=[1024])
    bottleneck: Count | None = None
    dim: Annotated[int, Field(ge=2)] = 256
    grid: Annotated[int, Field(ge=1, le=32)] | None = None
    local_dim: Count | None = None

    @model_validator(mode="after")
    def _one_map(self) -> Projector:
        if (self.grid is None) != (self.local_dim is None):
            raise ValueError("give both grid and local_dim, or neither")
        return self

    @property
    def width(self) -> int:
        """Width of the embedding."""
        return self.dim + (0 if self.grid is None or self.local_dim is None else self.grid**2 * self.local_dim)


class Predictor(Section):
    """From s_x to the predicted s_y: the identity for two views of one thing, an MLP, or an MLP of x plus z times bounded directions."""

    name: Literal["identity", "mlp", "dictionary"] = "identity"
    hidden: list[Count] | None = None


class Optimizer(Section):
    """How weights move."""

    name: Literal["adamw", "sgd", "lars"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05


class Training(Section):
    """How long, in what batches, on what; exactly one of epochs, steps and budget."""

    epochs: Positive | None = None
    steps: Count | None = None
    budget: str | None = None
    batch_size: Annotated[int, Field(ge=2)] = 256
    accumulate: Count | None = None
    parallel: Literal["ddp", "fsdp"] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    on_collapse: Literal["stop", "warn"] = "stop"
    checkpoint_every: str = "5m"

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        given = [name for name in ("epochs", "steps", "budget") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of epochs, steps and budget, not {' and '.join(given)}")
        return self


class Recipe(Section):
    """Everything a run depends on. `None` means: chosen from the data, and written down in the run's own recipe."""

    format: Literal[1] = 1
    data: Data
    pairing: PairingSection = TwoViews()
    encoder: EncoderSection | None = None
    encoder_y: EncoderYSection | None = None
    projector: Projector = Projector()
    predictor: Predictor = Predictor()
    latent: LatentSection = DeterministicLatent(name="deterministic")
    minimizer: MinimizerSection | None = None
    cost: Literal["squared_error", "smooth_l1", "cosine", "centred_divergence", "local_matching"] = "squared_error"
    objective: ObjectiveSection = VICReg(name="vicreg")
    optimizer: Optimizer = Optimizer()
    training: Training = Training()

    @field_validator("pairing", mode="before")
    @classmethod
    def _two_views_by_default(cls, value: Any) -> Any:
        return {"name": "two_views", **value} if isinstance(value, dict) else value

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without those that are unset (TOML has no null)."""
        return self.model_dump(mode="json", exclude_none=True)
