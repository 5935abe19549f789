"""A scaling law of held-out loss in size, tokens and sparsity, and how well runs determine it.

Decisions. The form is Chinchilla's (Hoffmann et al. 2022, arXiv 2203.15556, section 3.3) with a
size that sparsity shrinks: L = E + A / (N (1 - s)^gamma)^alpha + B / D^beta. It is the joint law of
Frantar et al. 2023 (arXiv 2309.08520, eq. 1) without its constant c_S, which few runs cannot tell
from E. They count the parameters that are kept, here N are those of the dense shape: gamma is their
1 - b_S / b_N. They pruned gradually; whether a mask that never changes obeys the same form is for
the held-out errors to say. Tokens count as if each were new.

The fit is Hoffmann's: Huber's loss of the difference of logarithms, from many starts. Their width
of 0.001 would make nearly every run here an outlier, whose seeds alone differ by ten times that;
ours is `NOISE`. Residuals are divided by it, so that the solver does not stop early, as Besiroglu
et al. 2024 (arXiv 2404.10102) found that Chinchilla's own had. Intervals draw whole groups of one
size and sparsity, then runs of a group: what is wrong with a group, its learning rate or the form
itself, is wrong with all its runs. Refused: a law that the runs cannot identify.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from numbers import Real
from typing import Any

import numpy as np

from mediswift.stats import central

NOISE = 0.01
"""Difference of log losses up to which it counts squared, above it linearly: Huber's width."""
AMOUNTS = (1e-3, 30.0)
"""Least and most nats that a term of the law may have at the runs' mean size and tokens."""
EXPONENTS = (0.01, 5.0)
"""Least and largest alpha and beta that are searched."""
REMOVED = (-3.0, 3.0)
"""Least and largest alpha * gamma: with it the size's term grows as (1 - s) falls."""
STARTS = list(product((0.1, 0.3, 1.0, 3.0), (0.1, 0.3, 1.0, 3.0), (-0.1, 0.1, 0.3, 1.0)))
"""Alpha, beta and alpha * gamma that fits may start from."""
FOLLOWED = 2
"""How many of the starts, the best ones, are followed to their minimum."""
FREE = ("e", "a", "b", "alpha", "beta", "gamma")
"""Coefficients in the order of the free numbers of a fit."""
NUMBERS = ("n", "tokens", "sparsity", "loss")
GIVE_UP = 200
"""Draws in vain, for each that is wanted, after which a bootstrap stops."""

Row = Mapping[str, Any]
"""A run: `n` (non-embedding parameters of its dense shape), `tokens`, `sparsity`, `loss` (nats)."""


@dataclass(frozen=True)
class Law:
    """Held-out loss as E + A / (N (1 - s)^gamma)^alpha + B / D^beta, in nats a token.

    >>> chinchilla = Law(e=1.69, a=406.4, alpha=0.34, b=410.7, beta=0.28, gamma=0.5)
    >>> round(chinchilla.loss(70e9, 1.4e12), 3)
    1.937
    """

    e: float
    """Nats a token that no model takes away, E."""
    a: float
    """What a model of finite size costs, A."""
    alpha: float
    """How fast that falls with size."""
    b: float
    """What finite text costs, B."""
    beta: float
    """How fast that falls with tokens."""
    gamma: float
    """0: removed weights cost nothing; 1: all that they are; below 0, removing them helps."""
    at_limit: tuple[str, ...] = field(default=(), compare=False)
    """Coefficients that stopped where the search ends: the runs say no more than "beyond"."""

    def loss(self, n: Any, tokens: Any, sparsity: Any = 0.0) -> Any:
        """Nats a token at `n` parameters of the dense shape; arrays give an array."""
        size_term = self.a / self.dense_size(n, sparsity) ** self.alpha
        return self.e + size_term + self.b / tokens**self.beta

    def dense_size(self, n: Any, sparsity: Any) -> Any:
        """Parameters of the dense model that is as good as one of `n` without `sparsity` of them.

        >>> Law(1.69, 406.4, 0.34, 410.7, 0.28, gamma=0.5).dense_size(4e6, 0.75)
        2000000.0
        """
        return n * (1 - sparsity) ** self.gamma


