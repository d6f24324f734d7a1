"""Question and hits to readings: the sentence that answers best, and how likely the passage does.

This reader needs no weights of its own beyond three short rows of numbers (reader.json, fitted by
training/fit_reader.py): one picks the sentence of a passage, one orders the passages, one says how
likely a passage answers, all from evidence that a person could check by hand. A trained reader can
take its place behind the same protocol.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from ballet_qa.index import Index
from ballet_qa.names import names_in_question
from ballet_qa.types import Encoder, FloatArray, Hit, Reading, Span
from ballet_qa.words import terms

READER_NAME = "sentence-evidence-1"

SENTENCE_FEATURES = (
    "covered",
    "fact_covered",
    "cosine",
    "unnamed_cosine",
    "before",
    "kind_fits",
    "length",
)
EVIDENCE_FEATURES = (
    "score",
    "behind_best",
    "lead",
    "sentence",
    "covered",
    "fact_covered",
    "around_covered",
    "cosine",
    "passage_cosine",
    "unheard",
    "fact_unheard",
    "kind_missing",
    "number_missing",
    "named",
    "fact_terms",
)

_NUMBER = re.compile(
    r"""\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|
    fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|
    ninety|hundred|thousand|million|dozen|score|both|twice|thrice|once|pair|half|couple|single|
    second|third|fourth|fifth|sixth|seventh)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_TIME = re.compile(
    r"""\d|\b(?:when|after|before|until|till|while|during|as|at\slast|day|days|night|nights|
    morning|evening|noon|midnight|dawn|dusk|year|years|month|months|week|weeks|hour|hours|spring|
    summer|autumn|winter|today|yesterday|tomorrow|then|soon|once|ago|age|time|now|first)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_REASON = re.compile(
    r"""\b(?:because|for|since|so|as|that|therefore|to|lest|thus|reason|if|but|wanted|wished|
    afraid|cause|caused)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_PLACE = re.compile(
    r"""\b(?:in|at|to|from|near|into|under|on|upon|behind|inside|through|by|beside|over|down|up|
    outside|home|there|here|beneath|among|across|along|toward|towards)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_COLOUR = re.compile(
    r"""\b(?:black|white|red|blue|green|yellow|brown|gr[ae]y|golden|gold|silver|silvery|purple|pink|
    orange|scarlet|crimson|raven|fair|dark|pale|blonde?|rosy|violet)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_NAMING = re.compile(r"\b(?:called|named?|known\s+as|nickname\w*|titled?|read)\b|[\"“]", re.I)
_SPEECH = re.compile(r"[\"“”«»]|(?<!\w)[‘']\w")
_KINDS: tuple[tuple[str, re.Pattern[str], re.Pattern[str]], ...] = (
    (
        "number",
        re.compile(r"\bhow\s+(?:many|much|old|long|far|often|tall|high)\b|\bwhat\s+age\b", re.I),
        _NUMBER,
    ),
    ("time", re.compile(r"\bwhen\b|\bwhat\s+(?:year|day|time|month|date)\b", re.I), _TIME),
    ("reason", re.compile(r"\bwhy\b", re.I), _REASON),
    ("place", re.compile(r"\bwhere\b", re.I), _PLACE),
    ("colour", re.compile(r"\bcolou?r\b", re.I), _COLOUR),
    ("name", re.compile(r"\b(?:name|named|called|nickname|title)\b", re.I), _NAMING),
    ("speech", re.compile(r"\b(?:say|said|tell|told|reply|answer|ask|shout|cry)\b", re.I), _SPEECH),
)


@dataclass(frozen=True, slots=True)
class ReaderWeights:
    """The rows of numbers.

    ``sentence`` picks a passage's sentence, ``order`` ranks the passages, ``evidence`` says how
    likely one answers (a logistic regression, its bias last).
    """

    sentence: NDArray[np.float64]
    order: NDArray[np.float64]
    evidence: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question as this reader sees it: the weight of each stem, its names apart.

    ``vectors`` has shape (2, dimension): the question, and the question with "she" for its names,
    since a story that has named somebody goes on with a pronoun.
    """

    weights: dict[str, float]
    names: frozenset[str]
    vectors: FloatArray
    kind: str | None
    fits: re.Pattern[str] | None

    def share(self, held: frozenset[str], *, facts_only: bool = False) -> float:
        """How much of the question's weight these stems hold, from 0 to 1."""
        mine = {t: w for t, w in self.weights.items() if not (facts_only and t in self.names)}
        total = sum(mine.values())
        return sum(w for t, w in mine.items() if t in held) / total if total else 0.0


class SentenceReader:
    """Reads with words, sentence vectors and the kind of answer that is asked for."""

    name = READER_NAME

    def __init__(
        self, index: Index, encoder: Encoder, weights: ReaderWeights | None = None
    ) -> None:
        """``weights`` default to those that come with the package."""
        self._index = index
        self._encoder = encoder
        self._weights = weights or load_reader_weights()

    def read(self, question: str, hits: Sequence[Hit]) -> list[Reading]:
        """One reading a hit, the likeliest to answer first; ties keep the order of the hits."""
        if not hits:
            return []
        asked = self.asked(question)
        chosen = [self.choose_sentence(asked, hit) for hit in hits]
        evidence = self.evidence(asked, hits, chosen)
        logits = evidence @ self._weights.evidence[:-1] + self._weights.evidence[-1]
        likely = 1 / (1 + np.exp(-logits))
        scores = evidence @ self._weights.order
        readings = [
            Reading(hit, span, float(score), float(p))
            for hit, (span, _), score, p in zip(hits, chosen, scores, likely, strict=True)
        ]
        return sorted(readings, key=lambda reading: (-reading.score, reading.hit.rank))

    def asked(self, question: str) -> _Asked:
        """The question made ready."""
        kind = next((kind for kind in _KINDS if kind[1].search(question)), None)
        return _Asked(
            weights={term: self._index.terms.idf(term) for term in terms(question)},
            names=frozenset(s for name in self._index.names_in(question) for s in name.stems),
            vectors=self._encoder.encode_queries([question, without_names(question)]),
            kind=kind[0] if kind else None,
            fits=kind[2] if kind else None,
        )

    def sentence_features(self, asked: _Asked, hit: Hit) -> tuple[list[Span], NDArray[np.float64]]:
        """The sentences of a hit, and a row of SENTENCE_FEATURES for each."""
        texts = self._index.texts
        row = texts.passage_row(hit.passage.id)
        assert row is not None, f"{hit.passage.id} is not of this index"
        spans = texts.sentences(row)
        words = [
            hit.passage.text[span.start - hit.passage.start : span.end - hit.passage.start]
            for span in spans
        ]
        stems = [frozenset(terms(sentence)) for sentence in words]
        start, end = texts.sentence_rows(row)
        cosines = self._index.sentence_vectors.block(start, end) @ asked.vectors.T
        rows = []
        for number, (sentence, held) in enumerate(zip(words, stems, strict=True)):
            before = stems[number - 1] if number else frozenset()
            covered = asked.share(held)
            rows.append(
                [
                    covered,
                    asked.share(held, facts_only=True),
                    float(cosines[number, 0]),
                    float(cosines[number, 1]),
                    asked.share(held | before) - covered,
                    float(asked.fits is not None and bool(asked.fits.search(sentence))),
                    float(np.log1p(len(sentence))) / 5,
                ]
            )
        return spans, np.array(rows)

    def choose_sentence(self, asked: _Asked, hit: Hit) -> tuple[Span, NDArray[np.float64]]:
        """The sentence of a hit that answers best, and its features."""
        spans, features = self.sentence_features(asked, hit)
        best = int(np.argmax(features @ self._weights.sentence))
        return spans[best], features[best]

    def evidence(
        self,
        asked: _Asked,
        hits: Sequence[Hit],
        chosen: Sequence[tuple[Span, NDArray[np.float64]]],
    ) -> NDArray[np.float64]:
        """What speaks for each hit, shape (hits, EVIDENCE_FEATURES)."""
        index, texts = self._index, self._index.texts
        found_rows = [texts.passage_row(hit.passage.id) for hit in hits]
        rows = np.array(found_rows, dtype=np.int32)
        cosines = index.passage_vectors.rows(rows) @ asked.vectors[0]
        best = max(hit.score for hit in hits)
        by_story: dict[str, float] = {}
        for hit in hits:
            story_id = hit.passage.story_id
            by_story[story_id] = max(hit.score, by_story.get(story_id, hit.score))
        holding = {term: index.terms.stories_with(term) for term in asked.weights}
        table = []
        for hit, row, (_, sentence), cosine in zip(
            hits, rows.tolist(), chosen, cosines, strict=True
        ):
            owner = int(texts.passage_story[row])
            known = frozenset(term for term, stories in holding.items() if owner in stories)
            around = self._stems_around(row, owner)
            own = frozenset(terms(hit.passage.text))
            others = [s for story_id, s in by_story.items() if story_id != hit.passage.story_id]
            table.append(
                [
                    hit.score,
                    best - hit.score,
                    min(hit.score - max(others), 5.0) if others else 0.0,
                    float(sentence @ self._weights.sentence),
                    asked.share(own),
                    asked.share(own, facts_only=True),
                    asked.share(around, facts_only=True),
                    sentence[2],
                    float(cosine),
                    1 - asked.share(known),
                    1 - asked.share(known, facts_only=True),
                    float(asked.fits is not None and not asked.fits.search(hit.passage.text)),
                    float(asked.kind == "number" and not _NUMBER.search(hit.passage.text)),
                    float(bool(asked.names)),
                    min(len(asked.weights) - len(asked.names), 8) / 8,
                ]
            )
        return np.array(table)

    def _stems_around(self, row: int, owner: int) -> frozenset[str]:
        texts = self._index.texts
        first, last = texts.passage_rows(owner)
        near = range(max(first, row - 1), min(last, row + 2))
        return frozenset(stem for r in near for stem in terms(texts.passage(r).text))


def without_names(question: str) -> str:
    """The question with "she" or "her" in the place of its names."""
    for name in reversed(names_in_question(question)):
        possessive = re.match(r"['’]s?(?!\w)", question[name.end :])
        rest = question[name.end + (possessive.end() if possessive else 0) :]
        question = question[: name.start] + ("her" if possessive else "she") + rest
    return question


@cache
def load_reader_weights() -> ReaderWeights:
    """The weights that come with the package."""
    data = json.loads(resources.files("ballet_qa").joinpath("reader.json").read_text("utf-8"))
    return ReaderWeights(
        sentence=np.array([data["sentence"][name] for name in SENTENCE_FEATURES]),
        order=np.array([data["order"][name] for name in EVIDENCE_FEATURES]),
        evidence=np.array([data["evidence"][name] for name in (*EVIDENCE_FEATURES, "bias")]),
    )
