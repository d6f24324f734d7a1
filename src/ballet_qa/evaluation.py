"""Measures of the retriever and the answerer on a file of questions with known evidence."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ballet_qa.answering import Answerer
from ballet_qa.errors import QuestionFileError
from ballet_qa.types import Hit, Passage, Span

DEPTHS = (1, 3, 5, 10, 50)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a question's answer stands: characters ``start:end`` of a story."""

    story: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Question:
    """A line of a question file."""

    id: str
    question: str
    answers: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    answerable: bool


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
            fields = json.loads(line)
            questions.append(
                Question(
                    id=str(fields["id"]),
                    question=str(fields["question"]),
                    answers=tuple(fields.get("answers", ())),
                    evidence=tuple(
                        Evidence(str(e["story"]), int(e["start"]), int(e["end"]))
                        for e in fields.get("evidence", ())
                    ),
                    answerable=bool(fields.get("answerable", True)),
                )
            )
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


def first_right(hits: Sequence[Hit], evidence: Sequence[Evidence]) -> int | None:
    """The rank of the first right hit, from 1, or None."""
    return next((hit.rank for hit in hits if is_right(hit.passage, evidence)), None)


def evaluate_file(answerer: Answerer, path: Path) -> dict[str, Any]:
    """Search and ask every question of a file.

    ``search`` and ``ask`` hold R@k over the answerable questions (the share whose first right hit
    is among the first k) and the mean reciprocal rank to depth 10; ``right_story_first`` the share
    whose first hit is of the right story. ``refused`` is the share of unanswerable questions that
    were not answered, ``wrongly_refused`` that of answerable ones.
    """
    questions = load_questions(path)
    known = {entry.id for entry in answerer.index.texts.catalogue()}
    answerable = [q for q in questions if q.answerable and q.evidence]
    missing = sorted({e.story for q in answerable for e in q.evidence} - known)
    if missing:
        raise QuestionFileError(
            f"{path} asks about {missing[0]!r} ({len(missing)} such), which this index lacks; "
            "build the index from the stories the questions are about"
        )
    searched: list[int | None] = []
    asked: list[int | None] = []
    right_story = right_quote = wrongly_refused = refused = 0
    seconds = []
    for question in questions:
        started = time.perf_counter()
        answer = answerer.answer(question.question, max(DEPTHS))
        seconds.append(time.perf_counter() - started)
        if not question.answerable:
            refused += answer.status == "not_found"
            continue
        if not question.evidence:
            continue
        hits = answerer.retriever.search(question.question, max(DEPTHS))
        searched.append(first_right(hits, question.evidence))
        asked.append(first_right(answer.hits, question.evidence))
        stories = {span.story for span in question.evidence}
        right_story += bool(hits) and hits[0].passage.story_id in stories
        wrongly_refused += answer.status == "not_found"
        right_quote += any(
            is_right(finding.citation.passage, question.evidence) for finding in answer.findings
        )
    unanswerable = sum(not question.answerable for question in questions)
    count = len(answerable)
    return {
        "questions": len(questions),
        "answerable": count,
        "unanswerable": unanswerable,
        "search": _ranks(searched),
        "ask": _ranks(asked),
        "right_story_first": _share(right_story, count),
        "quoted_from_evidence": _share(right_quote, count),
        "wrongly_refused": _share(wrongly_refused, count),
        "refused": _share(refused, unanswerable),
        "ask_ms": {
            "p50": round(float(np.percentile(seconds, 50)) * 1000, 1),
            "p95": round(float(np.percentile(seconds, 95)) * 1000, 1),
        },
    }


def report_text(name: str, report: dict[str, Any]) -> str:
    """A report as lines for a terminal."""
    lines = [
        f"{name}: {report['questions']} questions "
        f"({report['answerable']} answerable, {report['unanswerable']} not)"
    ]
    for row in ("search", "ask"):
        if report[row]:
            cells = "  ".join(f"{measure} {value:.3f}" for measure, value in report[row].items())
            lines.append(f"  {row:<7} {cells}")
    for row in ("right_story_first", "quoted_from_evidence", "wrongly_refused", "refused"):
        if report[row] is not None:
            lines.append(f"  {row.replace('_', ' '):<21} {report[row]:.3f}")
    lines.append(f"  ask p50 {report['ask_ms']['p50']} ms, p95 {report['ask_ms']['p95']} ms (warm)")
    return "\n".join(lines)


def _ranks(firsts: Sequence[int | None]) -> dict[str, float]:
    if not firsts:
        return {}
    found = {f"R@{k}": sum(f is not None and f <= k for f in firsts) / len(firsts) for k in DEPTHS}
    mean = sum(1 / f for f in firsts if f is not None and f <= 10) / len(firsts)
    return {name: round(value, 4) for name, value in (found | {"RR@10": mean}).items()}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
