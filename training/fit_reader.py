"""Fit the numbers that join the network with what can be counted (src/ballet_qa/reader.json).

    python training/fit_reader.py --data ../shared/data --index /tmp/train-index \
        --val-index /tmp/val-index

Three rows. The first picks the sentence of a right passage that holds the reference answer word for
word, the second ranks the passages: both by listwise softmax, within one passage or one question,
because only differences there matter. The third, a logistic regression (scikit-learn), says how
likely a passage answers. The last two learn from questions asked of libraries of 4 to 80 stories,
drawn at random: those with an answer, and those without one in three forms: about a fact that no
story tells (written by people), asked of a library that lacks the story, and with the name of
another story's person put in the place of the right one. Only questions about the stories that the
network was not trained on (every tenth of train) are used: on the others it is surer than it will
ever be again. Last, two numbers fitted on `val` (Platt, 1999) stretch the third row so that what it
says is a probability; its calibration error is that of stories left out of the fit. What refusing
costs and gains at each likelihood is printed, to choose `answer_from` by.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reader_examples import is_dev, read_lines
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

import ballet_qa.reader
from ballet_qa.answering import Answerer
from ballet_qa.build import build_index
from ballet_qa.cross_encoder import CrossEncoder
from ballet_qa.metrics import calibration_error
from ballet_qa.names import names_in_question
from ballet_qa.questions import Question, is_right, load_questions
from ballet_qa.reader import EVIDENCE_FEATURES, SENTENCE_FEATURES, ReaderWeights, StoryReader
from ballet_qa.retriever import Retriever
from ballet_qa.types import Encoder, Hit
from ballet_qa.words import fold

READ = 30  # more than are read in answering: what is learnt of the last is learnt of the next
LIBRARY_SIZES = (4, 4, 8, 16, 23, 40, 80)


@dataclass(frozen=True)
class Case:
    """A question put to a library; ``stories`` are rows. ``answerable`` is what is to be learnt."""

    question: Question
    stories: list[int]
    answerable: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--index", type=Path, required=True, help="where to build train's index")
    parser.add_argument("--val-index", type=Path, required=True, help="where to build val's index")
    parser.add_argument(
        "--network", type=Path, help="a folder with reader.onnx; else the package's"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    build_index(options.data / "fairytaleqa/train/stories", options.index)
    retriever = Retriever.load(options.index)
    rng = np.random.default_rng(options.seed)
    told = load_questions(options.data / "fairytaleqa/train/questions.jsonl")
    told = [q for q in told if is_dev(q.evidence[0].story)]
    file = options.data / "paraphrase/train.jsonl"
    about = {fields["id"]: fields.get("about", "") for fields in read_lines(file)}
    paraphrased = [
        q
        for q in load_questions(file)
        if is_dev(q.evidence[0].story if q.evidence else about[q.id])
    ]

    none = np.zeros(len(EVIDENCE_FEATURES))
    weights = ReaderWeights(np.zeros(len(SENTENCE_FEATURES)), none, np.append(none, 0.0))
    network = CrossEncoder(options.network)
    reader = StoryReader(retriever.index, retriever.encoder, network, weights)
    sentence = fit_sentences(reader, retriever, [*told, *paraphrased])
    weights = replace(weights, sentence=sentence)
    reader = StoryReader(retriever.index, retriever.encoder, network, weights)
    cases = list(make_cases(retriever, told, paraphrased, rng))
    order, evidence = fit_evidence(reader, retriever, cases)
    weights = replace(weights, order=order, evidence=evidence)
    evidence = calibrate(options, retriever.encoder, network, weights)
    table = {
        "sentence": dict(zip(SENTENCE_FEATURES, map(rounded, sentence), strict=True)),
        "order": dict(zip(EVIDENCE_FEATURES, map(rounded, order), strict=True)),
        "evidence": dict(zip((*EVIDENCE_FEATURES, "bias"), map(rounded, evidence), strict=True)),
    }
    target = Path(ballet_qa.reader.__file__).with_name("reader.json")
    target.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    print(f"wrote {target}")


def fit_sentences(
    reader: StoryReader, retriever: Retriever, questions: list[Question]
) -> np.ndarray:
    """Weights for the choice of the sentence."""
    lists = []
    for question in progress(questions, "sentences"):
        if not question.answerable:
            continue
        asked = reader.asked(question.question)
        hits = gold_hits(retriever, question)
        for hit, judgement in zip(hits, reader.judged(question.question, hits), strict=True):
            spans, features, _ = reader.sentence_features(asked, hit, judgement)
            words = [
                fold(hit.passage.text[s.start - hit.passage.start : s.end - hit.passage.start])
                for s in spans
            ]
            holds = [any(fold(a) in sentence for a in question.answers) for sentence in words]
            if len(spans) > 1 and 0 < sum(holds) < len(holds):
                lists.append((features, np.array(holds)))
    return listwise(lists)


def fit_evidence(
    reader: StoryReader, retriever: Retriever, cases: list[Case]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights for the order of passages, and for how likely one answers, the bias last."""
    lists, rows, labels = [], [], []
    for case in progress(cases, "evidence"):
        hits = candidates(retriever, case)
        if not hits:
            continue
        asked = reader.asked(case.question.question)
        judged = reader.judged(case.question.question, hits)
        pairs = zip(hits, judged, strict=True)
        chosen = [reader.choose_sentence(asked, hit, judgement) for hit, judgement in pairs]
        evidence = reader.evidence(asked, hits, chosen, judged)
        right = [case.answerable and is_right(h.passage, case.question.evidence) for h in hits]
        if 0 < sum(right) < len(right):
            lists.append((evidence, np.array(right)))
        rows += list(evidence)
        labels += right
    weights, bias = logistic(np.array(rows), np.array(labels))
    return listwise(lists), np.append(weights, bias)


