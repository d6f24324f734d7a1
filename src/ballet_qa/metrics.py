"""Measures as they are defined elsewhere, over plain values; the tests hold them to the originals.

Ranks count from 1. "Right" is binary throughout.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[np.float64]

RESAMPLES = 1000
BINS = 10
DEPTHS = (1, 3, 5, 10, 50)

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measure over ``n`` questions, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int


def success_at(right: Sequence[bool], k: int) -> float:
    """1 when one of the first ``k`` hits is right: Success@k of ir_measures, our R@k."""
    return float(any(right[:k]))


def reciprocal_rank(right: Sequence[bool], depth: int = 10) -> float:
    """1 / rank of the first right hit, 0 when it is not among the first ``depth``: RR@k."""
    return next((1 / rank for rank, is_right in enumerate(right[:depth], 1) if is_right), 0.0)


def ndcg(right: Sequence[bool], total: int, depth: int = 10) -> float:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen, 2002), gains 0 and 1.

    ``total`` is how many right passages there are to be found.
    """
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    gained = float(np.dot(np.array(right[:depth], dtype=float), discounts[: len(right[:depth])]))
    ideal = float(discounts[: min(total, depth)].sum())
    return gained / ideal if ideal else 0.0


def ranking_measures(right: Sequence[bool], total: int) -> dict[str, float]:
    """R@k for each of DEPTHS, RR@10 and nDCG@10 of one ranking; ``total`` as in `ndcg`."""
    found = {f"R@{k}": success_at(right, k) for k in DEPTHS}
    return found | {"RR@10": reciprocal_rank(right), "nDCG@10": ndcg(right, total)}


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 when the answer is one of the references, as SQuAD's script normalises them."""
    return float(any(_squad_words(answer) == _squad_words(r) for r in references))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """The best F1 of the answer's words against a reference's: SQuAD 2.0's script."""
    return max((_f1(_squad_words(answer), _squad_words(r)) for r in references), default=0.0)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """The best ROUGE-L F-measure (Lin, 2004) against a reference, as package rouge-score has it.

    Words are runs of letters and digits of any script; rouge-score knows ASCII only.
    """
    return max((_rouge_l(_rouge_words(answer), _rouge_words(r)) for r in references), default=0.0)


def bootstrap(statistic: Callable[[NDArray[np.int64]], float], n: int) -> Estimate:
    """A statistic of rows 0 to n - 1, and the middle 95 % of it over resampled rows.

    The percentile bootstrap (Efron, 1979): RESAMPLES draws of n rows with replacement, seeded, so
    that the same values give the same interval. Raises ValueError when there are no rows.
    """
    if n == 0:
        raise ValueError("no rows to draw from")
    drawn = [statistic(rows) for rows in _draws(n)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(statistic(np.arange(n))), float(low), float(high), n)


def mean(values: Sequence[float]) -> Estimate:
    """The mean of values with its interval."""
    column = np.asarray(values, dtype=np.float64)
    return bootstrap(lambda rows: float(column[rows].mean()), len(column))


def selective_risk(scores: Values, right: Values) -> Values:
    """The share of wrong answers among the i surest, for i from 1 to all.

    What a system risks that answers only what it is surest of (El-Yaniv and Wiener, 2010). Equal
    scores cannot be told apart, so each of them counts as wrong as they are on average.
    """
    order = np.argsort(-scores, kind="stable")
    wrong = 1 - right[order]
    _, first, count = np.unique(-scores[order], return_index=True, return_counts=True)
    evened = np.repeat(np.add.reduceat(wrong, first) / count, count)
    return np.asarray(np.cumsum(evened) / np.arange(1, len(scores) + 1), dtype=np.float64)


def area_under_risk(scores: Values, right: Values) -> float:
    """The mean of the risk-coverage curve (AURC; Geifman et al., 2019): lower is better."""
    return float(selective_risk(scores, right).mean())


def calibration_error(confidences: Values, right: Values) -> float:
    """Expected calibration error over BINS equal bins (Naeini et al., 2015): 0 is perfect."""
    bins = np.minimum((confidences * BINS).astype(np.int64), BINS - 1)
    gaps = [
        abs(float(right[bins == b].mean() - confidences[bins == b].mean())) * int((bins == b).sum())
        for b in np.unique(bins)
    ]
    return sum(gaps) / len(confidences)


@cache
def _draws(n: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(n, size=(RESAMPLES, n))


def _squad_words(text: str) -> list[str]:
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return _ARTICLES.sub(" ", bare).split()


def _f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    common = sum((Counter(answer) & Counter(reference)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(answer), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def _rouge_words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _rouge_l(answer: Sequence[str], reference: Sequence[str]) -> float:
    if not answer or not reference:
        return 0.0
    row = [0] * (len(reference) + 1)  # lengths of longest common subsequences
    for word in answer:
        diagonal = 0
        for place, other in enumerate(reference, start=1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    if row[-1] == 0:
        return 0.0
    precision, recall = row[-1] / len(answer), row[-1] / len(reference)
    return 2 * precision * recall / (precision + recall)
