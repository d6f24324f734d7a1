"""Ask every question of a file, and say how good the hits, the answers and the refusals were.

Two steps, so that the figures can be computed anew by anyone: `run` asks, and keeps what came back
question by question; `report` is arithmetic on that. docs/evaluation.md defines every row and
measure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ballet_qa.answering import Answerer
from ballet_qa.errors import QuestionFileError
from ballet_qa.metrics import (
    DEPTHS,
    area_under_risk,
    bootstrap,
    calibration_error,
    exact_match,
    mean,
    ranking_measures,
    rouge_l,
    selective_risk,
    token_f1,
)
from ballet_qa.names import names_in_question
from ballet_qa.questions import Question, is_right
from ballet_qa.shards import AnyTexts
from ballet_qa.terminal import one_line
from ballet_qa.types import Answer, Hit, Reason, Status
from ballet_qa.words import terms

FEW_WORDS = 0.5

Report: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """What came back for one question. Passages and stories are ids; times are milliseconds.

    ``searched`` and ``asked`` are the first 50 hits of `search` and of `ask`. ``shared`` is the
    share of the question's words that stand in the evidence, None for unanswerable questions.
    ``verbatim`` counts the quotes that are the story's own words at the offsets given.
    """

    question: Question
    named: bool
    shared: float | None
    qrels: frozenset[str]
    searched: tuple[str, ...]
    asked: tuple[str, ...]
    searched_story_first: bool
    asked_story_first: bool
    status: Status
    reason: Reason | None
    likelihood: float
    confidence: float | None
    answer: str
    quoted_right: bool
    quotes: int
    verbatim: int
    search_ms: float
    ask_ms: float

    @property
    def answered(self) -> bool:
        """Whether anything was answered."""
        return self.status != "not_found"

    @property
    def right(self) -> bool:
        """Whether the passage it would answer from does answer."""
        return bool(self.asked) and self.asked[0] in self.qrels

    def relevance(self, ranking: Sequence[str]) -> list[bool]:
        """Which hits of a ranking are right, in its order."""
        return [passage in self.qrels for passage in ranking]


@dataclass(frozen=True, slots=True)
class Run:
    """Every question asked of the whole library, and the answerable ones of their story alone."""

    library: tuple[Case, ...]
    in_story: tuple[Case, ...]


def run(
    answerer: Answerer,
    questions: Sequence[Question],
    progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Ask them all. Raises QuestionFileError when the index lacks a story they are about."""
    known = {entry.id for entry in answerer.index.texts.catalogue()}
    missing = sorted({e.story for q in questions for e in q.evidence} - known)
    if missing:
        raise QuestionFileError(
            f"the questions are about {missing[0]!r} ({len(missing)} such), which this index "
            "lacks; build the index from the stories the questions are about"
        )
    library, in_story = [], []
    for number, question in enumerate(questions, start=1):
        wanted = _wanted(answerer.index.texts, question)
        library.append(_ask(answerer, question, wanted, None))
        if question.answerable and question.evidence:
            stories = sorted({e.story for e in question.evidence})
            in_story.append(_ask(answerer, question, wanted, stories))
        if progress is not None:
            progress(number, len(questions))
    return Run(tuple(library), tuple(in_story))


def _wanted(texts: AnyTexts, question: Question) -> tuple[frozenset[str], float | None]:
    """The right passages' ids, and the share of the question's words that the evidence has."""
    rows = {e.story: texts.story_row(e.story) for e in question.evidence}
    right = frozenset(
        passage.id
        for row in rows.values()
        if row is not None
        for passage in texts.passages_of(row)
        if is_right(passage, question.evidence)
    )
    told = " ".join(
        texts.story(row).text[e.start : e.end]
        for e in question.evidence
        if (row := rows[e.story]) is not None
    )
    return right, words_shared(question.question, told) if question.evidence else None


