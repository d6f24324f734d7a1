"""The training's own arithmetic: near negatives, packing, steps, and going on where it stopped."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import MPNetConfig, MPNetModel

from conftest import ROOT

sys.path.insert(0, str(ROOT / "training"))

import packed_batches
import reading_losses
import reading_network
import train_bi_encoder
import train_network
import vocabulary
import weight_parts
from near_negatives import Situation, near_negatives
from pack_examples import Packer, tokens_of
from packed_batches import Mix, Packed, Row, batch_of, in_chunks, steps
from question_sets import window

STORY = (
    "Rosa kept a grey goat in the kitchen. She was nineteen when her mother sold the boat. "
    "Bruno was her teacher. Bruno said nothing. Rosa had a lamp."
)
WORDS = "who what where is was the a goat pig swan lake red rosa bruno kept sold boat ? . !".split()
MARKS = ["<s>", "<pad>", "</s>", "<unk>"]


def situation(question: str, answer: str, **more: Any) -> Situation:
    start = STORY.index(answer)
    people = ("Rosa", "Bruno")
    return Situation(question, STORY, "", (start, start + len(answer)), people, **more)


def kinds(question: str, answer: str, **more: Any) -> dict[str, set[str]]:
    """What is made of a question over many draws, by kind."""
    made: dict[str, set[str]] = {}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        for kind, changed in near_negatives(situation(question, answer, **more), rng):
            made.setdefault(kind, set()).add(changed)
    return made


def test_a_word_is_swapped_for_one_of_its_class_that_the_passage_lacks() -> None:
    made = kinds("What kept the goat in the kitchen?", "Rosa")
    animals = {question.split()[3] for question in made["animal"]}
    assert animals
    assert "goat" not in animals
    assert all(q.endswith("in the kitchen?") for q in made["animal"])
    assert all(q.startswith("What kept the goat in the ") for q in made["place"])


def test_a_swapped_word_comes_from_the_story_where_it_can() -> None:
    words = frozenset({"camel"})
    made = kinds("What kept the goat in the kitchen?", "Rosa", story_words=words)
    assert made["animal"] == {"What kept the camel in the kitchen?"}


def test_a_person_is_swapped_only_for_one_far_from_the_answer() -> None:
    near = kinds("What did Rosa keep in the kitchen?", "a grey goat")
    assert near["name"] == {"What did Bruno keep in the kitchen?"}
    # Here Bruno stands beside the answer, so the new question might be answered.
    assert "name" not in kinds("What did Rosa have?", "a lamp")


def test_a_synonym_in_the_passage_forbids_a_swap() -> None:
    made = kinds("What did her mother sell?", "the boat")
    swapped = {question.split()[3] for question in made["relation"]}
    assert "father" in swapped
    assert "teacher" not in swapped  # the passage speaks of one
    assert "wife" in swapped


def test_yes_and_no_questions_are_not_turned_into_their_contrary() -> None:
    """Was the goat red? is answered by a grey goat, so a colour is no swap there."""
    made = kinds("Was the goat grey?", "a grey goat")
    assert "colour" not in made
    assert kinds("What colour was the grey goat?", "grey")["colour"]


def test_a_choice_makes_no_near_negative() -> None:
    assert kinds("Was the goat grey or white?", "a grey goat") == {}


def test_why_becomes_why_not_and_back() -> None:
    assert kinds("Why did her mother sell the boat?", "the boat")["negation"] == {
        "Why didn't her mother sell the boat?"
    }


def test_an_article_fits_the_new_word() -> None:
    words = frozenset({"elephant"})
    made = kinds("What kept a goat?", "Rosa", story_words=words)
    assert made["animal"] == {"What kept an elephant?"}


def test_a_long_text_is_cut_to_whole_sentences_around_the_answer() -> None:
    text = " ".join(f"Sentence {n} has a few words in it." for n in range(60))
    start = text.index("Sentence 30")
    first, last = window(text, (start, start + 11))
    assert first <= start < last
    assert text[first:last].startswith("Sentence ")
    assert text[first:last].endswith(".")
    assert 100 < len(text[first:last].split()) <= 150


def word_tokenizer() -> Tokenizer:
    """A token a word; numbers follow MARKS."""
    every = {word: number for number, word in enumerate([*MARKS, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(every, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(MARKS)
    return tokenizer


def passage(text: str, role: str, spans: list[list[int]], **more: str) -> dict[str, Any]:
    shown = {"title": "", "before": "", "text": text, "role": role, "spans": spans}
    return shown | {"answerable": role == "right"} | more


def example(
    name: str, question: str, passages: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    made = {"id": name, "source": "modern", "question": question, "passages": passages}
    return made | {"ranked": len(passages) > 1, "of": "", "dev": False} | more


def examples() -> list[dict[str, Any]]:
    """Lists, single passages and near negatives, enough for a step of each."""
    made = []
    for n, animal in enumerate(("goat", "pig", "swan")):
        text = f"Rosa kept a {animal} . The lake was red ."
        span = [text.index(animal), text.index(animal) + len(animal)]
        wrong = [
            passage("Bruno sold the boat .", "story", []),
            passage("The lake .", "library", [], title="A lake"),
        ]
        right = passage(text, "right", [span], before="Bruno was red .")
        asked = "What is the swan ?" if n else "What kept Rosa ?"
        for dev in (False, True):
            name = f"list-{n}-{dev}"
            made.append(example(name, asked, [right, *wrong], dev=dev))
            near = right | {"answerable": False, "spans": [], "role": "story"}
            asks = f"What sold {animal} ?"
            made.append(example(f"near-{n}-{dev}", asks, [near], of=name, dev=dev))
        made.append(example(f"single-{n}", "Where is Bruno ?", [right], source="squad2"))
    return made


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base of two tiny layers and packed examples."""
    base = tmp_path / "base"
    torch.manual_seed(0)
    size = len(MARKS) + len(WORDS)
    config = MPNetConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=80,
    )
    MPNetModel(config, add_pooling_layer=False).save_pretrained(base)
    tokenizer = word_tokenizer()
    tokenizer.save(str(base / "tokenizer.json"))
    digest = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    tiny = reading_network.Base("base", digest, ("<s>", "</s>", "<pad>"), 1)
    monkeypatch.setitem(reading_network.BASES, "tiny", tiny)
    packer = Packer(tokenizer, "tiny")
    packer.add(examples())
    packer.write(tmp_path / "packed/tiny.safetensors")
    shares = {"modern": 1.0}, {"squad2": 1.0}
    mix = Mix(lists=2, rows=3, singles=1, pairs=1, list_shares=shares[0], single_shares=shares[1])
    monkeypatch.setattr(train_network.Training, "mix", mix)
    monkeypatch.setattr(train_network, "DEV_SETS", ("modern",))
    monkeypatch.setattr(packed_batches, "POOL", 2)
    return tmp_path


