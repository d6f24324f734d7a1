"""What a reader is measured on: questions with the passages that the product's search finds.

The passages of each question are kept on disk, so that every reader is asked the same.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mining import index_of
from question_sets import (
    TRAIN_SETS,
    VAL_SETS,
    StoryQuestion,
    StorySet,
    is_dev,
    read_lines,
    story_questions,
)

from ballet_qa.cross_encoder import Context
from ballet_qa.questions import is_right
from ballet_qa.reader import context_of
from ballet_qa.retriever import Retriever
from ballet_qa.types import Passage

DEPTH = 10


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that may answer. ``rank`` is the search's, from 1; 0 was not among the first.

    Right passages that the search did not find are kept too, to measure reading without searching.
    """

    context: Context
    right: bool
    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Case:
    """A question with its candidates, by rank, those not found last."""

    id: str
    source: str
    kind: str
    question: str
    answerable: bool
    answers: tuple[str, ...]
    candidates: tuple[Candidate, ...]

    @property
    def found(self) -> tuple[Candidate, ...]:
        """The candidates that the search found."""
        return tuple(c for c in self.candidates if c.rank)


def val_cases(
    data: Path, work: Path, seed: int, answerable: int, unanswerable: int
) -> dict[str, list[Case]]:
    """Up to so many questions of each validation set, drawn by a seed."""
    return {
        one.name: _cases(data, one, work, "val", (seed, answerable, unanswerable))
        for one in VAL_SETS
    }


def dev_cases(
    data: Path, work: Path, seed: int, answerable: int, unanswerable: int
) -> dict[str, list[Case]]:
    """The same of the training stories kept for calibration; these stories are the library."""
    return {
        one.name: _cases(data, one, work, "dev", (seed, answerable, unanswerable))
        for one in TRAIN_SETS
        if one.name in {"modern", "natural"}
    }


def _cases(
    data: Path, one: StorySet, work: Path, part: str, draw: tuple[int, int, int]
) -> list[Case]:
    file = work / "candidates" / f"{part}-{one.name}-{'-'.join(map(str, draw))}.jsonl"
    if not file.exists():
        questions = story_questions(data, one)
        if part == "dev":
            questions = [q for q in questions if is_dev(q.story)]
        cases = _searched(data, one, work, part, drawn(questions, *draw))
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        unfinished.write_text("".join(json.dumps(asdict(case)) + "\n" for case in cases), "utf-8")
        unfinished.replace(file)
    return [case_of(fields) for fields in read_lines(file)]


def drawn(
    questions: list[StoryQuestion], seed: int, answerable: int, unanswerable: int
) -> list[StoryQuestion]:
    """Questions drawn by a seed, in the set's order."""
    chosen: set[str] = set()
    for wanted, count in ((True, answerable), (False, unanswerable)):
        ids = [q.id for q in questions if q.answerable == wanted]
        order = np.random.default_rng([seed, zlib.crc32(b"draw")]).permutation(len(ids))
        chosen.update(ids[place] for place in order[:count].tolist())
    return [q for q in questions if q.id in chosen]


def _searched(
    data: Path, one: StorySet, work: Path, part: str, questions: list[StoryQuestion]
) -> list[Case]:
    retriever = Retriever.load(index_of(data, one, work))
    texts = retriever.index.texts
    stories = None
    if part == "dev":
        stories = [e.id for e in texts.catalogue() if is_dev(e.id)]
    cases = []
    for question in questions:
        hits = retriever.search(question.question, DEPTH, stories)
        found = {hit.passage.id: (hit.passage, hit.score, hit.rank) for hit in hits}
        for passage in _right_passages(retriever, question):
            found.setdefault(passage.id, (passage, 0.0, 0))
        candidates = [
            Candidate(
                context_of(texts, _row(retriever, passage)),
                is_right(passage, question.evidence),
                float(score),
                rank,
            )
            for passage, score, rank in found.values()
        ]
        cases.append(
            Case(
                question.id,
                question.source,
                question.kind,
                question.question,
                question.answerable,
                question.answers,
                tuple(candidates),
            )
        )
    return cases


def _right_passages(retriever: Retriever, question: StoryQuestion) -> list[Passage]:
    home = retriever.index.texts.story_row(question.story)
    if home is None or not question.answerable:
        return []
    passages = retriever.index.texts.passages_of(home)
    return [passage for passage in passages if is_right(passage, question.evidence)]


def _row(retriever: Retriever, passage: Passage) -> int:
    row = retriever.index.texts.passage_row(passage.id)
    assert row is not None, passage.id
    return row


def case_of(fields: dict[str, Any]) -> Case:
    """A case as it is kept on disk."""
    candidates = tuple(
        Candidate(Context(**c["context"]), c["right"], c["score"], c["rank"])
        for c in fields["candidates"]
    )
    return Case(**fields | {"answers": tuple(fields["answers"]), "candidates": candidates})
