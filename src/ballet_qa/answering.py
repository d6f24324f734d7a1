"""The policy of answering: which stories may speak, when to say nothing, and the check on quotes.

Names come first. A question about somebody who is nowhere in the stories is never answered; one
about somebody who is in two of them gets an answer from each that has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ballet_qa.cross_encoder import CrossEncoder
from ballet_qa.index import QuestionName
from ballet_qa.names import people_named
from ballet_qa.reader import READER_NAME, StoryReader
from ballet_qa.retriever import Retriever, check_query
from ballet_qa.settings import SETTINGS
from ballet_qa.shards import AnyIndex, heard
from ballet_qa.types import (
    Answer,
    Citation,
    Encoder,
    Finding,
    Hit,
    Reader,
    Reading,
    Reason,
    Status,
)
from ballet_qa.words import bare, fold, stem

__all__ = ["READER_NAME", "Answerer", "example_questions"]

_LONGEST_TITLE = 400  # characters, ornaments included
_SHE_OR_HE = re.compile(r"\b(?:she|her|hers|he|him|his)\b", re.IGNORECASE)


class Answerer:
    """Answers questions from one open index."""

    def __init__(self, retriever: Retriever, reader: Reader) -> None:
        self.retriever = retriever
        self.index: AnyIndex = retriever.index
        self._reader = reader

    @classmethod
    def load(
        cls,
        index_dir: str | Path = SETTINGS.index,
        encoder: Encoder | None = None,
        reader: str | Path | None = None,
    ) -> Answerer:
        """Open the index in ``index_dir``, with the encoder it names.

        ``reader`` is a folder of weights to read with instead of the package's own. Raises
        IndexMissingError, IndexMismatchError, EncoderError or ReaderError, each with its remedy.
        """
        network = CrossEncoder.loading(reader)
        retriever = Retriever.load(index_dir, encoder)
        return cls(retriever, StoryReader(retriever.index, retriever.encoder, network))

    def answer(
        self, question: str, top_k: int = SETTINGS.top_k, stories: Sequence[str] | None = None
    ) -> Answer:
        """What the stories say, word for word, or why nothing is said.

        ``stories`` (ids) are the only ones asked. ``hits`` holds ``top_k`` passages either way:
        those that were read, in the reader's order, then those that were not, in the search's,
        stories that hold the question's names first. Raises QuestionError on a blank or over-long
        question, UnknownStoryError on an unknown id, SilentError when no shard answers.
        """
        check_query(question, top_k)
        asked = as_question(question)
        answer, silent = heard(self.index, lambda: self._answered(asked, top_k, stories))
        return replace(answer, question=question, partial=silent)

    def _answered(self, question: str, top_k: int, stories: Sequence[str] | None) -> Answer:
        rows = None if stories is None else self.index.story_rows(stories)
        asked = range(self.index.manifest.stories) if rows is None else rows
        names = self.index.names_in(question)
        unknown = [name for name in names if not self._is_known(name, asked)]
        holding = self._holding(names, asked)

        ranking = self.retriever.rank(self.retriever.query(question), rows)
        speaks = [story in holding for story in ranking.stories.tolist()]
        first = [place for place, may in enumerate(speaks) if may]
        rest = [place for place, may in enumerate(speaks) if not may]
        most = max(top_k, SETTINGS.most_read)
        found = self.retriever.hits(ranking[first + rest], most, rows)

        if unknown:
            # A single word that stands somewhere, if not as a name, is not nowhere.
            nowhere = tuple(
                name.text
                for name in unknown
                if len(name.stems) > 1 or not self._holding([name], asked)
            )
            why: Reason = "unknown_name" if nowhere else "no_evidence"
            return Answer(question, "not_found", why, (), tuple(found[:top_k]), nowhere)
        speaking = self._speaking(found, holding)
        readings = self._reader.read(question, speaking)
        hits = _read_first(readings, found)
        chosen = self._choose(readings, several=bool(names))
        best = readings[0].answerable if readings else 0.0
        if not chosen:
            reason: Reason = "weak_evidence" if best >= SETTINGS.weak_evidence else "no_evidence"
            return Answer(question, "not_found", reason, (), tuple(hits[:top_k]), likelihood=best)
        findings = tuple(self._finding(reading) for reading in chosen)
        status: Status = "answered" if len(findings) == 1 else "ambiguous"
        cited = {reading.hit.passage.id for reading in chosen}
        shown = sorted(hits, key=lambda hit: hit.passage.id not in cited)[:top_k]
        return Answer(question, status, None, findings, _ranked(shown), likelihood=best)

    def rerank(
        self, query: str, top_k: int = SETTINGS.top_k, stories: Sequence[str] | None = None
    ) -> list[Hit]:
        """As `Retriever.search`, the first passages read and put in the reader's order."""
        found = self.retriever.search(query, max(top_k, SETTINGS.most_read), stories)
        readings = self._reader.read(query, found)
        return _read_first(readings, found)[:top_k]

    def _speaking(self, found: Sequence[Hit], holding: frozenset[int]) -> list[Hit]:
        """The hits that may answer: of the stories ``holding``, and no mere title."""
        texts = self.index.texts
        titles: dict[int, frozenset[str]] = {}
        speaking = []
        for hit in found:
            row = texts.story_row(hit.passage.story_id)
            if row is None or row not in holding:
                continue
            if row not in titles:
                told = (texts.title(row), *(section.title for section in texts.sections(row)))
                titles[row] = frozenset(bare(fold(title)) for title in told)
            text = hit.passage.text
            if len(text) > _LONGEST_TITLE or bare(fold(text)) not in titles[row]:
                speaking.append(hit)
        return speaking

    def _is_known(self, name: QuestionName, asked: Sequence[int]) -> bool:
        """Whether one of the stories asked has this name.

        A capital in the question marks a name, so a word that the stories only ever write small is
        not it, unless "the" before it says that a common noun may be meant ("the King").
        """
        together = self._holding([name], asked)
        if not together:
            return False
        if name.maybe_common:
            return True
        if all(self.index.texts.stories_naming(stem) & together for stem in name.stems):
            return True
        # Last, for it reads whole stories: a name of several words may stand there written small.
        return len(name.stems) > 1 and self._is_a_phrase(name, together)

    def _is_a_phrase(self, name: QuestionName, rows: Iterable[int]) -> bool:
        """Whether one of these stories has the name's words side by side, capitals or not."""
        wanted = " ".join(fold(name.text).split())
        stories = (self.index.texts.story(row) for row in rows)
        return any(
            wanted in " ".join(fold(f"{story.title} {story.text}").split()) for story in stories
        )

    def _holding(self, names: Sequence[QuestionName], asked: Sequence[int]) -> frozenset[int]:
        """The rows of the stories asked in which every one of these names occurs."""
        holding = frozenset(asked)
        for name in names:
            for word in name.stems:
                holding &= self.index.terms.stories_with(word)
        return holding

    def _choose(self, readings: Sequence[Reading], *, several: bool) -> list[Reading]:
        """The best reading of each story that answers, in the reader's order.

        A second story must be nearly as likely as the first, more so when the question names
        nobody whom both could know.
        """
        best: dict[str, Reading] = {}
        for reading in readings:
            best.setdefault(reading.hit.passage.story_id, reading)
        chosen = list(best.values())
        if not chosen or chosen[0].answerable < SETTINGS.answer_from:
            return []
        share = SETTINGS.second_story_share if several else SETTINGS.second_nameless_share
        least = max(SETTINGS.answer_from, chosen[0].answerable * share)
        return [reading for reading in chosen if reading.answerable >= least]

    def _finding(self, reading: Reading) -> Finding:
        passage = reading.hit.passage
        row = self.index.texts.story_row(passage.story_id)
        assert row is not None
        story = self.index.texts.story(row)
        start, end = reading.span.start, reading.span.end
        quote = story.text[start:end]
        inside = passage.start <= start < end <= passage.end
        if not inside or passage.text[start - passage.start : end - passage.start] != quote:
            raise AssertionError(f"a quote of {passage.id} is not in its story at {start}:{end}")
        words = reading.answer
        if not start <= words.start < words.end <= end:
            raise AssertionError(f"the answer of {passage.id} is not in its quote {start}:{end}")
        answer = story.text[words.start : words.end]
        citation = Citation(story, passage, start, end, quote)
        about = self._about(row, passage.text[: start - passage.start], quote)
        return Finding(answer, round(reading.answerable, 3), citation, words, about)

    def _about(self, story_row: int, before: str, quote: str) -> str | None:
        """Whom a quote without a name is about: the one person named before it in its passage."""
        if not _SHE_OR_HE.search(quote):
            return None
        known = {stem(form) for form, count in self.index.texts.names_of(story_row) if count > 1}
        people = people_named(before, known)
        if len(people) != 1 or people_named(quote, known):
            return None
        # A story titled by its person names them below the quote already.
        return None if fold(people[0]) in fold(self.index.texts.title(story_row)) else people[0]


