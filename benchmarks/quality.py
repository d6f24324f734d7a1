"""Measure search and answers on the question sets, and write the figures with their circumstances.

    python benchmarks/quality.py --data ../shared/data --indexes /tmp/quality

Builds two libraries there (val's 23 stories; train's and val's 255: about ten minutes on two cores
the first time, seconds after that), evaluates each question file against its library, prints a
Markdown table, and writes benchmarks/results/quality.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ballet_qa.answering import Answerer
from ballet_qa.build import build_index
from ballet_qa.encoder import SentenceEncoder
from ballet_qa.evaluation import evaluate_file

ROWS = (
    ("FairytaleQA val, library train + val", "both", "fairytaleqa/val/questions.jsonl"),
    ("FairytaleQA val, library val", "val", "fairytaleqa/val/questions.jsonl"),
    ("paraphrased val, library val", "val", "paraphrase/val.jsonl"),
    ("names nowhere in the library, library val", "val", "fairytaleqa/val/unanswerable.jsonl"),
)
PACKAGES = ("sentence-transformers", "torch", "faiss-cpu", "tantivy", "sentencex", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--indexes", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    stories = {part: options.data / f"fairytaleqa/{part}/stories" for part in ("train", "val")}
    libraries = {"both": [stories["train"], stories["val"]], "val": [stories["val"]]}
    encoder = SentenceEncoder()
    answerers = {}
    for name, roots in libraries.items():
        build_index(roots, options.indexes / name, encoder=encoder)
        answerers[name] = Answerer.load(options.indexes / name, encoder)
    reports = {
        title: evaluate_file(answerers[library], options.data / file)
        for title, library, file in ROWS
    }
    options.results.mkdir(exist_ok=True)
    target = options.results / "quality.json"
    target.write_text(json.dumps(circumstances() | {"reports": reports}, indent=1) + "\n", "utf-8")
    print(table(reports))


def circumstances() -> dict[str, Any]:
    """What the figures depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "commit": commit,
        "machine": f"{platform.machine()}, {platform.processor() or platform.system()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def table(reports: dict[str, dict[str, Any]]) -> str:
    """The reports as the README shows them."""
    lines = [
        "| questions | n | R@1 | R@3 | R@5 | R@10 | R@50 | right story first | quoted from the "
        "evidence | wrongly refused | rightly refused |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for title, report in reports.items():
        ranks = [report["search"].get(f"R@{k}") for k in (1, 3, 5, 10, 50)]
        names = ("right_story_first", "quoted_from_evidence", "wrongly_refused", "refused")
        cells = [*ranks, *(report[name] for name in names)]
        shown = ["" if cell is None else f"{cell:.3f}" for cell in cells]
        lines.append(f"| {title} | {report['questions']} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