def test_characters_become_tokens() -> None:
    offsets = [(0, 4), (5, 8), (8, 9)]
    assert tokens_of(offsets, 5, 9) == (1, 2)
    assert tokens_of(offsets, 6, 8) == (1, 1)
    assert tokens_of(offsets, 5, 12) is None  # the text was cut before the answer's end


def test_a_packed_example_is_read_as_it_was_written(work: Path) -> None:
    packed = Packed(work / "packed/tiny.safetensors")
    tokenizer = word_tokenizer()
    first = next(
        n for n in packed.examples("modern", dev=False).tolist() if len(packed.rows_of(n)) == 3
    )
    rows = [Row(first, row, 0) for row in packed.rows_of(first)]
    batch = batch_of(packed, rows)
    texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in batch.input_ids.tolist()]
    assert texts[0] == (
        "<s> what kept rosa ? </s> bruno was red . </s> rosa kept a goat . the lake was red . </s>"
    )
    assert texts[2].startswith("<s> what kept rosa ? </s> a lake </s> the lake . </s> <pad>")
    start, end = batch.spans[0, 0].tolist()
    assert tokenizer.decode(batch.input_ids[0, start : end + 1].tolist()) == "goat"
    assert batch.spans[1, 0].tolist() == [0, 0]  # nowhere
    assert batch.answerable.tolist() == [1.0, 0.0, 0.0]
    assert batch.ranked.tolist() == [True, False, False]
    allowed = batch.allowed[0].nonzero().flatten().tolist()
    assert allowed[0] == 0
    assert tokenizer.decode(batch.input_ids[0, allowed[1:]].tolist()).startswith("rosa kept a goat")


def test_steps_repeat_and_hold_what_the_mix_says(work: Path) -> None:
    packed = Packed(work / "packed/tiny.safetensors")
    mix = train_network.Training.mix
    one, two = (list(islice(steps(packed, mix, 3), 12)) for _ in range(2))
    assert one == two
    assert one != list(islice(steps(packed, mix, 4), 12))
    dev = set(packed.examples("modern", dev=True).tolist())
    for step in one:
        assert not dev & {row.example for row in step}
        lists = [row.of_list for row in step]
        assert lists == sorted(lists)
        *_, asked, near = step
        assert packed.arrays["example_of"][near.example] == asked.example
        chunks = in_chunks(packed, step, 60)
        assert sorted(map(id, step)) == sorted(id(row) for chunk in chunks for row in chunk)


