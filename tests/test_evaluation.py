"""The evaluation of a run: its rows, its arithmetic, and that its JSON tells everything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, Success, nDCG

from ballet_qa.answering import Answerer
from ballet_qa.errors import QuestionFileError
from ballet_qa.evaluation import Case, Run, case_form, measures, report, report_text, rows, run
from ballet_qa.questions import Evidence, Question, is_right, load_questions
from ballet_qa.types import Passage
from conftest import SEEDS

EVIDENCE = Evidence("tale", 100, 200)


def question(number: int, **fields: object) -> Question:
    made = Question(str(number), "Who?", ("a swan",), (EVIDENCE,), answerable=True)
    return replace(made, **fields)  # type: ignore[arg-type]


def case(asked: Question, /, **fields: object) -> Case:
    made = Case(
        question=asked,
        named=False,
        shared=1.0 if asked.answerable else None,
        qrels=frozenset({"tale#2"}) if asked.answerable else frozenset(),
        searched=("tale#1", "tale#2"),
        asked=("tale#2", "tale#1"),
        searched_story_first=asked.answerable,
        asked_story_first=False,
        status="answered",
        reason=None,
        likelihood=0.5,
        confidence=None,
        answer="the swan",
        quoted_right=asked.answerable,
        quotes=1,
        verbatim=1,
        search_ms=10.0,
        ask_ms=20.0,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def nothing_said(asked: Question, /, **fields: object) -> Case:
    silent = {"status": "not_found", "answer": "", "quoted_right": False, "quotes": 0}
    return case(asked, **(silent | {"verbatim": 0, "reason": "no_evidence"} | fields))


UNASKABLE = question(9, answerable=False, answers=(), evidence=())


def value(table: dict[str, object], *path: str) -> object:
    held: object = table
    for name in path:
        assert isinstance(held, dict)
        held = held[name]
    return held if held is None else held["value"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("start", "end", "right"), [(100, 200, True), (50, 149, False), (50, 150, True), (0, 90, False)]
)
def test_a_hit_is_right_when_half_of_it_lies_in_the_evidence(
    start: int, end: int, right: bool
) -> None:
    passage = Passage("tale#1", "tale", 1, start, end, "x" * (end - start))
    assert is_right(passage, [EVIDENCE]) == right
    assert not is_right(replace(passage, story_id="other"), [EVIDENCE])


def test_measures_by_hand() -> None:
    made = measures(
        [
            case(question(1), likelihood=0.9),
            nothing_said(question(2), likelihood=0.1, asked=("tale#1",)),
            case(UNASKABLE, likelihood=0.5, quotes=2, verbatim=1),
            nothing_said(UNASKABLE, likelihood=0.0),
        ]
    )
    assert made["n"] == 4
    assert (value(made, "search", "R@1"), value(made, "search", "R@3")) == (0.0, 1.0)
    assert (value(made, "ask", "R@1"), value(made, "ask", "R@3")) == (0.5, 0.5)
    assert value(made, "search", "RR@10") == 0.5
    assert value(made, "search", "nDCG@10") == pytest.approx(1 / np.log2(3))
    assert value(made, "search", "right_story_first") == 1.0
    assert value(made, "ask", "right_story_first") == 0.0
    assert value(made, "answer", "token_f1") == 0.5  # "the swan" is "a swan"; silence is 0
    assert value(made, "answer", "quoted_from_evidence") == 0.5
    assert value(made, "quotes_verbatim") == 0.5
    assert value(made, "refused") == 0.5
    assert value(made, "wrongly_refused") == 0.5
    assert value(made, "balanced_accuracy") == 0.5
    # Surest first: right, wrong (unanswerable), wrong, wrong.
    assert value(made, "area_under_risk") == pytest.approx((0 + 1 / 2 + 2 / 3 + 3 / 4) / 4)
    assert made["calibration_error"] is None
    assert made["search_ms"] == {"p50": 10.0, "p95": 10.0}


def test_a_question_without_evidence_counts_for_its_answer_only() -> None:
    made = measures([case(question(1, evidence=()), qrels=frozenset(), quoted_right=False)])
    assert (made["search"]["R@1"], made["answer"]["quoted_from_evidence"]) == (None, None)
    assert value(made, "answer", "token_f1") == 1.0
    assert value(made, "wrongly_refused") == 0.0


def test_confidence_is_held_against_what_was_quoted() -> None:
    made = measures(
        [case(question(1), confidence=0.8), case(question(2), confidence=0.8, quoted_right=False)]
    )
    assert value(made, "calibration_error") == pytest.approx(0.3)


def test_rows_sort_questions_by_what_is_noted_and_what_they_share() -> None:
    cases = [
        case(question(1, explicit=True, kinds=("action", "setting")), named=True),
        case(question(2, explicit=False, kinds=("action",)), shared=0.2),
        case(replace(UNASKABLE, absent=("Aina",))),
        case(replace(UNASKABLE, kinds=("absent-fact",))),
    ]
    held = {name: len(of) for name, of in rows(Run(tuple(cases), tuple(cases[:2])))}
    assert held == {
        "all": 4,
        "carries a name": 1,
        "inside the right story": 2,
        "paraphrased (few words shared)": 1,
        "many words shared": 1,
        "unanswerable, absent name": 1,
        "unanswerable, on topic": 1,
        "explicit": 1,
        "implicit": 1,
        "kind: absent-fact": 1,
        "kind: action": 2,
        "kind: setting": 1,
    }


def test_the_json_alone_is_enough_to_compute_the_report_anew(answerer: Answerer) -> None:
    questions = load_questions(Path(__file__).with_name("seed_questions.jsonl"))[::3]
    done = run(answerer, questions)
    made = report(done)
    forms = json.loads(json.dumps([case_form(c) for c in done.library]))
    told = [form for form in forms if form["qrels"]]
    qrels = [ir_measures.Qrel(f["id"], p, 1) for f in told for p in f["qrels"]]
    for kind in ("search", "ask"):
        hits = [
            ir_measures.ScoredDoc(form["id"], passage, -rank)
            for form in told
            for rank, passage in enumerate(form[kind])
        ]
        theirs = ir_measures.calc_aggregate(
            [Success @ 1, Success @ 5, RR @ 10, nDCG @ 10], qrels, hits
        )
        ours = made["rows"]["all"][kind]
        assert ours["R@1"]["value"] == pytest.approx(theirs[Success @ 1], abs=1e-12)
        assert ours["R@5"]["value"] == pytest.approx(theirs[Success @ 5], abs=1e-12)
        assert ours["RR@10"]["value"] == pytest.approx(theirs[RR @ 10], abs=1e-12)
        assert ours["nDCG@10"]["value"] == pytest.approx(theirs[nDCG @ 10], abs=1e-12)
    row = made["rows"]["all"]
    refused = [f["status"] == "not_found" for f in forms if not f["answerable"]]
    assert row["refused"]["value"] == pytest.approx(np.mean(refused))
    assert row["quotes_verbatim"] == {
        "value": 1.0,
        "low": 1.0,
        "high": 1.0,
        "n": sum(f["quotes"] > 0 for f in forms),
    }
    assert made["rows"]["inside the right story"]["n"] == len(told)
    assert made["risk_coverage"][-1][0] == 1.0
    shown = report_text("seeds", made)
    assert f"{len(questions)} questions" in shown
    assert f"{made['risk_coverage'][-1][1]:.3f} of 100%" in shown


def test_a_question_about_a_story_that_is_not_there_stops_it(answerer: Answerer) -> None:
    with pytest.raises(QuestionFileError, match="'tale'"):
        run(answerer, [question(1)])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "line 2"),
        ('{"question": "Who?"}', "'id'"),
        ('{"id": 1, "question": "Who?", "answers": "a swan"}', "list of texts"),
        ('{"id": 1, "question": "Who?", "evidence": [{"story": "a"}]}', "'start'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(f"\n{line}\n", "utf-8")
    with pytest.raises(QuestionFileError, match=fault):
        load_questions(path)


def test_notes_of_fairytaleqa_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"id": "a", "question": "Who?", "kind": ["action"], "explicit": false, '
        '"ambiguity": "named"}\n{"id": "b", "question": "Who?", "kind": "who", "named": false}\n'
    )
    first, second = load_questions(path)
    assert (first.kinds, first.explicit, first.named) == (("action",), False, True)
    assert (second.kinds, second.explicit, second.named) == (("who",), None, False)


def test_the_plain_questions_have_their_answers_in_their_evidence() -> None:
    """Thirty questions as visitors type them; the reader is measured by them, not held to them."""
    questions = load_questions(Path(__file__).with_name("plain_questions.jsonl"))
    assert len(questions) == 30
    assert sum(question.answerable for question in questions) == 22
    for question in questions:
        evidence = " ".join(
            (SEEDS / f"{one.story}.txt").read_text("utf-8")[one.start : one.end]
            for one in question.evidence
        )
        assert all(answer in evidence for answer in question.answers), question.id