def _ask(
    answerer: Answerer,
    question: Question,
    wanted: tuple[frozenset[str], float | None],
    stories: list[str] | None,
) -> Case:
    depth = max(DEPTHS)
    started = time.perf_counter()
    hits = answerer.retriever.search(question.question, depth, stories)
    searched = time.perf_counter()
    answer = answerer.answer(question.question, depth, stories)
    answered = time.perf_counter()
    qrels, shared = wanted
    named = question.named
    stories_told = {e.story for e in question.evidence}
    return Case(
        question=question,
        named=bool(names_in_question(question.question)) if named is None else named,
        shared=shared,
        qrels=qrels,
        searched=_ids(hits),
        asked=_ids(answer.hits),
        searched_story_first=_is_first(hits, stories_told),
        asked_story_first=_is_first(answer.hits, stories_told),
        status=answer.status,
        reason=answer.reason,
        likelihood=answer.likelihood,
        confidence=answer.findings[0].confidence if answer.findings else None,
        answer=answer.findings[0].answer if answer.findings else "",
        quoted_right=any(
            is_right(f.citation.passage, question.evidence) for f in answer.findings[:1]
        ),
        quotes=len(answer.findings),
        verbatim=_verbatim(answerer, answer),
        search_ms=(searched - started) * 1000,
        ask_ms=(answered - searched) * 1000,
    )


def words_shared(question: str, told: str) -> float:
    """The share of a question's distinct meaningful words that the evidence has too."""
    asked = set(terms(question))
    return len(asked & set(terms(told))) / len(asked) if asked else 0.0


def _is_first(hits: Sequence[Hit], stories: set[str]) -> bool:
    return bool(hits) and hits[0].passage.story_id in stories


def _ids(hits: Sequence[Hit]) -> tuple[str, ...]:
    return tuple(hit.passage.id for hit in hits)


def _verbatim(answerer: Answerer, answer: Answer) -> int:
    """How many quotes are what the index keeps at their offsets, read once more."""
    count = 0
    for finding in answer.findings:
        citation = finding.citation
        row = answerer.index.texts.story_row(citation.story.id)
        if row is not None:
            text = answerer.index.texts.story(row).text
            count += text[citation.start : citation.end] == citation.quote != ""
    return count


def report(done: Run) -> Report:
    """The measures of a run, row by row, each an Estimate's four numbers, or None.

    ``risk_coverage`` is the curve over all questions: pairs of the share answered when only the
    surest are, and the share of wrong ones among these.
    """
    answerable = [case for case in done.library if case.question.answerable]
    return {
        "questions": len(done.library),
        "answerable": len(answerable),
        "unanswerable": len(done.library) - len(answerable),
        "rows": {name: measures(cases) for name, cases in rows(done)},
        "risk_coverage": _curve(done.library),
    }


def rows(done: Run) -> Iterator[tuple[str, list[Case]]]:
    """The rows of a report: a name and its cases. Rows without questions are left out."""
    cases = done.library
    answerable = [case for case in cases if case.question.answerable and case.question.evidence]
    unanswerable = [case for case in cases if not case.question.answerable]
    few = [case for case in answerable if (case.shared or 0.0) <= FEW_WORDS]
    made: list[tuple[str, list[Case]]] = [
        ("all", list(cases)),
        ("carries a name", [case for case in answerable if case.named]),
        ("inside the right story", list(done.in_story)),
        ("paraphrased (few words shared)", few),
        ("many words shared", [case for case in answerable if case not in few]),
        ("unanswerable, absent name", [case for case in unanswerable if case.question.absent]),
        ("unanswerable, on topic", [case for case in unanswerable if not case.question.absent]),
        ("explicit", [case for case in answerable if case.question.explicit is True]),
        ("implicit", [case for case in answerable if case.question.explicit is False]),
    ]
    for kind in sorted({kind for case in cases for kind in case.question.kinds}):
        made.append((f"kind: {kind}", [case for case in cases if kind in case.question.kinds]))
    yield from ((name, held) for name, held in made if held)


