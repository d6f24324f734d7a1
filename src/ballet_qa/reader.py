"""Question and hits to readings: the words that answer best, and how likely the passage does.

A small network reads the question with each passage (cross_encoder.py). What it says joins what can
be counted (words in common, cosines, the kind of thing asked for), and three short rows of numbers
(reader.json, fitted by training/fit_reader.py on stories the network was not trained on) pick the
sentence, order the passages, and say how likely each answers. Stacking the two (Wolpert, 1992)
beats either alone: docs/answers.md has the ablation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from ballet_qa.cores import dots
from ballet_qa.cross_encoder import MAX_TOKENS, Context, CrossEncoder, Judgement, PassageJudge
from ballet_qa.names import names_in_question
from ballet_qa.passages import section_numbers
from ballet_qa.settings import SETTINGS
from ballet_qa.shards import AnyIndex, AnyTexts
from ballet_qa.types import Encoder, FloatArray, Hit, Reading, Span
from ballet_qa.words import terms

READER_NAME = "story-reader-1"

SENTENCE_FEATURES = (
    "covered",
    "fact_covered",
    "cosine",
    "unnamed_cosine",
    "before",
    "kind_fits",
    "length",
    "span",
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
    "relevance",
    "behind_most_relevant",
    "answerable",
    "certainty",
)

_LONGEST_ANSWER = 30  # tokens
# Where an answer that starts at one token may end.
_ALLOWED = np.triu(np.ones((MAX_TOKENS, MAX_TOKENS), dtype=bool))
_ALLOWED &= ~np.triu(_ALLOWED, _LONGEST_ANSWER)
_NOWHERE = -12.0  # the certainty of an answer that could be anywhere

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
class Asked:
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


@dataclass(frozen=True, slots=True)
class _Sentence:
    """The sentence chosen in a passage: its place, its features, and its best few words."""

    span: Span
    features: NDArray[np.float64]
    answer: Span


class StoryReader:
    """Reads with a network, words, sentence vectors and the kind of answer that is asked for."""

    name = READER_NAME

    def __init__(
        self,
        index: AnyIndex,
        encoder: Encoder,
        network: PassageJudge | None = None,
        weights: ReaderWeights | None = None,
    ) -> None:
        """``network`` and ``weights`` default to those that come with the package."""
        self._index = index
        self._encoder = encoder
        self._network: PassageJudge = network or CrossEncoder()
        self._weights = weights or load_reader_weights()

    def read(self, question: str, hits: Sequence[Hit]) -> list[Reading]:
        """A reading for each hit that was read, best first.

        Reading costs most of the time, so it goes on, a few at a time, only while none of those
        read is likely to answer.
        """
        asked = self.asked(question)
        readings: list[Reading] = []
        judged: list[Judgement] = []
        for many, enough in SETTINGS.read_in_turns:
            if len(hits) > len(judged):
                judged += self.judged(question, hits[len(judged) : many])
                readings = self.weigh(asked, hits[:many], judged)
                if readings[0].answerable >= enough:
                    break
        return readings

    def weigh(
        self, asked: Asked, hits: Sequence[Hit], judged: Sequence[Judgement]
    ) -> list[Reading]:
        """A reading for each hit, best first, from what the network said of it."""
        chosen = [self.choose_sentence(asked, *pair) for pair in zip(hits, judged, strict=True)]
        evidence = self.evidence(asked, hits, chosen, judged)
        logits = evidence @ self._weights.evidence[:-1] + self._weights.evidence[-1]
        likely = 1 / (1 + np.exp(-logits))
        scores = evidence @ self._weights.order
        readings = [
            Reading(hit, sentence.span, sentence.answer, float(score), float(p))
            for hit, sentence, score, p in zip(hits, chosen, scores, likely, strict=True)
        ]
        return sorted(readings, key=lambda reading: (-reading.score, reading.hit.rank))

    def judged(self, question: str, hits: Sequence[Hit]) -> list[Judgement]:
        """What the network says of each hit."""
        rows = [self._index.texts.passage_row(hit.passage.id) for hit in hits]
        contexts = [context_of(self._index.texts, row) for row in rows if row is not None]
        return self._network.judge(question, contexts)

    def asked(self, question: str) -> Asked:
        """The question made ready."""
        kind = next((kind for kind in _KINDS if kind[1].search(question)), None)
        names = self._index.names_in(question)
        texts = (question, without_names(question, {name.text for name in names}))
        words = tuple(dict.fromkeys(terms(question)))
        statistics = self._index.statistics(words)
        return Asked(
            weights={term: statistics.idf(term) for term in words},
            names=frozenset(stem for name in names for stem in name.stems),
            vectors=self._encoder.encode_queries(list(dict.fromkeys(texts)))[[0, -1]],
            kind=kind[0] if kind else None,
            fits=kind[2] if kind else None,
        )

    def sentence_features(
        self, asked: Asked, hit: Hit, judgement: Judgement
    ) -> tuple[list[Span], NDArray[np.float64], list[Span]]:
        """The sentences of a hit, a row of SENTENCE_FEATURES for each, and its likeliest words."""
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
        found = [best_span(judgement, span, hit.passage.start) for span in spans]
        likeliest = max(score for score, _ in found)
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
                    max(found[number][0] - likeliest, -10.0) / 10,
                ]
            )
        return spans, np.array(rows), [span for _, span in found]

    def choose_sentence(self, asked: Asked, hit: Hit, judgement: Judgement) -> _Sentence:
        """The sentence of a hit that answers best, with its likeliest words."""
        spans, features, answers = self.sentence_features(asked, hit, judgement)
        best = int(np.argmax(features @ self._weights.sentence))
        return _Sentence(spans[best], features[best], answers[best])

    def evidence(
        self,
        asked: Asked,
        hits: Sequence[Hit],
        chosen: Sequence[_Sentence],
        judged: Sequence[Judgement],
    ) -> NDArray[np.float64]:
        """What speaks for each hit, shape (hits, EVIDENCE_FEATURES)."""
        index, texts = self._index, self._index.texts
        found_rows = [texts.passage_row(hit.passage.id) for hit in hits]
        rows = np.array(found_rows, dtype=np.int32)
        cosines = dots(index.passage_vectors.rows(rows), asked.vectors[0])
        best = max(hit.score for hit in hits)
        by_story: dict[str, float] = {}
        for hit in hits:
            story_id = hit.passage.story_id
            by_story[story_id] = max(hit.score, by_story.get(story_id, hit.score))
        asked_terms = list(asked.weights)
        holding = index.terms.holding(asked_terms, texts.stories_of(rows))
        table = []
        most = max(judgement.relevance for judgement in judged)
        for hit, row, sentence, judgement, cosine, held in zip(
            hits, rows.tolist(), chosen, judged, cosines, holding, strict=True
        ):
            (owner,) = texts.stories_of(np.array([row])).tolist()
            known = frozenset(term for term, holds in zip(asked_terms, held, strict=True) if holds)
            around = self._stems_around(row, owner)
            own = frozenset(terms(hit.passage.text))
            others = [s for story_id, s in by_story.items() if story_id != hit.passage.story_id]
            table.append(
                [
                    hit.score,
                    best - hit.score,
                    min(hit.score - max(others), 5.0) if others else 0.0,
                    float(sentence.features @ self._weights.sentence),
                    asked.share(own),
                    asked.share(own, facts_only=True),
                    asked.share(around, facts_only=True),
                    sentence.features[2],
                    float(cosine),
                    1 - asked.share(known),
                    1 - asked.share(known, facts_only=True),
                    float(asked.fits is not None and not asked.fits.search(hit.passage.text)),
                    float(asked.kind == "number" and not _NUMBER.search(hit.passage.text)),
                    float(bool(asked.names)),
                    min(len(asked.weights) - len(asked.names), 8) / 8,
                    judgement.relevance,
                    judgement.relevance - most,
                    judgement.answerable,
                    certainty(judgement),
                ]
            )
        return np.array(table)

    def _stems_around(self, row: int, owner: int) -> frozenset[str]:
        texts = self._index.texts
        first, last = texts.passage_rows(owner)
        near = range(max(first, row - 1), min(last, row + 2))
        return frozenset(stem for r in near for stem in terms(texts.passage(r).text))


def context_of(texts: AnyTexts, row: int) -> Context:
    """A passage as the network reads it: with its story's title and the sentence before it."""
    (owner,) = texts.stories_of(np.array([row])).tolist()
    before = ""
    passage = texts.passage(row)
    if row > texts.passage_rows(owner)[0]:
        earlier, last = texts.passage(row - 1), texts.sentences(row - 1)[-1]
        part, other = section_numbers([passage, earlier], texts.sections(owner))
        if part == other:
            before = earlier.text[last.start - earlier.start : last.end - earlier.start]
    return Context(texts.title(owner), before, passage.text)


