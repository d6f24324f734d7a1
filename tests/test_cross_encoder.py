"""The network's rows, its judgements with the package's own weights, and damage to these."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ballet_qa import networks
from ballet_qa.cross_encoder import (
    MAX_TOKENS,
    Context,
    CrossEncoder,
    Judgement,
    padded,
    token_row,
)
from ballet_qa.errors import ReaderError
from ballet_qa.reader import best_span
from ballet_qa.types import Span

TOKENIZER = Tokenizer.from_file(str(networks.WEIGHTS / networks.TOKENIZER))

SWAN = Context("The Pond", "Morning came.", "A white swan swam on the cold lake.")
PIG = Context("The Barn", "", "Three pigs slept in the straw.")


@pytest.fixture(scope="module")
def network() -> CrossEncoder:
    return CrossEncoder()


@given(
    question=st.text(max_size=400),
    title=st.text(max_size=30),
    before=st.text(max_size=400),
    text=st.text(min_size=1, max_size=3000),
)
def test_a_row_fits_and_knows_the_place_of_every_token(
    question: str, title: str, before: str, text: str
) -> None:
    row = token_row(TOKENIZER, question, Context(title, before, text))
    assert len(row.ids) <= max(MAX_TOKENS, row.begins + 1)
    assert row.context <= row.begins
    assert len(row.ids) == row.begins + len(row.spans) + 1
    assert (row.spans[:, 0] <= row.spans[:, 1]).all()
    assert (row.spans <= len(text)).all()
    assert (np.diff(row.spans[:, 0]) >= 0).all()


def test_a_row_is_question_title_sentence_before_and_passage() -> None:
    row = token_row(TOKENIZER, "Who swam?", SWAN)
    told = TOKENIZER.decode(row.ids, skip_special_tokens=False)
    assert told == (
        "[CLS] who swam? [SEP] the pond [SEP] morning came. [SEP] "
        "a white swan swam on the cold lake. [SEP]"
    )
    words = [SWAN.text[start:end] for start, end in row.spans.tolist()]
    assert words == ["A", "white", "swan", "swam", "on", "the", "cold", "lake", "."]
    inputs = padded([row, token_row(TOKENIZER, "Who?", PIG)])
    assert inputs["attention_mask"].sum(axis=1).tolist() == [len(row.ids), 15]
    assert inputs["token_type_ids"][0].tolist() == [0] * 5 + [1] * (len(row.ids) - 5)


def test_the_passage_that_answers_is_told_from_the_one_that_does_not(network: CrossEncoder) -> None:
    swan, pig = network.judge("What swam on the lake?", [SWAN, PIG])
    assert swan.relevance > pig.relevance
    assert swan.answerable > pig.answerable
    _, words = best_span(swan, Span(0, len(SWAN.text)), 0)
    assert "swan" in SWAN.text[words.start : words.end]


def test_judgements_come_in_the_order_of_the_passages(network: CrossEncoder) -> None:
    contexts = [Context("", "", "A pig. " * count) for count in (30, 1, 12)]
    judged = network.judge("Who?", contexts)
    assert [len(judgement.spans) for judgement in judged] == [90, 3, 36]
    alone = [network.judge("Who?", [context])[0] for context in contexts]
    assert [j.relevance for j in judged] == [j.relevance for j in alone]
    assert network.judge("Who?", []) == []


@given(
    logits=st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=60),
    places=st.tuples(st.integers(0, 130), st.integers(0, 130)),
)
def test_an_answer_lies_in_its_sentence(
    logits: list[tuple[float, float]], places: tuple[int, int]
) -> None:
    spans = np.array([[2 * at, 2 * at + 1] for at in range(len(logits))], dtype=np.int32)
    starts, ends = np.array(logits, dtype=np.float32).T
    judgement = Judgement(0.0, 0.0, spans, starts, ends)
    sentence = Span(min(places) + 100, max(places) + 101)
    score, words = best_span(judgement, sentence, 100)
    assert sentence.start <= words.start < words.end <= sentence.end
    inside = [
        (s, e)
        for (first, last), (s, e) in zip(spans.tolist(), logits, strict=True)
        if sentence.start <= first + 100 and last + 100 <= sentence.end
    ]
    if inside:
        pairs = [s + e for at, (s, _) in enumerate(inside) for _, e in inside[at : at + 30]]
        assert score == pytest.approx(max(pairs), abs=1e-4)
    else:
        assert words == sentence


def test_weights_that_are_missing_damaged_or_no_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ReaderError, match=r"reader\.onnx is missing"):
        CrossEncoder(tmp_path)
    shutil.copytree(networks.WEIGHTS, tmp_path / "weights")
    file = tmp_path / "weights" / "reader.onnx"
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    monkeypatch.setattr(networks, "WEIGHTS", file.parent)
    with pytest.raises(ReaderError, match="not what this version came with"):
        CrossEncoder(file.parent).judge("Who?", [SWAN])
    monkeypatch.undo()
    file.write_bytes(b"no network")
    with pytest.raises(ReaderError, match=r"reader\.onnx is no network .*; export it again"):
        CrossEncoder(file.parent).judge("Who?", [SWAN])
