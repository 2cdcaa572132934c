r"""Latents that are choices: a learned code out of K, or m of them side by side ($K^m$ values), with a prior that may depend on x.

Dead codes are the named failure of such latents (van den Oord et al. 2017, arXiv:1711.00937): the minimum over z only teaches the
codes that win. What looks after them here can be switched on and off: `reseed`, an annealed temperature (`Enumerate`), and the
usage entropy (`accord.UsageEntropy`).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from accord.collective import all_reduce_sum
from accord.errors import UsageError
from accord.model.latent import Latent, Scheduled, counts, not_negative, positive

MOST = 4096
"""Products of more values than this are not enumerated."""
MEMORY = 0.98
"""Share of the usage that is kept from one batch to the next."""
WAIT = 20
"""Batches between two looks for dead codes."""
LAST = 0.8
"""Share of the training after which no code is replaced any more, so that all can settle."""


class Codebook(Latent, Scheduled):
    r"""z is one of K learned codes, or a row of `blocks` of them, each from a codebook of its own: $K^m$ values.

    Every value has the same price, 0. The capacity is $m \log K$ nats.

    Args:
        codes: K, codes in each block.
        dim: width of a code; z is `blocks` times as wide.
        blocks: m, how many choices z consists of.
        reseed: a code that is used less than this share of an equal share (1/K) is replaced by a neighbour of the most used
            code of its block, every 20 steps (by `Objective.before_step`); 0 switches it off.
        spread: standard deviation of the codes at the start.

    Raises:
        UsageError: for numbers that are out of bounds.
    """

    choice = True
    usage: Tensor
    seen: Tensor
    places: Tensor | None

    def __init__(self, codes: int, dim: int, *, blocks: int = 1, reseed: float = 0.1, spread: float = 1.0):
        super().__init__()
        counts(codes=codes, dim=dim, blocks=blocks)
        not_negative(reseed=reseed)
        positive(spread=spread)
        self.dim = blocks * dim
        self.reseed = reseed
        self.table = nn.Parameter(spread * torch.randn(blocks, codes, dim))
        self.register_buffer("usage", torch.full((blocks, codes), 1.0 / codes))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        few = blocks > 1 and codes**blocks <= MOST
        places = torch.cartesian_prod(*[torch.arange(codes)] * blocks) if few else None
        self.register_buffer("places", places, persistent=False)

    def extra_repr(self) -> str:
        """Shape in words."""
        blocks, codes, width = self.table.shape
        return f"{codes}, dim={width}, blocks={blocks}, reseed={self.reseed}"

    @property
    def capacity(self) -> float:
        """M log K."""
        return len(self.table) * math.log(self.table.shape[1])

    def price(self, z: Tensor, s_x: Tensor) -> Tensor:
        """0: all values are equally likely."""
        return self.usage.new_zeros(()).expand(z.shape[:-1])

    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Each block uniformly."""
        blocks, codes, _ = self.table.shape
        device = None if generator is None else generator.device
        index = torch.randint(codes, (*shape, blocks), generator=generator, device=device)
        return self.of(index.to(self.table.device)).detach()

    def candidates(self) -> Float[Tensor, "k latent"] | None:
        """All $K^m$ values if they are at most 4,096, the last block changing fastest; differentiable in the codes."""
        if len(self.table) == 1:
            return self.table[0] if self.table.shape[1] <= MOST else None
        return None if self.places is None else self.of(self.places)

    def blocks(self) -> Float[Tensor, "blocks codes width"]:
        """The codes of each block; differentiable."""
        return self.table

    def of(self, index: Int64[Tensor, "*shape blocks"]) -> Float[Tensor, "*shape latent"]:
        """The z of some choices; differentiable in the codes."""
        return torch.cat([codes[index[..., b]] for b, codes in enumerate(self.table)], dim=-1)

    def index(self, z: Float[Tensor, "*shape latent"]) -> Int64[Tensor, "*shape blocks"]:
        """Which code of each block is nearest."""
        parts = z.detach().unflatten(-1, self.table.shape[::2])
        return torch.stack([nearest(parts[..., b, :], codes.detach()) for b, codes in enumerate(self.table)], dim=-1)

    def project(self, z: Tensor) -> Tensor:
        """The nearest value; differentiable in the codes."""
        return self.of(self.index(z))

    @torch.no_grad()
    def observe(self, z: Tensor) -> None:
        """Keeps a running mean of how often each code is used, over all ranks."""
        index = self.index(z).reshape(-1, len(self.table))
        codes = self.table.shape[1]
        found = torch.stack([torch.bincount(column, minlength=codes) for column in index.T]).to(self.usage)
        found = all_reduce_sum(found)
        self.usage.lerp_(found / found.sum(1, keepdim=True).clamp_min(1), 1 - MEMORY)
        self.seen += 1

    @torch.no_grad()
    def before_step(self, progress: float) -> None:
        """Replaces dead codes."""
        if self.reseed == 0 or progress > LAST:
            return
        seen = int(self.seen)
        if seen == 0 or seen % WAIT:
            return
        generator = torch.Generator().manual_seed(seen)
        for codes, usage in zip(self.table, self.usage, strict=True):
            dead = usage < self.reseed / len(codes)
            least = 0.01 * codes.abs().mean().clamp_min(0.01)  # where all codes coincide
            scale = 0.1 * codes.std(0, unbiased=False).mean().clamp_min(least)
            near = codes[usage.argmax()] + scale * torch.randn(codes.shape, generator=generator).to(codes)
            codes.copy_(torch.where(dead[:, None], near, codes))
            usage.copy_(torch.where(dead, 1.0 / len(codes), usage))