def best_span(judgement: Judgement, sentence: Span, offset: int) -> tuple[float, Span]:
    """The likeliest start and end of an answer inside a sentence, and their logits' sum.

    ``sentence`` counts characters of the story, ``offset`` is where the passage begins in it. A
    sentence beyond what the network could read is taken whole, at the lowest of scores.
    """
    spans = judgement.spans + offset
    inside = np.flatnonzero((spans[:, 0] >= sentence.start) & (spans[:, 1] <= sentence.end))
    if len(inside) == 0:
        return -1e9, sentence
    table = judgement.starts[inside][:, np.newaxis] + judgement.ends[inside][np.newaxis, :]
    allowed = _ALLOWED[: len(inside), : len(inside)]
    table = np.where(allowed, table, -1e9)
    start, end = np.unravel_index(int(np.argmax(table)), table.shape)
    words = Span(int(spans[inside[start], 0]), int(spans[inside[end], 1]))
    return float(table[start, end]), words


def certainty(judgement: Judgement) -> float:
    """The log-probability of the likeliest start and of the likeliest end, at most 0.

    A passage that does not answer leaves the network without a place to point to: this tells such
    passages apart better than the head that was trained to say so.
    """
    if len(judgement.spans) == 0:
        return _NOWHERE
    peaks = [float(np.logaddexp.reduce(x) - x.max()) for x in (judgement.starts, judgement.ends)]
    return max(-sum(peaks), _NOWHERE)


def without_names(question: str, names: Collection[str]) -> str:
    """The question with "she" or "her" in the place of these names."""
    for name in reversed(names_in_question(question)):
        if name.text not in names:
            continue
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