def calibrate(
    options: argparse.Namespace, encoder: Encoder, network: CrossEncoder, weights: ReaderWeights
) -> np.ndarray:
    """The evidence's weights, scaled and shifted to say a probability on val's questions."""
    build_index(options.data / "fairytaleqa/val/stories", options.val_index, encoder=encoder)
    retriever = Retriever.load(options.val_index, encoder)
    reader = StoryReader(retriever.index, encoder, network, weights)
    answerer = Answerer(retriever, reader)
    sets = {
        "FairytaleQA": load_questions(options.data / "fairytaleqa/val/questions.jsonl")[::2],
        "paraphrased": load_questions(options.data / "paraphrase/val.jsonl"),
        "absent names": load_questions(options.data / "fairytaleqa/val/unanswerable.jsonl")[::3],
    }
    rows, right, group, name = [], [], [], []
    for kind, questions in sets.items():
        for question in progress(questions, kind):
            answer = answerer.answer(question.question, 1)
            told = kind if question.answerable or kind != "paraphrased" else "on topic"
            # A refusal by name needs no threshold; it counts as the surest one.
            known = answer.reason != "unknown_name" and answer.likelihood > 0
            rows.append(log_odds(answer.likelihood) if known else -np.inf)
            first = bool(answer.hits) and is_right(answer.hits[0].passage, question.evidence)
            right.append(question.answerable and first)
            group.append(question.evidence[0].story if question.evidence else question.id)
            name.append(told)
    odds, truth, names = np.array(rows), np.array(right), np.array(name)
    read = np.isfinite(odds)
    column, groups = odds[read, np.newaxis], np.array(group)[read]
    model = LogisticRegression(C=1e6)
    aside = cross_val_predict(
        model, column, truth[read], groups=groups, cv=GroupKFold(5), method="predict_proba"
    )[:, 1]
    model.fit(column, truth[read])
    slope, shift = float(model.coef_[0, 0]), float(model.intercept_[0])
    error = calibration_error(aside, truth[read].astype(float))
    print(f"calibration error {error:.3f} on stories left out; slope {slope:.3f}, {shift:.3f}")
    likely = 1 / (1 + np.exp(-(slope * odds + shift)))
    kinds = sorted(set(names))
    print("refused below", *kinds, "right first of answered", sep=" | ")
    for least in np.arange(0.05, 0.65, 0.05):
        shares = [(likely[names == kind] < least).mean() for kind in kinds]
        kept = truth[likely >= least].mean()
        print(f"{least:.2f}", *(f"{share:.3f}" for share in shares), f"{kept:.3f}", sep=" | ")
    evidence = weights.evidence * slope
    evidence[-1] += shift
    return evidence


def log_odds(share: float) -> float:
    return float(np.log(share) - np.log1p(-share))