def test_the_losses_are_what_a_hand_computes() -> None:
    relevance = torch.tensor([1.0, 0.0, 5.0, 2.0])
    lists = torch.tensor([0, 0, 1, 2])
    ranked = torch.tensor([True, False, False, False])
    rank = reading_losses.rank_loss(relevance, lists, ranked)
    assert rank.item() == pytest.approx(np.log(1 + np.exp(-1.0)))
    places = torch.zeros(1, 4, 2)
    allowed = torch.tensor([[True, False, True, True]])
    spans = torch.tensor([[[2, 3], [3, 3], [-1, -1]]])
    span = reading_losses.span_loss(places, allowed, spans, torch.ones(1))
    # Two of three starts are right, one of three ends.
    assert span.item() == pytest.approx(-(np.log(2 / 3) + np.log(1 / 3)) / 2, abs=1e-5)


def options(work: Path, run: str, **more: Any) -> argparse.Namespace:
    given = {
        "work": work,
        "base": "tiny",
        "run": run,
        "start": None,
        "layers": None,
        "frozen_layers": 1,
        "rate": 1e-2,
        "scale": 1,
        "chunk_tokens": 200,
        "minutes": None,
        "schedule_steps": 6,
        "restart_schedule": False,
        "checkpoint_minutes": 10.0,
        "dev_minutes": 10.0,
        "stop_after": 1e9,
        "teacher": None,
        "threads": 1,
        "seed": 0,
    }
    return argparse.Namespace(**given | more)


def trained(work: Path, run: str, stops: list[int | None], **more: Any) -> dict[str, torch.Tensor]:
    """The weights after a training that was stopped after so many steps each time."""
    for most in stops:
        torch.manual_seed(0)
        training = train_network.Training(options(work, run, **more))
        training.run(most)
    return training.network.state_dict()


def test_a_stopped_training_goes_on_where_it_was(work: Path) -> None:
    whole = trained(work, "whole", [None])
    parts = trained(work, "parts", [2, 3, None])
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, msg=name)
    assert (work / "runs/parts/final" / reading_network.NETWORK).exists()
    lines = (work / "runs/whole/log.jsonl").read_text("utf-8").splitlines()
    assert {"right_first", "near_auc"} <= set(json.loads(lines[-1]))


def test_what_is_frozen_stays_and_the_rest_learns(work: Path) -> None:
    after = trained(work, "frozen", [None])
    before = reading_network.new_network("tiny", work).state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {
        n for n in before if n.startswith(("body.embeddings.", "body.encoder.layer.0."))
    } <= same
    assert not {n for n in before if n.startswith("body.encoder.layer.1.output.dense")} & same


def test_a_small_network_learns_from_a_teacher(work: Path) -> None:
    trained(work, "teacher", [None])
    teacher = work / "runs/teacher/final"
    trained(work, "pupil", [None], teacher=teacher, layers=1)
    lines = (work / "runs/pupil/log.jsonl").read_text("utf-8").splitlines()
    assert json.loads(lines[-1])["step"] == 6


def test_an_encoder_learns_from_lists_and_teachers(work: Path) -> None:
    trained(work, "teacher", [2])
    teacher = work / "runs/teacher/checkpoint"
    given = options(work, "encoder", teacher=teacher, vectors_of="tiny", schedule_steps=3)
    training = train_bi_encoder.BiEncoderTraining(given)
    assert training.run()
    lines = (work / "runs/encoder/log.jsonl").read_text("utf-8").splitlines()
    assert set(json.loads(lines[-1])) >= {"right_first", "step"}
    # The sentence that answers is cut out of its passage.
    row = int(np.flatnonzero(training.packed.arrays["row_spans"][:, 0, 0] >= 0)[0])
    sentence = word_tokenizer().decode(training._sentence(row))
    assert sentence == "rosa kept a goat ."


def test_a_cut_vocabulary_reads_the_same(work: Path) -> None:
    network = reading_network.new_network("tiny", work).eval()
    tokenizer = word_tokenizer()
    ids = torch.tensor([tokenizer.encode("rosa kept the goat").ids])
    inputs = (torch.ones_like(ids), torch.zeros_like(ids))
    with torch.no_grad():
        before = network(ids, *inputs)
        kept = sorted({0, 1, 2, 3, *ids[0].tolist()})
        fewer = vocabulary.cut(network, tokenizer, kept)
        again = torch.tensor([fewer.encode("rosa kept the goat").ids])
        after = network(again, *inputs)
    assert fewer.get_vocab_size() == len(kept)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other)


def test_weights_come_apart_and_together(work: Path) -> None:
    network = reading_network.new_network("tiny", work)
    folder = work / "network"
    reading_network.save_network(network, word_tokenizer(), folder)
    parts = weight_parts.split(folder, work / "parts", 0.004, embeddings=False)
    assert len(parts) > 2
    assert all(part.stat().st_size < 0.008 * 2**20 for part in parts)
    weight_parts.join(work / "parts", work / "joined", embeddings_of=folder)
    joined = reading_network.load_network(work / "joined").state_dict()
    for name, tensor in network.state_dict().items():
        near = tensor if name.startswith("body.embeddings.") else tensor.bfloat16().float()
        torch.testing.assert_close(joined[name], near, msg=name)
