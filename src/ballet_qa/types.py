"""The nouns of the domain, each defined once, and the protocols that can be replaced.

Records are frozen and hold records; nothing here imports more than numpy's types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int32]

Status: TypeAlias = Literal["answered", "ambiguous", "not_found"]
Scorer: TypeAlias = Literal["search", "reader"]
VectorKind: TypeAlias = Literal["exact", "clustered"]
Reason: TypeAlias = Literal["unknown_name", "no_evidence", "weak_evidence"]


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start:end`` of a story's text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter, or, without a title, a scene: it begins at character ``start`` of its story."""

    start: int
    title: str


@dataclass(frozen=True, slots=True)
class Story:
    """One story. ``id`` is its path below its root, without suffix; in an anthology its title, too.

    ``sections`` are its chapters and scenes in order; no passage crosses from one to the next.
    """

    id: str
    title: str
    text: str = field(repr=False)
    source: str
    sha256: str
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True, slots=True)
class StoryEntry:
    """A story as a catalogue lists it: everything but its text. ``length`` is in characters."""

    id: str
    title: str
    source: str
    sha256: str
    length: int
    opening: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph, or a part of a very long one.

    ``story.text[start:end] == text``. ``number`` counts the story's paragraphs from 1; the parts
    of one paragraph share it.
    """

    id: str
    story_id: str
    number: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found. Higher scores are better; ``rank`` counts from 1.

    ``title`` is the story's; ``also_in`` names the other stories that hold the same text.
    ``scored_by`` says whose ``score`` it is: the two are on scales of their own, and a passage that
    was read stands before all that were not.
    """

    passage: Passage
    score: float
    rank: int
    title: str
    also_in: tuple[str, ...] = ()
    scored_by: Scorer = "search"


@dataclass(frozen=True, slots=True)
class Citation:
    """Words quoted from a story: ``story.text[start:end] == quote``."""

    story: Story
    passage: Passage
    start: int
    end: int
    quote: str

    @property
    def chapter(self) -> str | None:
        """The title of the chapter that the quote stands in, None where none has begun."""
        begun = [s.title for s in self.story.sections if s.title and s.start <= self.start]
        return begun[-1] if begun else None


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer from one story: ``story.text[span.start:span.end] == answer``, inside the quote.

    ``confidence`` is the calibrated probability that the passage answers, or None where none has
    been calibrated. ``about`` names the person whom the quote only calls "she" or "he", when the
    passage has named nobody else before it.
    """

    answer: str
    confidence: float | None
    citation: Citation
    span: Span
    about: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the stories say to a question, or why nothing is said.

    ``reason`` is None unless ``status`` is ``not_found``; ``unknown`` then lists the names that
    occur nowhere in the stories asked, and ``hits`` still holds the nearest passages.
    ``likelihood``, in [0, 1], is how likely the reader thinks its best reading answers, 0 when
    nothing was read. ``asked`` is the question as it was searched for, where it leaned on the
    conversation before it; ``within`` is then the title of the only story that was asked.
    ``partial`` names the shards of a library that did not answer: their stories were not asked.
    """

    question: str
    status: Status
    reason: Reason | None
    findings: tuple[Finding, ...]
    hits: tuple[Hit, ...]
    unknown: tuple[str, ...] = ()
    likelihood: float = 0.0
    asked: str | None = None
    within: str | None = None
    partial: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """Show the answer in a notebook."""
        from ballet_qa import render

        return render.answer_html(self)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader makes of one hit: the sentence that answers best, its few words that do.

    ``score`` orders the hits (higher is better); ``answerable``, in [0, 1], is how likely the
    passage answers.
    """

    hit: Hit
    span: Span
    answer: Span
    score: float
    answerable: float


class Encoder(Protocol):
    """Turns text into unit vectors."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        ...

    @property
    def fingerprint(self) -> str:
        """What the vectors depend on: two encoders with one fingerprint give the same vectors."""
        ...

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> FloatArray:
        """Rows of unit length, shape (len(texts), dimension)."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        """Rows of unit length, shape (len(texts), dimension)."""
        ...


class Reader(Protocol):
    """Judges hits against a question and picks the words that answer."""

    @property
    def name(self) -> str:
        """What a person calls it, with its version."""
        ...

    def read(self, question: str, hits: Sequence[Hit]) -> list[Reading]:
        """One reading for each hit, best first."""
        ...