def make_cases(
    retriever: Retriever,
    told: list[Question],
    paraphrased: list[Question],
    rng: np.random.Generator,
) -> Iterator[Case]:
    """Questions with and without an answer, each with a library of its own."""
    texts = retriever.index.texts
    everything = texts.story_count

    def library(story: int | None) -> list[int]:
        drawn = rng.choice(everything, rng.choice(LIBRARY_SIZES), replace=False).tolist()
        return sorted({*drawn, story} if story is not None else set(drawn))

    for question in paraphrased:
        if question.answerable:
            yield Case(question, library(texts.story_row(question.evidence[0].story)), True)
        else:
            yield Case(question, list(range(everything)), False)
    for question in told:
        home = texts.story_row(question.evidence[0].story)
        assert home is not None
        yield Case(question, library(home), True)
        others = [row for row in library(None) if row != home]
        names = names_in_question(question.question)
        if not names:
            yield Case(question, others, False)
            continue
        other = int(rng.choice(others))
        known = [name for name, count in texts.names_of(other)[:3] if count > 2]
        if known:
            swapped = question.question.replace(names[0].text, str(rng.choice(known)))
            yield Case(replace(question, question=swapped), others, False)


def candidates(retriever: Retriever, case: Case) -> list[Hit]:
    """The passages that would be read: those of stories that hold the question's names."""
    index = retriever.index
    holding = set(case.stories)
    for name in index.names_in(case.question.question):
        for stem in name.stems:
            holding &= index.terms.stories_with(stem)
    if not holding:
        return []
    query = retriever.query(case.question.question)
    ranking = retriever.rank(query, case.stories)
    keep = np.flatnonzero(np.isin(ranking.stories, list(holding))).tolist()
    return retriever.hits(ranking[keep], READ, sorted(holding))


def gold_hits(retriever: Retriever, question: Question) -> list[Hit]:
    """The passages that lie in the evidence."""
    texts = retriever.index.texts
    story = texts.story_row(question.evidence[0].story)
    assert story is not None
    right = [p for p in texts.passages_of(story) if is_right(p, question.evidence)]
    return [Hit(passage, 0.0, 1, "") for passage in right]


def listwise(lists: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Weights whose softmax over each list puts its mass on what is right."""
    longest = max(len(right) for _, right in lists)
    every = np.concatenate([features for features, _ in lists])
    scale = np.maximum(every.std(axis=0), 1e-6)
    features = torch.zeros((len(lists), longest, every.shape[1]))
    right = torch.zeros((len(lists), longest), dtype=torch.bool)
    real = torch.zeros((len(lists), longest), dtype=torch.bool)
    for row, (values, labels) in enumerate(lists):
        features[row, : len(labels)] = torch.tensor(values / scale)
        right[row, : len(labels)] = torch.tensor(labels)
        real[row, : len(labels)] = True
    weights = torch.zeros(every.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.05)
    for _ in range(600):
        logs = torch.log_softmax((features @ weights).masked_fill(~real, -1e9), dim=1)
        mass = torch.logsumexp(logs.masked_fill(~right, -1e9), dim=1)
        loss = 1e-3 * (weights**2).sum() - mass.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    first = (features @ weights).masked_fill(~real, -1e9).argmax(dim=1)
    share = right[torch.arange(len(lists)), first].float().mean().item()
    print(f"{len(lists)} lists, right first in {share:.3f}")
    fitted: np.ndarray = weights.detach().numpy() / scale
    return fitted


def logistic(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """A logistic regression on standardised columns, given back for the columns as they are."""
    scaler = StandardScaler().fit(rows)
    model = LogisticRegression(C=1.0, max_iter=2000).fit(scaler.transform(rows), labels)
    weights = model.coef_[0] / scaler.scale_
    accuracy = model.score(scaler.transform(rows), labels)
    print(f"{len(rows)} rows, {labels.mean():.3f} right, accuracy {accuracy:.3f}")
    return weights, float(model.intercept_[0] - weights @ scaler.mean_)


def rounded(value: float) -> float:
    return round(float(value), 4)


def progress(items: list[Any], what: str) -> Iterator[Any]:
    for number, item in enumerate(items, start=1):
        if number % 200 == 0 or number == len(items):
            print(f"{what}: {number} of {len(items)}", file=sys.stderr, flush=True)
        yield item


if __name__ == "__main__":
    main()