def measures(cases: Sequence[Case]) -> Report:
    """Every measure of one row; None where no question of the row can tell it."""
    answerable = [case for case in cases if case.question.answerable and case.question.evidence]
    refusable = [case for case in cases if not case.question.answerable]
    told = [case for case in cases if case.question.answerable and case.question.answers]
    quotes = [case.verbatim == case.quotes for case in cases if case.answered]
    return {
        "n": len(cases),
        "search": _ranking(answerable, [case.searched for case in answerable])
        | {"right_story_first": _mean(case.searched_story_first for case in answerable)},
        "ask": _ranking(answerable, [case.asked for case in answerable])
        | {"right_story_first": _mean(case.asked_story_first for case in answerable)},
        "answer": {
            "token_f1": _mean(token_f1(c.answer, c.question.answers) for c in told),
            "rouge_l": _mean(rouge_l(c.answer, c.question.answers) for c in told),
            "exact_match": _mean(exact_match(c.answer, c.question.answers) for c in told),
            "quoted_from_evidence": _mean(case.quoted_right for case in answerable),
        },
        "quotes_verbatim": _mean(quotes),
        "refused": _mean(not case.answered for case in refusable),
        "wrongly_refused": _mean(not case.answered for case in cases if case.question.answerable),
        "balanced_accuracy": _balanced(cases),
        "area_under_risk": _over(cases, _risk_area),
        "calibration_error": _over([c for c in cases if c.confidence is not None], _calibration),
        "search_ms": _times([case.search_ms for case in cases]),
        "ask_ms": _times([case.ask_ms for case in cases]),
    }


def _ranking(cases: Sequence[Case], rankings: Sequence[Sequence[str]]) -> Report:
    made = [
        ranking_measures(case.relevance(ranking), len(case.qrels))
        for case, ranking in zip(cases, rankings, strict=True)
    ]
    names = ranking_measures([], 0)  # a row without rankings shows its measures as None
    return {name: _mean(held[name] for held in made) for name in names}


def _mean(values: Iterator[float] | Iterator[bool] | Sequence[bool]) -> Report | None:
    column = [float(value) for value in values]
    return asdict(mean(column)) if column else None


def _balanced(cases: Sequence[Case]) -> Report | None:
    """The mean of the shares rightly answered-at-all and rightly refused."""
    wanted = np.array([case.question.answerable for case in cases])
    answered = np.array([case.answered for case in cases])
    if wanted.all() or not wanted.any():
        return None

    def statistic(drawn: NDArray[np.int64]) -> float:
        want, got = wanted[drawn], answered[drawn]
        shares = [
            (got[want == side] == side).mean() for side in (True, False) if (want == side).any()
        ]
        return float(np.mean(shares))

    return asdict(bootstrap(statistic, len(cases)))


def _over(
    cases: Sequence[Case], measure: Callable[[Sequence[Case]], Callable[[NDArray[np.int64]], float]]
) -> Report | None:
    return asdict(bootstrap(measure(cases), len(cases))) if cases else None


def _risk_area(cases: Sequence[Case]) -> Callable[[NDArray[np.int64]], float]:
    scores, right = _surety(cases)
    return lambda drawn: area_under_risk(scores[drawn], right[drawn])


def _calibration(cases: Sequence[Case]) -> Callable[[NDArray[np.int64]], float]:
    confidences = np.array([case.confidence for case in cases], dtype=np.float64)
    right = np.array([case.quoted_right for case in cases], dtype=np.float64)
    return lambda drawn: calibration_error(confidences[drawn], right[drawn])


