"""The measures against the libraries and the script that define them."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, Success, nDCG
from rouge_score.rouge_scorer import RougeScorer
from torchmetrics.functional.text import squad

from ballet_qa.metrics import (
    Estimate,
    area_under_risk,
    bootstrap,
    calibration_error,
    exact_match,
    mean,
    ndcg,
    reciprocal_rank,
    rouge_l,
    selective_risk,
    success_at,
    token_f1,
)

rankings = st.lists(st.booleans(), max_size=60)
texts = st.lists(
    st.sampled_from(["the", "a", "Swan", "swan", "lake", "Lake!", "an", "on", "it's", "-", "bow"]),
    max_size=8,
).map(" ".join)


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_answers_are_scored_as_squads_script_scores_them(
    answer: str, references: list[str]
) -> None:
    # torchmetrics carries SQuAD's script; it gives per cent in single precision.
    theirs = squad(
        {"prediction_text": answer, "id": "1"},
        {"answers": {"answer_start": [0] * len(references), "text": references}, "id": "1"},
    )
    assert token_f1(answer, references) == pytest.approx(float(theirs["f1"]) / 100, abs=1e-7)
    assert exact_match(answer, references) == float(theirs["exact_match"]) / 100


@pytest.mark.parametrize(
    ("answer", "reference", "f1", "exact"),
    [
        ("The swan.", "a SWAN", 1.0, 1.0),
        ("the swan of the lake", "swan lake", 2 * (2 / 3) / (2 / 3 + 1), 0.0),
        ("swan swan", "swan", 2 * 0.5 / 1.5, 0.0),
        ("", "swan", 0.0, 0.0),
        ("the", "a", 1.0, 1.0),
    ],
)
def test_answers_scored_by_hand(answer: str, reference: str, f1: float, exact: float) -> None:
    assert (token_f1(answer, [reference]), exact_match(answer, [reference])) == (f1, exact)


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_rouge_l_is_that_of_rouge_score(answer: str, references: list[str]) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    theirs = max(scorer.score(reference, answer)["rougeL"].fmeasure for reference in references)
    assert rouge_l(answer, references) == theirs


def test_rouge_l_knows_words_with_accents() -> None:
    assert rouge_l("le café d'Amélie", ["Amélie"]) == pytest.approx(2 * (1 / 4) / (1 + 1 / 4))


@settings(max_examples=60)
@given(st.lists(st.tuples(rankings, st.integers(0, 12)), min_size=1, max_size=6))
def test_rankings_are_scored_as_ir_measures_scores_them(
    cases: list[tuple[list[bool], int]],
) -> None:
    qrels, run, ours = [], [], {"success": [], "rr": [], "ndcg": []}
    for number, (right, missed) in enumerate(cases):
        right = [*right, True]  # a question without a right passage is not judged there
        for rank, is_right in enumerate(right, start=1):
            run.append(ir_measures.ScoredDoc(f"q{number}", f"d{rank}", -float(rank)))
            qrels.append(ir_measures.Qrel(f"q{number}", f"d{rank}", int(is_right)))
        qrels += [ir_measures.Qrel(f"q{number}", f"missed{m}", 1) for m in range(missed)]
        ours["success"].append(success_at(right, 5))
        ours["rr"].append(reciprocal_rank(right, 10))
        ours["ndcg"].append(ndcg(right, sum(right) + missed, 10))
    theirs = ir_measures.calc_aggregate([Success @ 5, RR @ 10, nDCG @ 10], qrels, run)
    assert np.mean(ours["success"]) == pytest.approx(theirs[Success @ 5], abs=1e-12)
    assert np.mean(ours["rr"]) == pytest.approx(theirs[RR @ 10], abs=1e-12)
    assert np.mean(ours["ndcg"]) == pytest.approx(theirs[nDCG @ 10], abs=1e-12)


def test_a_mean_comes_with_its_interval_and_always_the_same_one() -> None:
    values = [1.0] * 60 + [0.0] * 40
    estimate = mean(values)
    assert estimate == mean(values)
    assert (estimate.value, estimate.n) == (0.6, 100)
    # The normal approximation says .6 ± .096; 1,000 resamples come close to it.
    assert estimate.low == pytest.approx(0.504, abs=0.02)
    assert estimate.high == pytest.approx(0.696, abs=0.02)
    assert mean([1.0, 1.0]) == Estimate(1.0, 1.0, 1.0, 2)
    with pytest.raises(ValueError, match="no rows"):
        bootstrap(lambda rows: 0.0, 0)


def test_risk_by_hand() -> None:
    scores, right = np.array([0.9, 0.5, 0.7, 0.1]), np.array([1.0, 0.0, 1.0, 0.0])
    assert selective_risk(scores, right).tolist() == [0, 0, 1 / 3, 1 / 2]
    assert area_under_risk(scores, right) == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)


def test_equal_scores_cannot_be_told_apart() -> None:
    scores = np.array([0.5, 0.5, 0.5, 0.5])
    for right in ([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]):
        assert selective_risk(scores, np.array(right)).tolist() == [0.5] * 4


def test_calibration_by_hand() -> None:
    confidences = np.array([0.95, 0.95, 0.15, 1.0])
    right = np.array([1.0, 0.0, 0.0, 1.0])
    # Bin 9 holds .95, .95, 1.0 (mean 29/30, right 2/3); bin 1 holds .15 (right 0).
    assert calibration_error(confidences, right) == pytest.approx(
        (3 * abs(2 / 3 - 2.9 / 3) + 1 * 0.15) / 4
    )
    assert calibration_error(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0