def fit(rows: Iterable[Row]) -> Law:
    """Law through runs, whatever their order.

    Raises ValueError for rows that cannot be, and for runs that cannot identify its coefficients.
    """
    runs = _Runs.of(rows)
    if not runs.identified:
        raise ValueError(
            "six coefficients need six different points (size, tokens, sparsity) or more, in them "
            "three numbers of tokens and four pairs of size and sparsity, of two sizes and two "
            f"sparsities; got {runs}; add runs of what is missing"
        )
    return runs.law()


def held_out(rows: Iterable[Row]) -> list[float | None]:
    """Loss of each run by the law through all other groups, in the order of `rows`.

    A group is a size and sparsity, whatever its tokens and seeds; None where the others do not
    identify a law.
    """
    rows = list(rows)
    groups = dict.fromkeys(map(group, rows))
    laws = {own: _law_or_none(row for row in rows if group(row) != own) for own in groups}
    return [None if (law := laws[group(row)]) is None else loss_by(law, row) for row in rows]


def loss_by(law: Law, row: Row) -> float:
    """Nats a token that `law` gives to a run."""
    return float(law.loss(row["n"], row["tokens"], row["sparsity"]))


@dataclass(frozen=True)
class Draws:
    """Laws through resamples of the same runs."""

    laws: tuple[Law, ...]
    failed: int
    """Resamples beside them that could not identify a law."""

    def interval(self, value: Callable[[Law], float], level: float = 0.95) -> tuple[float, float]:
        """(low, high): the middle `level` of `value` over the laws."""
        return central([value(law) for law in self.laws], level)


def bootstrap(rows: Iterable[Row], draws: int = 400, seed: int = 0) -> Draws:
    """Laws through `draws` resamples: groups with replacement, in them runs with replacement.

    Source: Davison and Hinkley 1997, section 3.8. A resample that cannot identify a law is drawn
    again, and counted: those left out know least, so the intervals are rather too narrow. Raises
    ValueError when the runs themselves cannot, or almost no resample.
    """
    rows = list(rows)
    fit(rows)  # its message says what is missing
    if draws < 2:
        raise ValueError(f"an interval needs two draws or more, got {draws}; take 400")
    laws: list[Law] = []
    failed, resamples = 0, _resamples(rows, seed)
    while len(laws) < draws:
        law = _law_or_none(next(resamples))
        laws += [law] if law else []
        failed += not law
        if failed > GIVE_UP * draws:
            raise ValueError(
                f"intervals need resamples that identify a law, got {len(laws)} of "
                f"{len(laws) + failed}; add sizes, sparsities or seeds"
            )
    return Draws(tuple(laws), failed)


def _resamples(rows: Iterable[Row], seed: int) -> Iterator[list[Row]]:
    groups: dict[tuple, list[Row]] = {}
    for row in sorted(rows, key=_numbers):
        groups.setdefault(group(row), []).append(row)
    rng, kept = np.random.default_rng(seed), list(groups.values())
    while True:
        chosen = [kept[i] for i in rng.integers(len(kept), size=len(kept))]
        yield [own[i] for own in chosen for i in rng.integers(len(own), size=len(own))]


def _law_or_none(rows: Iterable[Row]) -> Law | None:
    runs = _Runs.of(rows)
    return runs.law() if runs.identified else None


def group(row: Row) -> tuple[float, float]:
    """Size and sparsity of a run: what is left out, and drawn, together."""
    return row["n"], row["sparsity"]


def _numbers(row: Row) -> tuple[float, ...]:
    values = [row.get(name) for name in NUMBERS]
    if all(isinstance(value, Real) and math.isfinite(value) for value in values):
        n, tokens, sparsity, loss = map(float, values)
        if min(n, tokens, loss) > 0 and 0 <= sparsity < 1:
            return n, tokens, sparsity, loss
    raise ValueError(
        "a run has n, tokens and loss above zero and a sparsity in [0, 1), got "
        f"{dict(zip(NUMBERS, values, strict=True))}; leave it out, or run it again"
    )