def _surety(cases: Sequence[Case]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scores = np.array([case.likelihood for case in cases], dtype=np.float64)
    return scores, np.array([case.right for case in cases], dtype=np.float64)


def _curve(cases: Sequence[Case], points: int = 50) -> list[tuple[float, float]]:
    scores, right = _surety(cases)
    risks = selective_risk(scores, right)
    places = np.unique(np.linspace(1, len(risks), min(points, len(risks))).astype(int))
    return [(float(place / len(risks)), float(risks[place - 1])) for place in places]


def _times(milliseconds: Sequence[float]) -> Report:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


def case_form(case: Case) -> Report:
    """A case as JSON: all that is needed to compute every measure anew."""
    question = case.question
    return {
        "id": question.id,
        "question": question.question,
        "answers": list(question.answers),
        "answerable": question.answerable,
        "kinds": list(question.kinds),
        "explicit": question.explicit,
        "absent": list(question.absent),
        "named": case.named,
        "words_shared": case.shared,
        "qrels": sorted(case.qrels),
        "search": list(case.searched),
        "ask": list(case.asked),
        "searched_story_first": case.searched_story_first,
        "asked_story_first": case.asked_story_first,
        "status": case.status,
        "reason": case.reason,
        "likelihood": case.likelihood,
        "confidence": case.confidence,
        "answer": case.answer,
        "quoted_from_evidence": case.quoted_right,
        "quotes": case.quotes,
        "quotes_verbatim": case.verbatim,
        "search_ms": case.search_ms,
        "ask_ms": case.ask_ms,
    }


def report_text(name: str, made: Report) -> str:
    """A report as tables for a terminal, neutralised.

    `.555 .52–.59` is a value and its 95 % interval.
    """
    lines = [
        f"{one_line(name)}: {made['questions']} questions, {made['answerable']} answerable, "
        f"{made['unanswerable']} not. Each value with its 95 % bootstrap interval."
    ]
    ranks = {name: name for name in [*(f"R@{k}" for k in DEPTHS), "RR@10", "nDCG@10"]}
    ranks["story 1st"] = "right_story_first"
    tables: tuple[tuple[str, dict[str, tuple[str, ...]]], ...] = (
        ("search", {name: ("search", held) for name, held in ranks.items()}),
        ("ask", {name: ("ask", held) for name, held in ranks.items()}),
        (
            "answers",
            {
                "token F1": ("answer", "token_f1"),
                "ROUGE-L": ("answer", "rouge_l"),
                "EM": ("answer", "exact_match"),
                "from evid.": ("answer", "quoted_from_evidence"),
                "verbatim": ("quotes_verbatim",),
                "refused": ("refused",),
                "wrongly": ("wrongly_refused",),
                "balanced": ("balanced_accuracy",),
                "AURC": ("area_under_risk",),
                "ECE": ("calibration_error",),
            },
        ),
    )
    for title, columns in tables:
        lines += ["", _text_row(title, "n", list(columns))]
        for row, held in made["rows"].items():
            cells = [_cell(_at(held, path)) for path in columns.values()]
            if any(cells):
                lines.append(_text_row(one_line(row), str(held["n"]), cells))
    times = made["rows"]["all"]
    lines += [
        "",
        "Risk (share with a wrong first passage) when only the surest are answered: "
        + ", ".join(f"{risk:.3f} of {share:.0%}" for share, risk in _quarters(made)),
        "  ".join(
            f"{what[:-3]} p50 {times[what]['p50']:.0f} ms, p95 {times[what]['p95']:.0f} ms"
            for what in ("search_ms", "ask_ms")
        )
        + " (warm)",
    ]
    return "\n".join(lines)


def _quarters(made: Report) -> list[tuple[float, float]]:
    """The points of the curve nearest to a quarter, a half, three quarters and all."""
    curve = made["risk_coverage"]
    return [min(curve, key=lambda point: abs(point[0] - part)) for part in (0.25, 0.5, 0.75, 1.0)]


def _text_row(name: str, count: str, cells: Sequence[str]) -> str:
    return f"{name:<31}{count:>5}  " + "  ".join(f"{cell:<13}" for cell in cells).rstrip()


def _at(held: Report, path: Sequence[str]) -> Report | None:
    value: Any = held
    for name in path:
        value = value[name]
    return value if value is None else dict(value)


def _cell(estimate: Report | None) -> str:
    if estimate is None:
        return ""
    shown = f"{estimate['value']:.3f} {estimate['low']:.2f}–{estimate['high']:.2f}"
    return shown.replace("0.", ".")
