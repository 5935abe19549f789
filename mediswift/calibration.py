"""Whether a model is as sure as it is right: probabilities of the answers, and how they hold up.

Decisions: a probability is an answer's likelihood divided by the sum over the three answers, so
what the model gives to all other words does not count. Confidence is the highest of the three. The
expected calibration error has 15 bins of equal width on [0, 1], as Guo et al. (2017) have it; with
three answers the bins below 1/3 stay empty. Both ends of the range can be read off: an error of 0.1
means that confidence and accuracy are 10 points apart on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

BINS = 15


def probabilities(scores: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Shares of the answers, (questions, answers), from their log-likelihoods in nats.

    >>> probabilities([{"yes": 0.0, "no": 0.0, "maybe": -np.inf}]).tolist()
    [[0.5, 0.5, 0.0]]
    """
    nats = np.array([list(row.values()) for row in scores])
    shares = np.exp(nats - nats.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def reliability(
    confidence: Sequence[float], correct: Sequence[bool], bins: int = BINS
) -> pd.DataFrame:
    """Table of the bins that hold a question: low, high, confidence, accuracy, n.

    A bin is (low, high], the first one [0, high]. Raises ValueError when the lengths differ,
    nothing is given, or a confidence is not in [0, 1].

    >>> reliability([0.9, 0.95], [True, False], bins=2)[["confidence", "accuracy", "n"]].values
    array([[0.925, 0.5  , 2.   ]])
    """
    sure, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if len(sure) != len(right) or not len(sure) or not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError(
            "Calibration needs a confidence in [0, 1] and an outcome a question, got "
            f"{len(sure)} and {len(right)}; take the probabilities of a report with scores."
        )
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    rows = []
    for i in np.unique(place):
        inside = place == i
        row = {"low": i / bins, "high": (i + 1) / bins, "confidence": sure[inside].mean()}
        rows.append(row | {"accuracy": right[inside].mean(), "n": int(inside.sum())})
    return pd.DataFrame(rows)


def expected_error(confidence: Sequence[float], correct: Sequence[bool], bins: int = BINS) -> float:
    """ECE: the distance of accuracy and confidence, averaged over questions by bin, in [0, 1].

    Source: Guo et al. 2017, equation 3.

    >>> round(expected_error([0.9, 0.9, 0.9, 0.9], [True, True, True, False]), 2)
    0.15
    """
    table = reliability(confidence, correct, bins)
    apart = (table["accuracy"] - table["confidence"]).abs()
    return float((apart * table["n"]).sum() / table["n"].sum())
