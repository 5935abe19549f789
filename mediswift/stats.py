"""Intervals, paired tests and means over seeds: how sure a score is.

Decisions. Numpy and the standard library only, so a page that reads records needs no SciPy. A
share gets Wilson's interval (the normal one leaves [0, 1] and is too short near its ends). Two
models on the same questions are compared question by question: a paired bootstrap for the size of
the difference, McNemar's exact test for its p value. Macro-F1 averages the classes that occur among
labels or predictions, as scikit-learn and PubMedQA's own script do. Refused: stars for
significance, a default "winner", and intervals from one seed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

SIGNIFICANCE = 0.05
"""Below this p value a difference is called distinguishable."""


def wilson(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """(low, high), Wilson's score interval for the share `correct` / `n`, both in [0, 1].

    Source: Wilson 1927; Newcombe 1998, method 3. Raises ValueError unless 0 <= correct <= n > 0.

    >>> [round(x, 4) for x in wilson(81, 263)]
    [0.2553, 0.3662]
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(
            f"A share needs 0 <= correct <= n and n >= 1, got correct={correct}, n={n}; "
            "count the answers again, or score at least one."
        )
    z, share = NormalDist().inv_cdf((1 + level) / 2), correct / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the exact bound is 0 or 1; rounding must not put it a hair outside.
    return max(0.0, center - half), min(1.0, center + half)


def confusion(
    labels: Sequence[str], predictions: Sequence[str], classes: Sequence[str]
) -> np.ndarray:
    """Counts of shape (classes, classes): row = label, column = prediction.

    Raises ValueError when the lengths differ, nothing is given, or a value is not among `classes`.

    >>> confusion(["yes", "no"], ["yes", "yes"], ["yes", "no"]).tolist()
    [[1, 0], [1, 0]]
    """
    _check_pairs(labels, predictions)
    index = {name: i for i, name in enumerate(classes)}
    if unknown := (set(labels) | set(predictions)) - set(index):
        raise ValueError(
            f"Every label must be one of {list(classes)}, got {sorted(map(str, unknown))}; "
            "name all classes."
        )
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, ([index[y] for y in labels], [index[p] for p in predictions]), 1)
    return counts


