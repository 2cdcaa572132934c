r"""Collapse while training: measured now and then on one fixed held-out batch, judged by level and trend, named, with a remedy.

Measures are those of `accord.diagnostics`, in evaluation mode. A single value proves little: an untrained network may have a nearly
constant embedding and an energy that tells nothing, and a healthy run leaves that state slowly. So in the first part of a run only a
trend counts: what an embedding has lost since training began, and goes on losing. Later a bad value counts while it is not getting
better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from accord import diagnostics
from accord.data.loader import Loader
from accord.data.order import ordered
from accord.data.pair import Pair
from accord.data.pairing import Pairing
from accord.data.random import Draws
from accord.data.samples import Samples
from accord.data.values import rows_of
from accord.errors import Diverged
from accord.model.density import Density
from accord.model.energy import cosine
from accord.model.joint_embedding import JointEmbedding
from accord.model.variational import Variational
from accord.train.device import Device
from accord.train.trend import SMALL, lost

ROWS = 256
"""Samples in the fixed batch, at most."""
ROWS_NEEDED = 32
"""With fewer samples in the batch nothing is judged."""
SHIFTS = 8
"""Mismatched pairs per sample: x with the y of the next 1, 2, ... in the batch."""
EPOCH = -1
"""The draws of the fixed batch are those of an epoch no training step has."""

GRACE = 0.15
"""Share of the run in which no value is judged, only the trend: warm-up, and running statistics that still follow."""
PATIENCE = 4
"""So many evaluations in a row must be bad, and the last not clearly better than the first of them."""
BETTER = 1.1
"""A measure that rose by this factor over those evaluations is on its way out."""

SPREAD = 0.1
"""Constant: total standard deviation below a tenth of the length of the embeddings. Healthy runs here had 0.37 to 1."""
SHRUNK, SHRUNK_UNSURE, UNSURE = 0.1, 0.5, 0.75
"""Constant, too: standard deviation below a tenth of the largest one seen, or below half of it while the AUROC is below 0.75; only
if it is small, too. With nothing to keep the variance up, batch norm before the last layer hides
the collapse from the spread, and only the scale shows it, however slowly it falls (measured: from 0.26 to 0.009, or with a learning
rate of 3e-5 only from 0.31 to 0.13, at a spread of 0.64 and an AUROC of 0.65). Healthy runs of VICReg, Barlow Twins, SIGReg and
VISReg stayed above 0.36, with an AUROC above 0.75 from a fifth of the run on."""
NEAR = 3.5
"""By trend a dimensional collapse is told before the end of `GRACE` only, and only near: below 3.5 times the limit of `rank_limit`."""
CHANCE_ERRORS = 3.0
"""Flat energy: AUROC within this many standard errors of chance (Mann-Whitney, no difference)."""
LATE = 0.5
"""Share of the run after which an energy that tells no more than it did at first is worth a warning, though nothing has collapsed."""


class Health(NamedTuple):
    r"""What one evaluation found; the worse of both branches where they differ.

    Standard deviations are of what the cost sees: with `cosine`, of embeddings brought to the length $\sqrt D$.
    """

    effective_rank: float
    std_min: float
    std_mean: float
    spread: float
    energy_matched: float
    energy_mismatched: float
    energy_auroc: float
    dim: int

    def as_metrics(self) -> dict[str, float]:
        """The fields of a line of metrics.jsonl."""
        return {key: value for key, value in self._asdict().items() if key in NOT_EVALUATED}


NOT_EVALUATED: Mapping[str, None] = dict.fromkeys(f for f in Health._fields if f != "dim")


class Probe:
    """One fixed batch of held-out samples, and what a model makes of it.

    Args:
        samples: the data.
        index: which of them may be used; up to 256 are chosen, always the same for one seed.
        pairing: makes the pairs, with draws that no training step uses.
        batch_size: how many samples are encoded at a time.
    """

    def __init__(self, samples: Samples, index: np.ndarray, pairing: Pairing, *, seed: int, batch_size: int):
        rows = min(ROWS, len(index))
        chosen = ordered(samples, index, seed=seed, epoch=EPOCH)[:rows]
        loader = Loader(samples, np.sort(chosen), batch_size=rows, seed=seed)
        self.batch = loader.read(0)
        self.bad = list(loader.bad.values())
        self.pairing = pairing
        self.seed = seed
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.batch.index)

    @property
    def values(self) -> int:
        """Numbers in one x or y, whichever has fewer: an embedding of few numbers cannot use many dimensions."""
        few = (rows_of(self.batch.data, slice(2)), None if self.batch.aspect is None else self.batch.aspect[:2])
        return min(int(plain(*few)[0].numel()) for plain in (self.pairing.plain, self.pairing.plain_y))

    @torch.no_grad()
    def examine(self, model: JointEmbedding, device: Device) -> Health:
        """Evaluates `model`; its mode, its statistics and all generators are left as they were.

        Raises:
            Diverged: if embeddings or energies are not finite.
        """
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with device.autocast():
                pairs = self._pairs(model, device)
                parts = [(model.encoder_x(p.x), model.encoder_y(p.y), p.action) for p in pairs]
            s_x, s_y = (torch.cat(part, dim=-2).float() for part in list(zip(*parts, strict=True))[:2])
            actions = [a for _, _, a in parts if a is not None]
            return _health(model, s_x, s_y, torch.cat(actions) if actions else None)
        finally:
            for module, training in modes:
                module.training = training

    def _pairs(self, model: JointEmbedding, device: Device) -> Iterator[Pair]:
        ndims = model.encoder_x.sample_ndim, model.encoder_y.sample_ndim
        index, data, aspect = self.batch.index, self.batch.data, self.batch.aspect
        for start in range(0, len(self), self.batch_size):
            part = slice(start, start + self.batch_size)
            draws = Draws(self.seed, EPOCH, index[part].to(device.device))
            shape = None if aspect is None else aspect[part].to(device.device)
            pair = self.pairing(rows_of(data, part).to(device.device), draws, shape)
            yield device.lay_out(pair.first(*ndims))


def shifts_of(model: JointEmbedding) -> int:
    """Mismatched pairs per sample; one where each pair takes a network or a decoder, or looking would take longer than training."""
    if isinstance(model.minimizer, Variational):
        return 1
    return 1 if isinstance(model.cost, Density) and model.cost.network else SHIFTS


def _health(model: JointEmbedding, s_x: Tensor, s_y: Tensor, action: Tensor | None) -> Health:
    matched = model.minimizer(model.energy(s_x, s_y, action)).value.float()
    shifts = range(1, min(shifts_of(model), len(s_y) - 1) + 1)
    mismatched = torch.stack([model.minimizer(model.energy(s_x, s_y.roll(k, 0), action)).value for k in shifts]).float()
    if not all(bool(t.isfinite().all()) for t in (s_x, s_y, matched, mismatched)):
        raise Diverged(
            "embeddings or energies of held-out samples are not finite, in evaluation mode",
            help="lower the learning rate; the last checkpoint is intact",
        )
    if model.cost is cosine:  # the length of an embedding means nothing to it: with weight decay it may shrink for ever
        s_x, s_y = (math.sqrt(s.shape[-1]) * F.normalize(s, dim=-1) for s in (s_x, s_y))
    branches = [s_y] if model.encoder_x is model.encoder_y else [s_x] if model.takes_y_as_it_is else [s_x, s_y]
    stds = [diagnostics.std_statistics(s) for s in branches]
    return Health(
        effective_rank=min(diagnostics.effective_rank(s) for s in branches),
        std_min=min(std.least for std in stds),
        std_mean=min(std.mean for std in stds),
        spread=min(diagnostics.relative_spread(s) for s in branches),
        energy_matched=float(matched.mean()),
        energy_mismatched=float(mismatched.mean()),
        energy_auroc=diagnostics.auroc(matched, mismatched),
        dim=branches[0].shape[-1],
    )


class Alarm(NamedTuple):
    """A collapse by name, what was seen, and what to do about it; one that is not `certain` is told once and stops nothing."""

    kind: str
    seen: str
    remedy: str
    certain: bool = True

    def __str__(self) -> str:
        return f"{self.kind} collapse: {self.seen}" if self.certain else f"warning: {self.seen}"


@dataclass
class CollapseWatch:
    """Judges the evaluations of a run in their order.

    Args:
        rows: samples in the fixed batch.
        values: numbers in one sample.
        fixed: y is taken as it is (the encoder of y has no weights). Nothing pulls the other branch to a point then, whatever it looks
            like: only an energy that ignores x is told, once, and stops nothing, for x may indeed tell nothing of y.
        shifts: mismatched pairs per sample.
        history: by kind, the values of the bad evaluations in a row; part of a checkpoint.
        largest_std: the largest mean standard deviation seen; part of a checkpoint.
        trail: progress, mean standard deviation and effective rank at each evaluation; part of a checkpoint.
        first_auroc: what the energy told at the first evaluation; part of a checkpoint.
        warned: whether it was said that it tells no more than then; part of a checkpoint.
    """

    rows: int
    values: int
    fixed: bool = False
    shifts: int = SHIFTS
    history: dict[str, list[float]] = field(default_factory=dict)
    largest_std: float = 0.0
    trail: list[tuple[float, float, float]] = field(default_factory=list)
    first_auroc: float | None = None
    warned: bool = False

    def attainable_rank(self, dim: int) -> int:
        """No effective rank can be more than samples, dimensions or, roughly, the numbers a sample consists of."""
        return min(self.rows - 1, dim, self.values)

    def rank_limit(self, dim: int) -> float:
        """Effective ranks below are a dimensional collapse if they do not rise; see `diagnostics.rank_limit`."""
        return diagnostics.rank_limit(self.attainable_rank(dim), dim)

    @property
    def auroc_error(self) -> float:
        """So much an AUROC may be off by chance: three standard errors."""
        n, m = self.rows, self.rows * min(self.shifts, self.rows - 1)
        return CHANCE_ERRORS * math.sqrt((n + m + 1) / (12 * n * m))

    @property
    def auroc_limit(self) -> float:
        """An AUROC below cannot be told from chance."""
        return 0.5 + self.auroc_error

    def observe(self, progress: float, health: Health) -> Alarm | None:
        """Takes in one evaluation.

        Args:
            progress: share of the run that is done.
            health: what it found.

        Returns:
            The collapse that is now certain, or once a warning that nothing was learned, or None.
        """
        if self.first_auroc is None:
            self.first_auroc = health.energy_auroc
        self.largest_std = max(self.largest_std, health.std_mean)
        self.trail.append((progress, health.std_mean, health.effective_rank))
        if self.rows < ROWS_NEEDED:
            return None
        if self.fixed:
            return self._ignored(progress, health)
        kind = lost(self.trail)
        near = progress < GRACE and health.effective_rank < NEAR * self.rank_limit(health.dim)
        sure = kind != "dimensional" or near
        if kind is not None and sure and lost(self.trail[:-1]) == kind:
            return self._alarm(kind, health)
        return self._by_level(progress, health) if progress >= GRACE else None

    def _by_level(self, progress: float, health: Health) -> Alarm | None:
        share = SHRUNK_UNSURE if health.energy_auroc < UNSURE else SHRUNK
        shrunk = health.std_mean < min(SMALL, share * self.largest_std)
        few = health.dim > 1 and health.effective_rank < self.rank_limit(health.dim)
        signs = {
            "constant": (health.spread < SPREAD or shrunk, health.std_mean),
            "dimensional": (few, health.effective_rank),
            "flat energy": (health.energy_auroc < self.auroc_limit, health.energy_auroc - 0.5),
        }
        lasts = [self._lasts(kind, bad, value) for kind, (bad, value) in signs.items()]
        if not any(lasts):
            return self._warning(progress, health)
        worst = next(kind for kind, (bad, _) in signs.items() if bad)  # what is constant has few dimensions, too
        return self._alarm(worst, health)

    def _lasts(self, kind: str, bad: bool, value: float) -> bool:
        seen = [*self.history.get(kind, []), value][-PATIENCE:] if bad else []
        self.history[kind] = seen
        return len(seen) == PATIENCE and seen[-1] <= max(seen[0], 0.0) * BETTER

    def _ignored(self, progress: float, health: Health) -> Alarm | None:
        """Half of the run is over and the energy of what is made of x is no lower for the y of this x than for others."""
        bad = progress >= LATE and health.energy_auroc < self.auroc_limit
        if not self._lasts("ignored", bad, health.energy_auroc - 0.5) or self.warned:
            return None
        self.warned = True
        return Alarm(
            "flat energy",
            f"the energy does not tell matched from mismatched pairs: AUROC {health.energy_auroc:.2f}, chance is 0.50",
            "train longer or raise the learning rate; it may also be that x tells nothing of y",
            certain=False,
        )

    def _warning(self, progress: float, health: Health) -> Alarm | None:
        """Half of the run is over and the energy tells no more than it did at first, and little."""
        assert self.first_auroc is not None
        auroc, before = health.energy_auroc, self.first_auroc
        bad = progress >= LATE and auroc < UNSURE and auroc < before + self.auroc_error
        if not self._lasts("nothing learned", bad, auroc - 0.5) or self.warned:
            return None
        self.warned = True
        return Alarm(
            "flat energy",
            f"the energy tells matched from mismatched pairs no better than when training began: AUROC {auroc:.2f}, then {before:.2f}",
            "look at the weights of the objective, raise the learning rate, or train longer; use views that share more",
            certain=False,
        )

    def _alarm(self, kind: str, health: Health) -> Alarm:
        match kind:
            case "constant":
                return Alarm(
                    kind,
                    f"all inputs get nearly the same embedding: its standard deviation is {health.std_mean:.2g}, it was "
                    f"{self.largest_std:.2g}, and its spread is {health.spread:.0%} of its length",
                    f"raise the weight of the variance (or SIGReg) term or lower the learning rate; {diagnostics.TEACHERS}",
                )
            case "dimensional":
                return Alarm(
                    kind,
                    f"the embedding uses about {health.effective_rank:.1f} of {self.attainable_rank(health.dim)} possible "
                    f"dimensions, it used {max(rank for *_, rank in self.trail):.1f}, and their number does not grow",
                    "raise the weight of the covariance (or SIGReg) term, use larger batches or a batch norm in the projector; "
                    f"{diagnostics.TEACHERS}",
                )
            case _:
                return Alarm(
                    kind,
                    f"the energy does not tell matched from mismatched pairs: AUROC {health.energy_auroc:.2f}, chance is 0.50",
                    "check that x and y of a pair belong together; use weaker augmentation or raise the weight of the invariance",
                )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        names = ("history", "largest_std", "trail", "first_auroc", "warned")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.history = {kind: list(values) for kind, values in state["history"].items()}
        self.largest_std = float(state["largest_std"])
        self.trail = [(then, std, rank) for then, std, rank in state.get("trail", [])]
        self.first_auroc = state.get("first_auroc")
        self.warned = bool(state.get("warned"))
