"""The policy of answering: which stories may speak, when to say nothing, and the check on quotes.

Names come first. A question about somebody who is nowhere in the stories is never answered; one
about somebody who is in two of them gets an answer from each that has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ballet_qa.index import Index, QuestionName
from ballet_qa.reader import READER_NAME, SentenceReader
from ballet_qa.retriever import Retriever, check_query
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Answer, Citation, Encoder, Finding, Hit, Reader, Reading, Reason, Status
from ballet_qa.words import fold

__all__ = ["READER_NAME", "Answerer", "example_questions"]


class Answerer:
    """Answers questions from one open index."""

    def __init__(self, retriever: Retriever, reader: Reader) -> None:
        self.retriever = retriever
        self.index: Index = retriever.index
        self._reader = reader

    @classmethod
    def load(
        cls, index_dir: str | Path = SETTINGS.index, encoder: Encoder | None = None
    ) -> Answerer:
        """Open the index in ``index_dir``, with the encoder it names and the default reader.

        Raises IndexMissingError, IndexMismatchError or EncoderError, each with its remedy.
        """
        retriever = Retriever.load(index_dir, encoder)
        return cls(retriever, SentenceReader(retriever.index, retriever.encoder))

    def answer(
        self, question: str, top_k: int = SETTINGS.top_k, stories: Sequence[str] | None = None
    ) -> Answer:
        """What the stories say, word for word, or why nothing is said.

        ``stories`` (ids) are the only ones asked. ``hits`` holds the ``top_k`` nearest passages
        either way, stories that hold the question's names first. Raises QuestionError on a blank
        or over-long question, UnknownStoryError on an unknown id.
        """
        check_query(question, top_k)
        rows = None if stories is None else self.index.story_rows(stories)
        asked = range(self.index.manifest.stories) if rows is None else rows
        names = self.index.names_in(question)
        unknown = [name for name in names if not self._is_known(name, asked)]
        holding = self._holding(names, asked)

        ranked, scores = self.retriever.rank(self.retriever.query(question), rows)
        owners = self.index.texts.passage_story[ranked]
        speaks = [int(owner) in holding for owner in owners]
        first = [place for place, may in enumerate(speaks) if may]
        rest = [place for place, may in enumerate(speaks) if not may]
        hits = self.retriever.hits(ranked[first + rest], scores[first + rest], top_k, rows)

        if unknown:
            texts = tuple(name.text for name in unknown)
            return Answer(question, "not_found", "unknown_name", (), tuple(hits), texts)
        candidates = self.retriever.hits(
            ranked[first], scores[first], SETTINGS.read_candidates, sorted(holding)
        )
        readings = self._reader.read(question, candidates)
        chosen = self._choose(readings, several=bool(names))
        best = max((reading.answerable for reading in readings), default=0.0)
        if not chosen:
            reason: Reason = "weak_evidence" if best >= SETTINGS.weak_evidence else "no_evidence"
            return Answer(question, "not_found", reason, (), tuple(hits), likelihood=best)
        findings = tuple(self._finding(reading) for reading in chosen)
        status: Status = "answered" if len(findings) == 1 else "ambiguous"
        shown = _with_cited(hits, [reading.hit for reading in chosen])
        return Answer(question, status, None, findings, tuple(shown), likelihood=best)

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
            for stem in name.stems:
                holding &= self.index.terms.stories_with(stem)
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
        return Finding(quote, None, Citation(story, passage, start, end, quote))


def _with_cited(hits: Sequence[Hit], cited: Sequence[Hit]) -> list[Hit]:
    """The hits, the cited passages first, ranked anew; as many as before."""
    ids = [hit.passage.id for hit in cited]
    ordered = [*cited, *(hit for hit in hits if hit.passage.id not in ids)]
    return [
        Hit(hit.passage, hit.score, rank, hit.title, hit.also_in)
        for rank, hit in enumerate(ordered[: len(hits)], start=1)
    ]


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
