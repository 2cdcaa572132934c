r"""Sources that need no files and whose y is not a function of x: several outcomes are right, and they are known exactly.

| name      | x                                    | y                                                                    |
|-----------|--------------------------------------|----------------------------------------------------------------------|
| `forks`   | a point of the square [-1, 1]^d      | m independent binary branches: 2^m outcomes in 2m dimensions          |
| `ellipse` | a number in [0, 1]                   | a point on an ellipse whose axes depend on x                          |
| `torus`   | m numbers in [-1, 1]                 | m points on circles whose radii depend on x                           |
| `jump`    | a digit in the middle of a strip     | the same digit at its left or its right end                           |

A name may carry parameters, "forks:m=4,noise=0.1"; every value is a pure function of them, `seed` among them. Vectors have columns
x0, x1, ... and y0, y1, ..., which the pairing `columns` tells apart by their names.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from accord.data.digits import digits
from accord.data.encoded import Options
from accord.data.pixels import pixel_samples
from accord.data.policy import Policy
from accord.data.samples import RowKeys, Samples, hash_rows
from accord.data.vectors import Labels, vector_samples
from accord.errors import UsageError

MOST = 10_000_000
"""Numbers in a source, at most."""
NEAR = 0.25
"""By default a prediction within this distance of an outcome, in each branch, is that outcome."""


@dataclass(frozen=True, kw_only=True)
class Forks:
    r"""m independent binary branches given x: branch j ends in $f_{j,b}(x) = c_j(x) + (2b - 1)\,u_j(x)$, b = 0 or 1, plus noise.

    The middle $c_j(x) = \frac12 \sin(W_j x + p_j)$ and the direction $u_j(x)$, a unit vector at the angle $w_j \cdot x + a_j$, are
    smooth functions of x with coefficients drawn once. The two ends of a branch are exactly 2 apart, and their mean, the best a
    deterministic predictor can say, is at distance 1 of both.

    Args:
        m: branches.
        n: samples of the source.
        d: dimensions of x.
        noise: standard deviation of what is added to every coordinate of y.
        p: how often b is 1.
        seed: of functions and samples.
    """

    m: int = 6
    n: int = 4096
    d: int = 2
    noise: float = 0.05
    p: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _bound("forks", self, m=(1, 20), n=(2, MOST), d=(1, 64), noise=(0.0, 1.0), p=(0.0, 1.0), seed=(0, 2**31))

    def sample(self) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n twice_m"], Int[np.ndarray, "n m"]]:
        """Points x, uniform in [-1, 1]^d, outcomes y, and which end b each branch has."""
        rng = _rng("forks sample", self.seed)
        x = rng.uniform(-1, 1, (self.n, self.d))
        b = (rng.random((self.n, self.m)) < self.p).astype(np.int64)
        y = np.take_along_axis(self.modes(x), b[:, :, None, None], axis=2)[:, :, 0]
        y = y + self.noise * rng.standard_normal(y.shape)
        return x, y.reshape(self.n, -1), b

    def modes(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m two two"]:
        """Both ends of every branch without noise: (n, branch, end, coordinate)."""
        middle, direction = self._branches(np.asarray(x, np.float64))
        return np.stack([middle - direction, middle + direction], axis=2)

    def average(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n twice_m"]:
        """The mean of all 2^m outcomes (at p = 1/2), which is itself no outcome."""
        return self._branches(np.asarray(x, np.float64))[0].reshape(len(x), -1)

    def outcomes(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n modes twice_m"]:
        """All 2^m outcomes without noise; outcome k has the binary digits of k as its branches, branch 0 the lowest.

        Raises:
            UsageError: for more than 16 branches.
        """
        if self.m > 16:
            raise UsageError(f"2^{self.m} outcomes are too many to list", help="use modes(x), or m of at most 16")
        bits = np.arange(2**self.m)[:, None] >> np.arange(self.m) & 1
        ends = self.modes(x)[:, np.arange(self.m), bits]
        return ends.reshape(len(x), 2**self.m, -1)

    def impossible(
        self, x: Float[np.ndarray, "n d"], b: Int[np.ndarray, "n m"], *, kind: str = "other", seed: int = 0
    ) -> Float[np.ndarray, "n twice_m"]:
        """Outcomes like those of `b`, without noise, but with one branch, at random, that cannot be.

        Args:
            x: of each outcome.
            b: the ends of its branches.
            kind: "other": the branch is that of another x, of 16 at random the first whose end is more than `NEAR` from both
                ends here (or the farthest); "half": the branch stops in the middle between its ends.
            seed: of the choices.

        Raises:
            UsageError: for another kind.
        """
        if kind not in ("other", "half"):
            raise UsageError(f"kind = {kind!r}", help="give 'other' or 'half'")
        rng, rows = _rng("forks impossible", seed), np.arange(len(x))
        ends, branch = self.modes(x), rng.integers(self.m, size=len(x))
        y = np.take_along_axis(ends, b[:, :, None, None], axis=2)[:, :, 0]
        here = ends[rows, branch]
        wrong = here.mean(1)
        if kind == "other":
            others = rng.integers(len(x), size=(len(x), 16))
            far = ends[others, branch[:, None], b[rows, branch][:, None]]
            distance = np.linalg.norm(far[:, :, None] - here[:, None], axis=-1).min(-1)
            chosen = np.where((distance > NEAR).any(1), (distance > NEAR).argmax(1), distance.argmax(1))
            wrong = far[rows, chosen]
        y[rows, branch] = wrong
        return y.reshape(len(x), -1)

    def score(
        self, x: Float[np.ndarray, "n d"], predictions: Float[np.ndarray, "n k twice_m"], *, delta: float = NEAR
    ) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """Coverage and precision of k predictions for each x.

        A prediction is right if every branch of it is within `delta` of one of its ends. Coverage is the share of the 2^m
        outcomes that some prediction is right about; precision is the share of the predictions that are right. Judged branch
        by branch, so that 2^m outcomes are never listed.

        Raises:
            UsageError: unless 0 < delta < 1, so that no point is near two ends.
        """
        if not 0 < delta < 1:
            raise UsageError(f"delta = {delta}: the ends of a branch are 2 apart", help="give a number between 0 and 1")
        points = np.asarray(predictions).reshape(len(x), -1, self.m, 1, 2)
        distance = np.linalg.norm(points - self.modes(x)[:, None], axis=-1)
        right = (distance.min(-1) <= delta).all(-1)
        which = (distance.argmin(-1) << np.arange(self.m)).sum(-1)
        found = [len(np.unique(row[good])) for row, good in zip(which, right, strict=True)]
        return np.array(found) / 2**self.m, right.mean(1)

    def _branches(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Middles and unit directions, (n, branch, coordinate) each."""
        rng = _rng("forks functions", self.seed)
        weights = rng.normal(0, 1.5, (self.m, 2, self.d))
        phase = rng.uniform(0, 2 * math.pi, (self.m, 2))
        turn, start = rng.normal(0, 1.0, (self.m, self.d)), rng.uniform(0, 2 * math.pi, self.m)
        angle = x @ turn.T + start
        middle = 0.5 * np.sin(np.einsum("jcd,nd->njc", weights, x) + phase)
        return middle, np.stack([np.cos(angle), np.sin(angle)], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Ellipse:
    r"""A point on an ellipse, $y = (\rho_1(x) \cos\theta, \rho_2(x) \sin\theta) + \epsilon$.

    Its semi-axes are $\rho(x) = (\alpha x + \beta(1 - x),\; \beta x + \alpha(1 - x))\,e^{2x}$.
    x is uniform in [0, 1], theta in [0, 2 pi). The running example of LeCun, Canziani, "Deep Learning", NYU 2021, week 15.

    Args:
        n: samples of the source.
        alpha: of the formula.
        beta: of the formula.
        noise: standard deviation of epsilon.
        seed: of the samples.
    """

    n: int = 4096
    alpha: float = 1.5
    beta: float = 2.0
    noise: float = 1 / 20
    seed: int = 0

    def __post_init__(self) -> None:
        _bound(
            "ellipse", self, n=(2, MOST), alpha=(0.01, 100.0), beta=(0.01, 100.0), noise=(0.0, 10.0), seed=(0, 2**31)
        )

    def radii(self, x: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n two"]:
        """Semi-axes of the ellipse of each x."""
        x = np.asarray(x, np.float64)
        first, second = self.alpha * x + self.beta * (1 - x), self.beta * x + self.alpha * (1 - x)
        found: np.ndarray = np.stack([first, second], axis=-1) * np.exp(2 * x)[..., None]
        return found

    def points(self, x: Float[np.ndarray, "n"], theta: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n two"]:
        """Where y is without noise."""
        found: np.ndarray = self.radii(x) * np.stack([np.cos(theta), np.sin(theta)], axis=-1)
        return found

    def sample(self) -> tuple[Float[np.ndarray, "n one"], Float[np.ndarray, "n two"], Float[np.ndarray, "n"]]:
        """x, y and theta."""
        rng = _rng("ellipse sample", self.seed)
        x, theta = rng.random(self.n), rng.uniform(0, 2 * math.pi, self.n)
        y = self.points(x, theta) + self.noise * rng.standard_normal((self.n, 2))
        return x[:, None], y, theta


@dataclass(frozen=True, kw_only=True)
class Torus:
    r"""m points on circles, $y_j = (1 + s\,x_j)(\cos\theta_j, \sin\theta_j) + \epsilon$: the torus T^m in 2m dimensions.

    x is uniform in [-1, 1]^m and tells the radii, nothing of the angles. With `spread` s = 0 it tells nothing at all, and y is
    unconditional (x is drawn all the same, for a constant has no embedding): a model of the pair then has a flat energy, rightly.

    Args:
        m: circles.
        n: samples of the source.
        spread: s, by how much x changes a radius.
        noise: standard deviation of epsilon.
        seed: of the samples.
    """

    m: int = 2
    n: int = 4096
    spread: float = 0.5
    noise: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        _bound("torus", self, m=(1, 64), n=(2, MOST), spread=(0.0, 0.9), noise=(0.0, 1.0), seed=(0, 2**31))

    def points(self, x: Float[np.ndarray, "n m"], theta: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n twice_m"]:
        """Where y is without noise."""
        circle = np.stack([np.cos(theta), np.sin(theta)], axis=-1)
        found: np.ndarray = (1 + self.spread * np.asarray(x))[..., None] * circle
        return found.reshape(len(circle), -1)

    def sample(self) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n twice_m"], Float[np.ndarray, "n m"]]:
        """x, y and theta."""
        rng = _rng("torus sample", self.seed)
        x, theta = rng.uniform(-1, 1, (self.n, self.m)), rng.uniform(0, 2 * math.pi, (self.n, self.m))
        y = self.points(x, theta) + self.noise * rng.standard_normal((self.n, 2 * self.m))
        return x, y, theta


@dataclass(frozen=True, kw_only=True)
class Jump:
    """A digit in the middle of a strip of 8 x 16 pixels, and the same digit at its left or its right end; labels are its class.

    Both strips are one image of 16 x 16: x above, y below. The two outcomes of one digit count as one content: they are never
    divided between training and held-out samples, nor taken for a mismatch.

    Args:
        both: 1: two samples for each of the 1,797 digits, first to the left, then to the right; 0: one, at random.
        seed: of the choice.
    """

    both: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _bound("jump", self, both=(0, 1), seed=(0, 2**31))

    def sample(self) -> tuple[np.ndarray, Labels, Int[np.ndarray, "n"]]:
        """Images (n, 1, 16, 16) uint8, labels, and the side: 0 left, 1 right."""
        pixels, labels = digits()
        n = len(pixels)
        side = np.tile([0, 1], n) if self.both else _rng("jump sample", self.seed).integers(2, size=n)
        which = np.repeat(np.arange(n), 2) if self.both else np.arange(n)
        images = np.zeros((len(which), 1, 16, 16), np.uint8)
        images[:, :, :8, 4:12] = pixels[which]
        for end in (0, 1):
            images[side == end, :, 8:, 8 * end : 8 * end + 8] = pixels[which[side == end]]
        return images, Labels(labels.labels[which], labels.classes), side


KINDS: Mapping[str, Callable[..., Forks | Ellipse | Torus | Jump]] = {
    "forks": Forks,
    "ellipse": Ellipse,
    "torus": Torus,
    "jump": Jump,
}


def kind_of(name: str) -> str | None:
    """The name without parameters, "forks" of "forks:m=4"; None for what is no synthetic source."""
    head = name.partition(":")[0]
    return head if head in KINDS else None


def parse(name: str) -> Forks | Ellipse | Torus | Jump:
    """The source a name stands for.

    Raises:
        UsageError: for a parameter that is unknown (with the closest known one), malformed or out of bounds.

    >>> parse("forks:m=2,n=16").m
    2
    """
    head, colon, text = name.partition(":")
    kind = KINDS[head]
    defaults = kind()
    known: dict[str, type[Any]] = {field.name: type(getattr(defaults, field.name)) for field in fields(defaults)}
    values: dict[str, Any] = {}
    for part in text.split(",") if colon else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise _refused(name, f"{head} has no parameter {key!r}", f"{hint}known: {', '.join(known)}")
        if not equals or key in values:
            raise _refused(
                name, f"{key} is given {'twice' if key in values else 'no value'}", f"write {key}=VALUE once"
            )
        try:
            values[key] = known[key](value)
        except ValueError:
            what = "a whole number" if known[key] is int else "a number"
            raise _refused(
                name, f"{key} = {value!r}: expected {what}", f"for example {key}={getattr(defaults, key)}"
            ) from None
    return kind(**values)


def open_synthetic(name: str, options: Options, policy: Policy) -> Samples:
    """The samples of a synthetic source. Raises what `parse` raises."""
    source = parse(name)
    if isinstance(source, Jump):
        images, labels, _ = source.sample()
        samples = pixel_samples(name, images, RowKeys([len(images)]), labels, [], options, policy)
        samples.content = hash_rows(images[:, :, :8])  # the digit: both of its outcomes are right
        return samples
    x, y, _ = source.sample()
    names = [f"x{i}" for i in range(x.shape[1])] + [f"y{i}" for i in range(y.shape[1])]
    return vector_samples(name, np.concatenate([x, y], axis=1), policy, features=names)


def _rng(purpose: str, seed: int) -> np.random.Generator:
    """Random numbers of their own for each purpose and seed."""
    return np.random.default_rng([seed, *purpose.encode()])


def _bound(source: str, values: object, **bounds: tuple[float, float]) -> None:
    for name, (low, high) in bounds.items():
        value = getattr(values, name)
        whole = isinstance(low, int)
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            what = "a whole number" if whole else "a number"
            raise _refused(source, f"{name} = {value!r} is out of bounds", f"give {what} from {low:g} to {high:g}")


def _refused(where: str, message: str, help: str) -> UsageError:
    return UsageError(message, where=where, help=help, code="E226")