class ConditionalPrior(Latent):
    r"""A codebook whose price depends on x: $r(z \mid s_x) = -\sum_b \log p_b(z_b \mid s_x)$, so it learns how frequent each mode is.

    The blocks are independent given x. By the envelope theorem the gradient of F in the prior is that of the negative log-likelihood
    of the inferred codes; the minimum pays `weight` energy per nat. Drawing from it gives codes as often as they occur with x.
    LeCun 2022, "A Path Towards Autonomous Machine Intelligence", section 4.5 (a regulariser that depends on s_x).

    Args:
        codebook: the codes.
        condition_dim: width of s_x.
        weight: energy of a nat.
        hidden: width of the hidden layer of the prior.

    Raises:
        UsageError: for numbers that are out of bounds.
    """

    choice = True

    def __init__(self, codebook: Codebook, condition_dim: int, *, weight: float = 0.1, hidden: int = 128):
        super().__init__()
        counts(condition_dim=condition_dim, hidden=hidden)
        not_negative(weight=weight)
        self.dim, self.weight = codebook.dim, weight
        self.codebook = codebook
        choices = codebook.table.shape[:2]
        self.net = nn.Sequential(
            nn.Linear(condition_dim, hidden), nn.GELU(), nn.Linear(hidden, choices.numel()), nn.Unflatten(-1, choices)
        )
        nn.init.zeros_(self.net[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[2].bias)  # type: ignore[arg-type]

    @property
    def capacity(self) -> float:
        """That of the codebook; the price makes the use of it smaller."""
        return self.codebook.capacity

    def log_probability(self, s_x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch blocks codes"]:
        """Log p of each code of each block."""
        logits: Tensor = self.net(s_x)
        return logits.log_softmax(-1)

    def price(self, z: Tensor, s_x: Tensor) -> Tensor:
        """-log p(z | s_x)."""
        log_p, index = self.log_probability(s_x), self.codebook.index(z)
        return -sum(_pick(log_p[..., b, :], index[..., b]) for b in range(log_p.shape[-2]))  # type: ignore[return-value]

    @torch.no_grad()
    def sample(self, shape: tuple[int, ...], s_x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Codes as often as the prior says (by the Gumbel trick)."""
        log_p = self.log_probability(s_x)
        device = log_p.device if generator is None else generator.device
        uniform = torch.rand(*shape, *log_p.shape[-2:], generator=generator, dtype=torch.float32, device=device)
        gumbel = -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
        return self.codebook.of((log_p + gumbel.to(log_p)).argmax(-1)).detach()

    def candidates(self) -> Tensor | None:
        """Those of the codebook."""
        return self.codebook.candidates()

    def blocks(self) -> Tensor:
        """Those of the codebook."""
        return self.codebook.blocks()

    def project(self, z: Tensor) -> Tensor:
        """As the codebook."""
        return self.codebook.project(z)

    def observe(self, z: Tensor) -> None:
        """Passed on to the codebook."""
        self.codebook.observe(z)


def _pick(log_p: Float[Tensor, "*batch codes"], index: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log_p at `index`, whose last axes are those of the batch, or 1."""
    batch = log_p.ndim - 1
    samples = index.shape[: index.ndim - batch]
    if index.numel() == samples.numel():  # the same codes for every x: one row of the table each, no copies
        rows = log_p.movedim(-1, 0)[index.reshape(-1)]
        return rows.view((*samples, *log_p.shape[:-1]))
    shape = torch.broadcast_shapes(index.shape, log_p.shape[:-1])
    return log_p.expand(*shape, log_p.shape[-1]).gather(-1, index.expand(shape)[..., None]).squeeze(-1)


def nearest(z: Float[Tensor, "*shape width"], codes: Float[Tensor, "codes width"]) -> Int64[Tensor, "*shape"]:
    """Number of the nearest code; the first of equals. Differences are not taken from a matrix product: a code finds itself."""
    far = torch.cdist(z.reshape(-1, z.shape[-1]).to(codes), codes, compute_mode="donot_use_mm_for_euclid_dist")
    return far.argmin(-1).view(z.shape[:-1])


def codebook_of(latent: Latent) -> Codebook:
    """The codes of a latent that is a choice.

    Raises:
        UsageError: if it is none.
    """
    if isinstance(latent, ConditionalPrior):
        return latent.codebook
    if not isinstance(latent, Codebook):
        raise UsageError(f"{type(latent).__name__} has no codes", help="use Codebook or ConditionalPrior")
    return latent
