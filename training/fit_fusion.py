"""Fit the weights of the fusion (src/ballet_qa/fusion.json) on the training questions.

    python training/fit_fusion.py --data ../shared/data --index /tmp/train-index

Listwise softmax (ListNet): for each question the fused scores of its candidates are made to put
their mass on the right passages. Only questions about stories that the encoder was not trained on
(every tenth) are used: of the others it is surer than it will ever be again. Half of the questions
are asked of the whole of train's library, half of smaller ones of 4 to 80 stories drawn at random,
so that the weights hold for a small shelf and a large one. Questions that repeat the story's words
(FairytaleQA) and questions that do not (paraphrase) weigh the same, though the first are many times
as many: what serves only one kind fails the other. `val` is not read here.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from reader_examples import is_dev

import ballet_qa.fusion
from ballet_qa.build import build_index
from ballet_qa.encoder import load_encoder
from ballet_qa.fusion import FEATURES, GATES, Fusion
from ballet_qa.index import Index
from ballet_qa.questions import Question, is_right, load_questions
from ballet_qa.retriever import Retriever, signals

LIBRARY_SIZES = (4, 8, 16, 23, 40, 80)
KEPT = 250
# Where the search starts, and by what the weaker candidates are left out of training.
START = {
    "own": 15.0,
    "near": 6.0,
    "wide": 6.0,
    "story": 2.0,
    "named": 2.0,
    "passage": 6.0,
    "sentence": 8.0,
    "neighbour": 3.0,
}


@dataclass(frozen=True)
class Examples:
    """Padded candidates of many questions."""

    features: torch.Tensor  # (questions, KEPT, FEATURES) float32
    right: torch.Tensor  # (questions, KEPT) bool
    real: torch.Tensor  # (questions, KEPT) bool
    gates: torch.Tensor  # (questions, GATES) float64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--index", type=Path, required=True, help="where to build train's index")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    build_index(options.data / "fairytaleqa/train/stories", options.index)
    encoder = load_encoder()
    retriever = Retriever(Index.open(options.index), encoder, Fusion(start()))
    rng = np.random.default_rng(options.seed)
    told = load_questions(options.data / "fairytaleqa/train/questions.jsonl")
    paraphrased = load_questions(options.data / "paraphrase/train.jsonl")
    told, paraphrased = (
        [q for q in questions if q.evidence and is_dev(q.evidence[0].story)]
        for questions in (told, paraphrased)
    )
    parts = [gather(retriever, questions, rng) for questions in (told, paraphrased)]
    weights = fit(parts, options.steps, options.seed)
    table = {
        feature: {gate: round(float(w), 3) for gate, w in zip(GATES, row, strict=True)}
        for feature, row in zip(FEATURES, weights, strict=True)
    }
    target = Path(ballet_qa.fusion.__file__).with_name("fusion.json")
    target.write_text(json.dumps({"weights": table}, indent=1) + "\n", "utf-8")
    print(f"wrote {target}")


def gather(retriever: Retriever, questions: list[Question], rng: np.random.Generator) -> Examples:
    """The candidates of each question, described, with the right ones marked."""
    texts = retriever.index.texts
    features, right, real, gates = [], [], [], []
    for number, question in enumerate(questions, start=1):
        if number % 500 == 0:
            print(f"{number} of {len(questions)} questions", file=sys.stderr, flush=True)
        if not question.answerable:
            continue
        home = texts.story_row(question.evidence[0].story)
        assert home is not None
        first, last = texts.passage_rows(home)
        gold = [r for r in range(first, last) if is_right(texts.passage(r), question.evidence)]
        query = retriever.query(question.question)
        rows = retriever.index.candidates(query, library(texts.story_count, home, rng))
        known = signals(query, retriever.index.described(query, rows))
        label = np.isin(rows, gold)
        if not label.any():
            continue
        rough = known.features @ np.array([START[name] for name in FEATURES], np.float32)
        kept = np.argsort(-(rough + 1e6 * label))[:KEPT]
        empty = KEPT - len(kept)
        features.append(np.pad(known.features[kept], ((0, empty), (0, 0))))
        right.append(np.pad(label[kept], (0, empty)))
        real.append(np.arange(KEPT) < len(kept))
        gates.append(known.gates())
    stacked = [torch.tensor(np.stack(column)) for column in (features, right, real, gates)]
    return Examples(*stacked)


def start() -> np.ndarray:
    """Weights that do not depend on the question."""
    weights = np.zeros((len(FEATURES), len(GATES)))
    weights[:, 0] = [START[name] for name in FEATURES]
    return weights


def library(count: int, home: int, rng: np.random.Generator) -> list[int] | None:
    """The stories a question is asked of: all (None), or a few with its own among them."""
    if rng.random() < 0.5:
        return None
    drawn = rng.choice(count, rng.choice(LIBRARY_SIZES), replace=False)
    return sorted({home, *drawn.tolist()})


def fit(parts: list[Examples], steps: int, seed: int) -> np.ndarray:
    """Adam on the sum of both kinds' losses, the weights held small."""
    weights = torch.tensor(start(), requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        total = 1e-6 * (weights**2).sum()
        for part, size in zip(parts, (256, 128), strict=True):
            batch = torch.randint(len(part.features), (size,), generator=generator)
            total = total + loss(weights, part, batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}: loss {total.item():.4f}", file=sys.stderr, flush=True)
    fitted = weights.detach().numpy()
    check(Fusion(fitted), parts[0], weights.detach())
    return fitted


def loss(weights: torch.Tensor, part: Examples, batch: torch.Tensor) -> torch.Tensor:
    """Minus the log of the mass on the right candidates, mean over the batch."""
    logs = torch.log_softmax(scores(weights, part, batch), dim=1)
    mass = torch.logsumexp(logs.masked_fill(~part.right[batch], -1e9), dim=1)
    return -mass.mean()


def scores(weights: torch.Tensor, part: Examples, batch: torch.Tensor) -> torch.Tensor:
    """The fused scores of padded candidates, as Fusion has them."""
    strengths = torch.nn.functional.softplus(part.gates[batch] @ weights.T).float()
    fused = torch.einsum("qcf,qf->qc", part.features[batch], strengths)
    return fused.masked_fill(~part.real[batch], -1e9)


def check(fusion: Fusion, part: Examples, weights: torch.Tensor) -> None:
    """The program's scores must be those that were fitted."""
    mine = scores(weights, part, torch.tensor([0]))[0][part.real[0]].numpy()
    strengths = np.logaddexp(0.0, fusion.weights @ part.gates[0].numpy())
    np.testing.assert_allclose(
        mine, part.features[0][part.real[0]].numpy() @ strengths, rtol=1e-3, atol=1e-3
    )


if __name__ == "__main__":
    main()
