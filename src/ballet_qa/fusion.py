"""Fusing what words and vectors say of a passage into one score.

No fixed sum serves both questions that repeat the story's words and questions that do not
(docs/retrieval.md). So each signal's weight is itself a function of the question: how much of the
question's words the best passage holds, how near the nearest sentence is, and so on:

    score(passage) = sum over signals i of softplus(W[i] . gates(question)) * signal[i](passage)

A passage is never worse for a higher signal, and there are few enough numbers to read. They were
fitted by training/fit_fusion.py (listwise softmax, as in ListNet, Cao et al., 2007).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from ballet_qa.cores import dots
from ballet_qa.types import FloatArray

FEATURES = ("own", "near", "wide", "story", "named", "passage", "sentence", "neighbour")
GATES = ("one", "covered", "nearest", "words_lead", "vectors_lead", "named", "mean_idf")


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known of the candidates of one question.

    ``features`` has shape (candidates, len(FEATURES)): BM25 of the passage, of its neighbourhoods
    (one and two each side), as shares of the highest score possible; of its story, as a share of
    the best story's; the share of the question's names its story holds; the cosines of the
    passage, of its best sentence, and of its neighbours' best sentence.
    """

    features: FloatArray
    named: bool
    mean_idf: float

    def gates(self) -> NDArray[np.float64]:
        """What is known of the question, shape (len(GATES),)."""
        if len(self.features) == 0:
            return np.zeros(len(GATES))
        own = np.sort(self.features[:, FEATURES.index("own")])[::-1]
        sentence = np.sort(self.features[:, FEATURES.index("sentence")])[::-1]
        fifth = min(4, len(own) - 1)
        return np.array(
            [
                1.0,
                own[0],
                sentence[0],
                own[0] - own[fifth],
                sentence[0] - sentence[fifth],
                float(self.named),
                self.mean_idf / 10,
            ]
        )


@dataclass(frozen=True, slots=True)
class Fusion:
    """The weights: shape (len(FEATURES), len(GATES))."""

    weights: NDArray[np.float64]

    def scores(self, signals: Signals) -> FloatArray:
        """One score a candidate; higher is better."""
        strengths = np.logaddexp(0.0, self.weights @ signals.gates())
        scores: FloatArray = dots(signals.features, strengths).astype(np.float32)
        return scores


@cache
def load_fusion() -> Fusion:
    """The weights that come with the package."""
    data = json.loads(resources.files("ballet_qa").joinpath("fusion.json").read_text("utf-8"))
    return Fusion(np.array([[data["weights"][f][g] for g in GATES] for f in FEATURES]))
