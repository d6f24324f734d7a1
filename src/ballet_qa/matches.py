"""The search line: words, "quoted phrases" taken exactly, story:filters; and why a passage matched.

A quoted phrase must stand in the passage as it is written, capitals and line breaks aside. The
ranking is the retriever's; this says what it cannot: the words in common, the nearest sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ballet_qa.cores import dots
from ballet_qa.errors import UnknownStoryError
from ballet_qa.index import Query
from ballet_qa.retriever import Retriever, check_query
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Hit, IntArray, Span
from ballet_qa.words import fold, stem, terms

_PART = re.compile(
    r"""story:(?:["“](?P<titled>[^"”]*)["”]|(?P<story>\S+))|["“](?P<phrase>[^"”]*)["”]"""
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class SearchLine:
    """What was typed: the words that rank, the phrases that must be there, the stories named."""

    words: str
    phrases: tuple[str, ...]
    stories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """A hit and why it matched: characters of its story.

    ``words`` are the words it shares with the query, ``phrases`` the quoted ones, ``nearest`` the
    sentence whose vector is nearest.
    """

    hit: Hit
    words: tuple[Span, ...]
    phrases: tuple[Span, ...]
    nearest: Span

    @property
    def shared(self) -> tuple[str, ...]:
        """The words in common as the passage writes them, each once."""
        start, text = self.hit.passage.start, self.hit.passage.text
        found = (text[span.start - start : span.end - start] for span in self.words)
        return tuple({stem(word): word for word in found}.values())


def parse_search_line(line: str) -> SearchLine:
    """Take a search line apart. What is quoted ranks as words, too."""
    phrases, stories = [], []
    for match in _PART.finditer(line):
        if match["phrase"] is not None:
            phrases += [" ".join(match["phrase"].split())] if match["phrase"].strip() else []
        else:
            stories += [(match["titled"] or match["story"] or "").strip()]
    words = " ".join([*_PART.sub(" ", line).split(), *phrases])
    return SearchLine(words, tuple(phrases), tuple(story for story in stories if story))


def find_matches(retriever: Retriever, line: str, top_k: int = SETTINGS.top_k) -> list[Match]:
    """The passages a search line finds, best first, each with why.

    Raises QuestionError on a blank or over-long line, UnknownStoryError when ``story:`` names no
    story by its id or by words of its title.
    """
    check_query(line, top_k)
    asked = parse_search_line(line)
    check_query(asked.words, top_k)
    patterns = [_pattern(phrase) for phrase in asked.phrases]
    rows = _stories_named(retriever, asked.stories) if asked.stories else None
    query = retriever.query(asked.words)
    if not asked.phrases:
        ranking = retriever.rank(query, rows)
    else:
        holding = _rows_with_phrases(retriever, asked.phrases, patterns, rows)
        ranking = retriever.ordered(query, holding)
    hits = retriever.hits(ranking, top_k, rows)
    return [_match(retriever, hit, query, patterns) for hit in hits]


def _stories_named(retriever: Retriever, names: Iterable[str]) -> list[int]:
    rows: set[int] = set()
    catalogue = retriever.index.texts.catalogue()
    for name in names:
        wanted = fold(name)
        found = [
            entry.id
            for entry in catalogue
            if wanted in fold(entry.title) or wanted in fold(entry.id)
        ]
        if not found:
            raise UnknownStoryError(f"no story has {name!r} in its title or id; see Stories")
        rows.update(retriever.index.story_rows(found))
    return sorted(rows)


def _rows_with_phrases(
    retriever: Retriever,
    phrases: Iterable[str],
    patterns: Sequence[re.Pattern[str]],
    stories: list[int] | None,
) -> IntArray:
    """The rows of the passages that hold every phrase."""
    index = retriever.index
    among = set(range(index.manifest.stories)) if stories is None else set(stories)
    for phrase in phrases:
        for term in terms(phrase):
            among &= index.terms.stories_with(term)
    found = []
    for story_row in sorted(among):
        first, _ = index.texts.passage_rows(story_row)
        for number, passage in enumerate(index.texts.passages_of(story_row)):
            if all(pattern.search(passage.text) for pattern in patterns):
                found.append(first + number)
    return np.array(found, dtype=np.int32)


def _pattern(phrase: str) -> re.Pattern[str]:
    words = (re.escape(word).replace("'", "['’]").replace("’", "['’]") for word in phrase.split())
    return re.compile(r"(?<!\w)" + r"\s+".join(words) + r"(?!\w)", re.IGNORECASE)


def _match(
    retriever: Retriever, hit: Hit, query: Query, patterns: Iterable[re.Pattern[str]]
) -> Match:
    index, passage = retriever.index, hit.passage
    row = index.texts.passage_row(passage.id)
    assert row is not None, f"{passage.id} is not of this index"
    wanted = set(query.terms)
    words = [m for m in _WORD.finditer(passage.text) if wanted & set(terms(m.group()))]
    quoted = [m for pattern in patterns for m in pattern.finditer(passage.text)]
    start, end = index.texts.sentence_rows(row)
    cosines = dots(index.sentence_vectors.block(start, end), query.vector)
    nearest = index.texts.sentences(row)[int(np.argmax(cosines))]
    spans = [
        tuple(Span(passage.start + m.start(), passage.start + m.end()) for m in found)
        for found in (words, quoted)
    ]
    return Match(hit, spans[0], spans[1], nearest)
