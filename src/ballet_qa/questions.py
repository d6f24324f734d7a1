"""Question files: questions with their reference answers and where in the stories these stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ballet_qa.errors import QuestionFileError
from ballet_qa.types import Passage, Span


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a question's answer stands: characters ``start:end`` of a story."""

    story: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Question:
    """A line of a question file.

    The last four fields are notes that sort questions into the rows of a report; a file need not
    have them. ``named`` says that the question names somebody, ``explicit`` that its answer stands
    in so many words; both are None where nothing is noted. ``absent`` lists names in an
    unanswerable question that are nowhere in the stories.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    answerable: bool
    kinds: tuple[str, ...] = ()
    explicit: bool | None = None
    named: bool | None = None
    absent: tuple[str, ...] = ()


def load_questions(path: Path) -> list[Question]:
    """The questions of a JSON-lines file. Raises QuestionFileError naming the line at fault."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise QuestionFileError(f"{path} cannot be read: {error}; give UTF-8 JSON lines") from error
    questions = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            questions.append(_question(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise QuestionFileError(
                f"{path}, line {number}: {error!r}; a line is "
                '{"id", "question", "answers", "evidence": [{"story", "start", "end"}]}'
            ) from error
    if not questions:
        raise QuestionFileError(f"{path} holds no questions")
    return questions


def is_right(passage: Passage, evidence: Sequence[Evidence]) -> bool:
    """Whether at least half of the passage lies inside one span of the evidence."""
    return any(
        span.story == passage.story_id
        and 2 * overlap(Span(passage.start, passage.end), Span(span.start, span.end))
        >= passage.end - passage.start
        for span in evidence
    )


def overlap(one: Span, other: Span) -> int:
    """How many characters two spans share."""
    return max(0, min(one.end, other.end) - max(one.start, other.start))


def _question(fields: dict[str, Any]) -> Question:
    kind = fields.get("kind", ())
    named = fields.get("named")
    if named is None and "ambiguity" in fields:  # how FairytaleQA's questions are noted
        named = fields["ambiguity"] == "named"
    return Question(
        id=str(fields["id"]),
        question=str(fields["question"]),
        answers=_words(fields.get("answers", ())),
        evidence=tuple(
            Evidence(str(e["story"]), int(e["start"]), int(e["end"]))
            for e in fields.get("evidence", ())
        ),
        answerable=bool(fields.get("answerable", True)),
        kinds=(kind,) if isinstance(kind, str) else _words(kind),
        explicit=fields.get("explicit"),
        named=named,
        absent=_words(fields.get("absent", ())),
    )


def _words(values: Any) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"{values!r} stands where a list of texts is wanted")
    return tuple(str(value) for value in values)
