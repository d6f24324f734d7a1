"""One story to passages and sentences. Pure: text in, offsets out.

Paragraphs are blocks of lines between blank lines; a text without blank lines whose lines are
long has a paragraph a line. Sentence ends come from sentencex (Wikimedia), the best of the three
splitters tried on dialogue, ellipses and closing quotes, and a hundred times the fastest.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

import sentencex

from ballet_qa.settings import SETTINGS
from ballet_qa.types import Passage, Section, Span

_BLANK_LINE = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")
_LINE_END = re.compile(r"\n")
_WORD = re.compile(r"\w+")
_LONGEST_WORD = 12  # characters; beyond it a script does not part its words, or it is no word
_SCENE_MARK = re.compile(r"[*#⁂~•·✦❦❧§=_+\-–—\s]+")
_LONGEST_MARK = 80
# sentencex ends a sentence at a closing quote only when a space follows; “…?” “…” needs help.
_BETWEEN_QUOTES = re.compile(r"(?<=[.!?…][”’»])\s+(?=[“‘«])|(?<=[.!?…][”»])\s+(?=[^\W\d_a-z])")


def split_passages(story_id: str, text: str, sections: Sequence[Section] = ()) -> list[Passage]:
    """The story's passages in order; none crosses from one of its ``sections`` to the next.

    Together they cover every character that is not white space, but for the marks that stand
    between two scenes ("* * *").
    """
    passages: list[Passage] = []
    paragraphs = _apart(paragraph_spans(text), sections, text)
    told = [p for p in paragraphs if not is_scene_mark(text[p.start : p.end])] or paragraphs
    for number, paragraph in enumerate(told, start=1):
        parts = list(_parts(text, paragraph))
        for part_number, part in enumerate(parts, start=1):
            suffix = f".{part_number}" if len(parts) > 1 else ""
            passages.append(
                Passage(
                    id=f"{story_id}#{number}{suffix}",
                    story_id=story_id,
                    number=number,
                    start=part.start,
                    end=part.end,
                    text=text[part.start : part.end],
                )
            )
    return passages


def section_numbers(passages: Sequence[Passage], sections: Sequence[Section]) -> list[int]:
    """The number of the section that each passage stands in, 0 before the first."""
    starts = [section.start for section in sections]
    return [bisect_right(starts, passage.start) for passage in passages]


def is_scene_mark(text: str) -> bool:
    """Whether a paragraph is only the ornament between two scenes."""
    return 0 < len(text) <= _LONGEST_MARK and _SCENE_MARK.fullmatch(text) is not None


def paragraph_spans(text: str) -> list[Span]:
    """The story's paragraphs, trimmed of white space."""
    by_blank_line = list(_pieces(text, Span(0, len(text)), _BLANK_LINE))
    if len(by_blank_line) > 1:
        return by_blank_line
    by_line = list(_pieces(text, Span(0, len(text)), _LINE_END))
    # Without blank lines, short lines are a wrapped paragraph and long ones are paragraphs.
    long_lines = sum(line.end - line.start > SETTINGS.wrapped_line_chars for line in by_line)
    return by_line if long_lines * 2 > len(by_line) else by_blank_line


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """The sentences of ``text[start:end]``: in order, trimmed, only white space between them."""
    end = len(text) if end is None else end
    spans: list[Span] = []
    body = text[start:end]
    # sentencex takes a line end for a sentence end; in a wrapped paragraph it is a space.
    boundaries = sentencex.get_sentence_boundaries("en", body.replace("\n", " "))
    for boundary in boundaries:
        # Offsets are counted in characters; asserted by the tiling property test.
        piece = Span(start + boundary["start_index"], start + boundary["end_index"])
        spans.extend(_pieces(text, piece, _BETWEEN_QUOTES))
    return spans


def word_count(text: str) -> int:
    """How many words ``text`` has."""
    return sum(1 for _ in _WORD.finditer(text))


def _pieces(text: str, span: Span, separator: re.Pattern[str]) -> Iterator[Span]:
    """What lies between the separators inside ``span``, trimmed; empty pieces are left out."""
    position = span.start
    for match in separator.finditer(text, span.start, span.end):
        yield from _trimmed(text, position, match.start())
        position = match.end()
    yield from _trimmed(text, position, span.end)


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    body = text[start:end]
    stripped = body.strip()
    if stripped:
        lead = len(body) - len(body.lstrip())
        yield Span(start + lead, start + lead + len(stripped))


def _apart(paragraphs: Sequence[Span], sections: Sequence[Section], text: str) -> list[Span]:
    """The paragraphs, those that a section begins in the midst of divided there."""
    walls = [section.start for section in sections]
    if not walls:
        return list(paragraphs)
    divided: list[Span] = []
    for span in paragraphs:
        inside = walls[bisect_right(walls, span.start) : bisect_left(walls, span.end)]
        for start, end in pairwise([span.start, *inside, span.end]):
            divided.extend(_trimmed(text, start, end))
    return divided


def _parts(text: str, paragraph: Span) -> Iterator[Span]:
    """A paragraph whole, or, when very long, in parts of about equal length at sentence ends."""
    total = _size(text, paragraph)
    if total <= SETTINGS.longest_passage_words:
        yield paragraph
        return
    wanted = -(-total // SETTINGS.longest_passage_words)
    start, words, done = paragraph.start, 0, 0
    sentences = [
        piece
        for sentence in sentence_spans(text, paragraph.start, paragraph.end)
        for piece in _cut(text, sentence)
    ]
    for sentence, following in zip(sentences, [*sentences[1:], None], strict=True):
        words += _size(text, sentence)
        if following is None:
            yield Span(start, sentence.end)
        elif words >= total * (done + 1) / wanted:
            yield Span(start, sentence.end)
            start, done = following.start, done + 1


def _size(text: str, span: Span) -> int:
    """How many words, a run of letters without end counting as many as it could hold."""
    words = word_count(text[span.start : span.end])
    return max(words, (span.end - span.start) // _LONGEST_WORD)


def _cut(text: str, sentence: Span) -> Iterator[Span]:
    """A sentence whole, or, when it alone is too long for a passage, in pieces at white space."""
    if _size(text, sentence) <= SETTINGS.longest_passage_words:
        yield sentence
        return
    longest = SETTINGS.longest_passage_words * _LONGEST_WORD // 2
    start = sentence.start
    while sentence.end - start > longest:
        end = start + longest
        space = max(text.rfind(mark, start + longest // 2, end) for mark in " \n。、，")
        end = space + 1 if space > 0 else end
        yield from _trimmed(text, start, end)
        start = end
    yield from _trimmed(text, start, sentence.end)