def recall(labels: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """{class: share of its items that were predicted so}, for each class among the labels, sorted.

    >>> recall(["yes", "yes", "no"], ["yes", "no", "no"])
    {'no': 1.0, 'yes': 0.5}
    """
    classes = _classes(labels, predictions)
    counts = confusion(labels, predictions, classes)
    rows = zip(classes, counts, strict=True)
    return {c: float(row[i] / row.sum()) for i, (c, row) in enumerate(rows) if row.sum()}


def macro_f1(labels: Sequence[str], predictions: Sequence[str]) -> float:
    """The mean over classes of F1 = 2 hits / (labeled + predicted), in [0, 1].

    Classes are those that occur on either side (scikit-learn's `f1_score(average="macro")`).

    >>> round(macro_f1(["yes", "no"], ["yes", "yes"]), 3)  # the mean of 2/3 and 0
    0.333
    """
    counts = confusion(labels, predictions, _classes(labels, predictions))
    return float(np.mean(2 * counts.diagonal() / (counts.sum(0) + counts.sum(1))))


def bootstrap(
    statistic: Callable[..., float],
    *columns: Sequence,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """(low, high), the percentile bootstrap interval of `statistic(*columns)`, rows drawn together.

    >>> bootstrap(macro_f1, ["yes", "no", "no"], ["yes", "no", "yes"], seed=0)
    (0.0, 1.0)
    """
    for column in columns[1:]:
        _check_pairs(columns[0], column)
    arrays, rng = [np.asarray(column) for column in columns], np.random.default_rng(seed)
    draws = rng.integers(len(arrays[0]), size=(resamples, len(arrays[0])))
    return central([statistic(*(a[rows] for a in arrays)) for rows in draws], level)


def crossed_bootstrap(
    correct: Sequence[Sequence[bool]], seed: int = 0, resamples: int = 4000, level: float = 0.95
) -> tuple[float, float]:
    """(low, high), bootstrap interval of the mean accuracy of runs on the same questions.

    `correct` is (runs, questions). Runs and questions are drawn with replacement, each for itself
    (Owen 2007), so the interval holds for other seeds and for other questions; of one run, for
    other questions only. Raises ValueError when rows differ in length or nothing is given.

    >>> crossed_bootstrap([[True, True], [True, True]])
    (1.0, 1.0)
    """
    _check_pairs(correct, correct)
    for row in correct:
        _check_pairs(correct[0], row)
    shares, rng = np.array(correct, dtype=float), np.random.default_rng(seed)
    runs, questions = shares.shape
    kept = [rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n for n in (runs, questions)]
    return central(np.einsum("br,rq,bq->b", kept[0], shares, kept[1], optimize=True), level)


@dataclass(frozen=True)
class Difference:
    """Accuracy of a minus that of b on the same n questions, in [-1, 1]; prints in points."""

    difference: float
    low: float
    high: float
    p: float
    """McNemar's exact two-sided p value."""
    n: int

    @property
    def distinguishable(self) -> bool:
        """True when p < 0.05."""
        return self.p < SIGNIFICANCE

    def __str__(self) -> str:
        """Print one line: points, 95 % interval, p, verdict."""
        points, low, high = (f"{100 * x:+.1f}" for x in (self.difference, self.low, self.high))
        p = "< 0.001" if self.p < 0.001 else f"= {self.p:.{3 if self.p < 0.1 else 2}f}"
        verdict = "distinguishable" if self.distinguishable else "not distinguishable"
        return f"{points} points [{low}, {high}], McNemar p {p}: {verdict}"


def paired_difference(
    a_correct: Sequence[bool],
    b_correct: Sequence[bool],
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Difference:
    """The Difference of two models that answered the same questions in the same order.

    Raises ValueError when the lengths differ or nothing is given.

    >>> print(paired_difference([True] * 15 + [False] * 5, [False] * 15 + [True] * 5))
    +50.0 points [+10.0, +80.0], McNemar p = 0.041: distinguishable
    """
    _check_pairs(a_correct, b_correct)
    a, b = np.asarray(a_correct, dtype=bool), np.asarray(b_correct, dtype=bool)
    n, wins, losses = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    # Each question adds +1, -1 or 0, so drawing n of them with replacement is one multinomial draw.
    shares = np.array([wins, losses, n - wins - losses]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    low, high = central((draws[:, 0] - draws[:, 1]) / n, level)
    return Difference((wins - losses) / n, low, high, _mcnemar(wins, losses), n)


@dataclass(frozen=True)
class OverSeeds:
    """Mean, standard error and t-interval over n runs that differ in seed, or fold, only."""

    mean: float
    standard_error: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Print one line; a lone run says that it has no interval."""
        if self.n == 1:
            return f"{self.mean:.4g} (n = 1 run: no interval)"
        interval = f"[{self.low:.4g}, {self.high:.4g}]"
        return f"{self.mean:.4g} {interval} (s.e. {self.standard_error:.2g}, n = {self.n} runs)"


def over_seeds(values: Sequence[float], level: float = 0.95) -> OverSeeds:
    """The mean of `values`, its standard error and Student's t-interval (NaN for a lone value).

    Raises ValueError when nothing is given or a value is not finite: no failed run is left out
    silently.

    >>> print(over_seeds([1.0, 2.0, 3.0]))
    2 [-0.4841, 4.484] (s.e. 0.58, n = 3 runs)
    """
    array = np.asarray(values, dtype=float)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(
            f"A mean over seeds needs one finite value or more, got {array.tolist()}; "
            "run the missing seeds again, or name the ones to keep."
        )
    n, mean = array.size, float(array.mean())
    if n == 1:
        return OverSeeds(mean, math.nan, math.nan, math.nan, 1)
    error = float(array.std(ddof=1)) / math.sqrt(n)
    half = student_t(n - 1, level) * error
    return OverSeeds(mean, error, mean - half, mean + half, n)


def above(own: Mapping[int, float], theirs: Mapping[int, float]) -> dict[str, float | None]:
    """How far the values of `own`, one a seed, lie above those of `theirs`, seed by seed.

    `value`: mean of `own`; `low`, `high`: 95 % over seeds (Student's t), `None` for one seed.

    >>> above({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
    {'value': 2.5, 'difference': 1.0, 'low': 1.0, 'high': 1.0}
    """
    found = over_seeds([value - theirs[seed] for seed, value in own.items()])
    ends = (found.low, found.high) if len(own) > 1 else (None, None)
    value = sum(own.values()) / len(own)
    return {"value": value, "difference": found.mean, "low": ends[0], "high": ends[1]}


def signed(row: Mapping[str, float | None]) -> str:
    """A `difference` as text, with its interval if it has one.

    >>> signed({"difference": 0.1, "low": -0.1, "high": 0.3})
    '+0.100 [-0.100, +0.300]'
    """
    ends = "" if row["low"] is None else " [{low:+.3f}, {high:+.3f}]".format(**row)
    return f"{row['difference']:+.3f}{ends}"


def student_t(df: int, level: float = 0.95) -> float:
    """The t with P(|T| <= t) = `level` for Student's T of `df` degrees of freedom.

    Source: Abramowitz and Stegun 26.7.3 and 26.7.4 (a finite sum for a whole `df`), inverted by
    bisection.

    >>> round(student_t(2), 3)
    4.303
    """
    low, high = 0.0, math.pi / 2  # theta = atan(t / sqrt(df))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, df) < level else (low, middle)
    return math.sqrt(df) * math.tan(high)


def _t_inside(theta: float, df: int) -> float:
    """P(|T| <= sqrt(df) * tan(theta))."""
    odd, cosine = df % 2, math.cos(theta)
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    for k in range(2 + odd, df - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    if not odd:
        return math.sin(theta) * total
    return 2 / math.pi * (theta + (math.sin(theta) * total if df > 1 else 0.0))


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """Median of `values` under `name`, and their quartiles as `{name}_low` and `{name}_high`.

    >>> spread("seconds", [1.0, 2.0, 3.0])
    {'seconds': 2.0, 'seconds_low': 1.5, 'seconds_high': 2.5}
    """
    low, middle, high = map(float, np.quantile(values, [0.25, 0.5, 0.75]))
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


def _mcnemar(wins: int, losses: int) -> float:
    """Two-sided exact p of `wins` against `losses` when either is a fair coin's choice."""
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)


def central(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """(low, high): the middle `level` of `values`."""
    return tuple(map(float, np.quantile(values, [(1 - level) / 2, (1 + level) / 2])))


def _classes(labels: Sequence[str], predictions: Sequence[str]) -> list[str]:
    return sorted(set(labels) | set(predictions))


def _check_pairs(a: Sequence, b: Sequence) -> None:
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(
            f"Two columns must be equally long and not empty, got {len(a)} and {len(b)}; "
            "pair them by PMID first."
        )
