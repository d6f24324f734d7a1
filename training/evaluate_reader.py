"""How well the reader reads texts that are no stories: the part of SQuAD 2.0 that was kept aside.

    python training/evaluate_reader.py --data ../shared/data

Prints exact match and F1 as SQuAD 2.0 defines them, an unanswered question counting 1 when it has
no answer, refusing by the answerable head or by how certain the place of the answer is, each at its
best threshold. On stories the reader is measured by `make bench-quality`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from reader_examples import is_squad_dev, read_lines
from sklearn.metrics import roc_auc_score

from ballet_qa.cross_encoder import Context, CrossEncoder
from ballet_qa.metrics import exact_match, token_f1
from ballet_qa.reader import best_span, certainty
from ballet_qa.types import Span


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--network", type=Path, help="a folder with reader.onnx; else the package's"
    )
    options = parser.parse_args()
    network = CrossEncoder(options.network)
    lines = read_lines(options.data / "squad2-dev-half/questions.jsonl")
    lines = [fields for fields in lines if is_squad_dev(fields["title"])]
    logits, scores = [], []
    for number, fields in enumerate(lines, start=1):
        text = fields["context"]
        context = Context(fields["title"].replace("_", " "), "", text)
        (judgement,) = network.judge(fields["question"], [context])
        _, words = best_span(judgement, Span(0, len(text)), 0)
        told = text[words.start : words.end]
        logits.append((judgement.answerable, certainty(judgement)))
        possible = not fields["is_impossible"]
        answers = fields["answers"] if possible else []
        scores.append((exact_match(told, answers), token_f1(told, answers), float(not possible)))
        if number % 200 == 0 or number == len(lines):
            print(f"{number} of {len(lines)}", file=sys.stderr, flush=True)
    sure, (exact, f1, empty) = np.array(logits), np.array(scores).T
    print(f"{len(sure)} questions, {empty.mean():.3f} without an answer")
    for name, column in zip(("answerable head", "certainty"), sure.T, strict=True):
        least = best_threshold(column, f1, empty)
        said = column > least
        print(
            f"{name}: area under ROC {roc_auc_score(1 - empty, column):.3f}; "
            f"answering above its best threshold, {least:.2f}: "
            f"EM {np.where(said, exact, empty).mean():.3f}, "
            f"F1 {np.where(said, f1, empty).mean():.3f}"
        )
    possible = empty == 0
    print(f"F1 of the words where there are some: {f1[possible].mean():.3f}")


def best_threshold(sure: np.ndarray, f1: np.ndarray, empty: np.ndarray) -> float:
    tried = np.quantile(sure, np.linspace(0, 1, 101))
    return float(max(tried, key=lambda least: np.where(sure > least, f1, empty).mean()))


if __name__ == "__main__":
    main()