def as_question(text: str) -> str:
    """The question with single spaces and one question mark at its end, however it was typed."""
    return " ".join(text.split()).rstrip("?!.… ") + "?"


def _read_first(readings: Sequence[Reading], found: Sequence[Hit]) -> list[Hit]:
    """The hits that were read, in the reader's order, then the others, ranked anew."""
    read = [replace(r.hit, score=r.score, scored_by="reader") for r in readings]
    ids = {hit.passage.id for hit in read}
    return list(_ranked([*read, *(hit for hit in found if hit.passage.id not in ids)]))


def _ranked(hits: Sequence[Hit]) -> tuple[Hit, ...]:
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(hits, start=1))


def example_questions(answerer: Answerer, wanted: int = 4) -> list[str]:
    """Questions made from the collection that it does answer, from different stories."""
    texts = answerer.index.texts
    frames = ("Where did {} grow up?", "Who is {}?")
    examples: list[str] = []
    for row in range(min(texts.story_count, 3 * wanted)):
        names = [name for name, count in texts.names_of(row)[:1] if count > 1]
        for position in range(len(frames) if names else 0):
            frame = frames[(row + position) % len(frames)]
            question = frame.format(names[0])
            if question not in examples and answerer.answer(question).findings:
                examples.append(question)
                break
        if len(examples) == wanted:
            break
    return examples