@dataclass(frozen=True)
class _Runs:
    """R runs as columns; a law as six free numbers: logs of five, and alpha * gamma.

    The logs are of E, of both terms at the runs' mean size and tokens, of alpha and of beta. So
    the solver sees numbers of one magnitude, and all but gamma, whose sign is open, stay positive.
    """

    table: np.ndarray
    """(R, 4): n, tokens, sparsity, loss, in ascending order."""

    @classmethod
    def of(cls, rows: Iterable[Row]) -> _Runs:
        return cls(np.array(sorted(map(_numbers, rows))).reshape(-1, 4))

    def __str__(self) -> str:
        n, tokens, sparsity, _ = self.table.T
        points, pairs = {*zip(n, tokens, sparsity, strict=True)}, {*zip(n, sparsity, strict=True)}
        return (
            f"{len(points)} points with {len(set(tokens))} numbers of tokens and {len(pairs)} "
            f"pairs, of {len(set(n))} sizes and {len(set(sparsity))} sparsities"
        )

    @cached_property
    def means(self) -> np.ndarray:
        """Geometric means of n and tokens."""
        return np.exp(np.log(self.table[:, :2]).mean(0))

    @cached_property
    def logs(self) -> np.ndarray:
        """(3, R): log of n and of tokens, each over its mean, and of the share that is kept."""
        size, tokens = np.log(self.table[:, :2] / self.means).T
        return np.stack([size, tokens, np.log1p(-self.table[:, 2])])

    @property
    def identified(self) -> bool:
        """Whether six coefficients can be told apart, at a law that is nothing special."""
        if len(self.table) < 6:
            return False
        ordinary = np.array([math.log(2.0), 0.0, 0.0, math.log(0.35), math.log(0.3), 0.15])
        return bool(np.linalg.matrix_rank(self.slopes(ordinary), rtol=1e-6) == 6)

    def law(self) -> Law:
        """Law of least loss over the starts that are followed."""
        from scipy.optimize import least_squares

        lows, highs = np.transpose([*np.log([AMOUNTS] * 3 + [EXPONENTS] * 2), REMOVED])
        ends = [
            least_squares(self.off, start, self.steepness, (lows, highs), loss="huber")
            for start in self.starts()
        ]
        best = min(ends, key=lambda end: end.cost).x
        e, a, b, alpha, beta = map(float, np.exp(best[:5]))
        size, tokens = map(float, self.means)
        # the solver stays a little inside its bounds
        near = np.minimum(best - lows, highs - best) < 0.01
        limits = tuple(name for name, at in zip(FREE, near, strict=True) if at)
        coefficients = e, a * size**alpha, alpha, b * tokens**beta, beta, float(best[5]) / alpha
        return Law(*coefficients, at_limit=limits)

    def starts(self) -> list[np.ndarray]:
        """Best of `STARTS`: E, A and B come linearly with the exponents, so they need no start.

        Source: variable projection, Golub and Pereyra 1973.
        """
        from scipy.optimize import nnls

        loss, found = self.table[:, 3], []
        for alpha, beta, removed in STARTS:
            amounts, off = nnls(
                self.basis(alpha, beta, removed) / loss[:, None], np.ones(len(loss))
            )
            inside = np.clip(amounts, 2 * AMOUNTS[0], AMOUNTS[1] / 2)
            found.append((off, [*np.log([*inside, alpha, beta]), removed]))
        return [np.array(start) for _, start in sorted(found)[:FOLLOWED]]

    def basis(self, alpha: float, beta: float, removed: float) -> np.ndarray:
        """(R, 3): what E and both terms at the means are multiplied by."""
        size, tokens, kept = self.logs
        terms = [0 * size, -alpha * size - removed * kept, -beta * tokens]
        return np.exp(np.stack(terms, axis=1))

    def off(self, free: np.ndarray) -> np.ndarray:
        """(R,): log of predicted over measured loss, in units of `NOISE`."""
        amounts, (alpha, beta) = np.exp(free[:3]), np.exp(free[3:5])
        return np.log(self.basis(alpha, beta, free[5]) @ amounts / self.table[:, 3]) / NOISE

    def slopes(self, free: np.ndarray) -> np.ndarray:
        """(R, 6): derivatives of the log of the predicted loss."""
        amounts, (alpha, beta) = np.exp(free[:3]), np.exp(free[3:5])
        terms = self.basis(alpha, beta, free[5]) * amounts
        size, tokens, kept = self.logs
        others = [-alpha * size * terms[:, 1], -beta * tokens * terms[:, 2], -kept * terms[:, 1]]
        return np.column_stack([terms, *others]) / terms.sum(1, keepdims=True)

    def steepness(self, free: np.ndarray) -> np.ndarray:
        """(R, 6): derivatives of `off`."""
        return self.slopes(free) / NOISE
