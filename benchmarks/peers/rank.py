"""Rank passages by every peer: `python rank.py PASSAGES.jsonl QUESTIONS.jsonl OUT.json [PEER]`.

A passage is `{"text"}`, a question `{"question"}`; OUT gets, for each system, the rows of the first
50 passages of each question, the seconds it took to index, and the milliseconds a question took.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from systems import SYSTEMS, be_quiet, column

DEPTH = 50
PACKAGES = (
    "sentence-transformers",
    "faiss-cpu",
    "langchain-community",
    "langchain-classic",
    "llama-index-core",
    "llama-index-retrievers-bm25",
    "txtai",
    "haystack-ai",
)


def main() -> None:
    be_quiet()
    passages, questions, out = map(Path, sys.argv[1:4])
    texts, asked = column(passages, "text"), column(questions, "question")
    runs = {}
    for name in sys.argv[4:] or SYSTEMS:
        make = SYSTEMS[name]
        started = time.perf_counter()
        rankers = make(texts, None, None)
        indexing = time.perf_counter() - started
        for kind, rank in rankers.items():
            rank(asked[0], DEPTH)
            times, rankings = [], []
            for question in asked:
                started = time.perf_counter()
                rankings.append(rank(question, DEPTH))
                times.append((time.perf_counter() - started) * 1000)
            runs[kind] = {"rankings": rankings, "milliseconds": times}
        print(f"{name}: indexed in {indexing:.0f} s", file=sys.stderr, flush=True)
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):  # one peer alone may run where the others are not
            versions[package] = version(package)
    out.write_text(json.dumps({"versions": versions, "runs": runs}), "utf-8")


if __name__ == "__main__":
    main()
