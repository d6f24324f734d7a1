"""How good are the hits, the answers and the refusals, beside the peers, in one run.

    make bench-quality          about forty minutes on two cores, an hour the first time
    make bench-quality-short    a part of it and one peer, in minutes: what CI runs

Builds the libraries (FairytaleQA val's 23 stories; train's and val's 255; modern val's 43; classic
train's and val's 52), evaluates each question file against
its library, and ranks the same sections for the same questions by every peer of benchmarks/peers.
Prints the tables of the README; the long form also writes benchmarks/results/quality.json and the
plots of docs/plots. Without the question sets the short form measures the four seeds only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from circumstances import circumstances

from ballet_qa.answering import Answerer
from ballet_qa.build import build_index
from ballet_qa.encoder import load_encoder
from ballet_qa.evaluation import report, report_text, run
from ballet_qa.metrics import DEPTHS, mean, ranking_measures
from ballet_qa.questions import Question, load_questions
from ballet_qa.types import Hit

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).parent / "peers"
SEEDS = (
    ("the four seeds, our own questions", "seeds", ROOT / "tests" / "seed_questions.jsonl"),
    ("the four seeds, plain questions", "seeds", ROOT / "tests" / "plain_questions.jsonl"),
)
FILES = (
    ("modern val, library modern val", "modern", "modern/val/questions.jsonl"),
    ("natural val, library val", "val", "natural/val.jsonl"),
    ("classic val, library classic train + val", "classic", "classic/val/questions.jsonl"),
    ("FairytaleQA val, library train + val", "both", "fairytaleqa/val/questions.jsonl"),
    ("FairytaleQA val, library val", "val", "fairytaleqa/val/questions.jsonl"),
    ("paraphrased val, library val", "val", "paraphrase/val.jsonl"),
    ("names nowhere in the library, library val", "val", "fairytaleqa/val/unanswerable.jsonl"),
    ("about things told of, not told (StorySparkQA), library val", "val", "storysparkqa/val.jsonl"),
)
COMPARED = (
    ("FairytaleQA val, library train + val", "both", "fairytaleqa/val/questions.jsonl"),
    ("paraphrased val, library val", "val", "paraphrase/val.jsonl"),
)
DEPTH = max(DEPTHS)
LONG_FILE = 400  # questions; reading takes half a second each


@dataclass(frozen=True, slots=True)
class Section:
    """Characters ``start:end`` of a story: the unit in which peers are compared."""

    story: str
    start: int
    end: int
    text: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--indexes", type=Path, default=ROOT / ".bench", help="kept between runs")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers")
    parser.add_argument("--short", action="store_true", help="every 8th question, library val")
    options = parser.parse_args()
    python = options.peers / "bin" / "python"
    if options.short or not python.exists():
        print(f"only sentence-transformers + FAISS beside us: short, or no {python} (make peers)")
        python = None
    answerers = libraries(options.data, options.indexes, options.short)
    reports = {}
    for title, library, file in (*SEEDS, *FILES):
        if library in answerers:
            questions = chosen(asked_of(options.data / file), options.short)
            reports[title] = report(run(answerers[library], questions, progress(title)))
            print(report_text(title, reports[title]), end="\n\n", flush=True)

    compared: dict[str, Any] = {}
    versions: dict[str, str] = {}
    for title, library, file in COMPARED:
        if options.short and library == "both":
            title, library = title.replace("train + val", "val"), "val"
        if library in answerers:
            questions = chosen(load_questions(options.data / file), options.short)
            cut_by = [
                question
                for part in ("train", "val")
                for question in load_questions(options.data / f"fairytaleqa/{part}/questions.jsonl")
            ]
            compared[title], versions = compare(answerers[library], questions, cut_by, python)
    results = circumstances() | {"peers": versions, "reports": reports, "compared": compared}
    print(quality_table(results), compared_table(results), sep="\n\n")
    if not options.short and compared:
        folder = Path(__file__).parent / "results"
        (folder / "quality.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        from plots import plot_quality, plot_risk

        plot_quality(results, ROOT / "docs" / "plots")
        plot_risk(results, ROOT / "docs" / "plots")


def libraries(data: Path, indexes: Path, short: bool) -> dict[str, Answerer]:
    """The libraries that can be had here, built and opened."""
    roots = {"seeds": [ROOT / "seeds"]}
    if data.is_dir():
        train, val = (data / f"fairytaleqa/{part}/stories" for part in ("train", "val"))
        roots["val"] = [val]
        roots["modern"] = [data / "modern/val/stories"]
        if not short:
            roots["both"] = [train, val]
            roots["classic"] = [data / f"classic/{part}/stories" for part in ("train", "val")]
    else:
        print(f"no question sets at {data}: only the seeds are measured")
    encoder = load_encoder()
    for name, folders in roots.items():
        build_index(folders, indexes / name, encoder=encoder)
    return {name: Answerer.load(indexes / name, encoder) for name in roots}


def asked_of(path: Path) -> list[Question]:
    """A file's questions; of StorySparkQA, which has a form of its own, those no story answers."""
    if path.parent.name != "storysparkqa":
        return load_questions(path)
    told = map(json.loads, path.read_text("utf-8").splitlines())
    return [
        Question(fields["qid"], fields["question"], (fields["answer"],), (), answerable=False)
        for fields in told
        if not fields["answer_object_in_collection"]
    ]


def chosen(questions: list[Question], short: bool) -> list[Question]:
    """Every second question of a long file, every eighth in the short form."""
    if short:
        return questions[::8] if len(questions) > 100 else questions
    return questions[::2] if len(questions) >= LONG_FILE else questions


def compare(
    answerer: Answerer,
    questions: Sequence[Question],
    cut_by: Sequence[Question],
    python: Path | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Every system's measures over the same sections; then the peers' versions."""
    asked = [q for q in questions if q.answerable and q.evidence]
    sections = sections_of(answerer, cut_by)
    right = [right_sections(sections, question) for question in asked]
    told = peers_ranking([s.text for s in sections], [q.question for q in asked], python)
    rankings = {name: made["rankings"] for name, made in told["runs"].items()}
    depth = 3 * DEPTH  # a section has about three passages
    place = section_finder(sections)
    rankings["ballet_qa search"] = [
        ranked_sections(answerer.retriever.search(q.question, depth), place) for q in asked
    ]
    rankings["ballet_qa ask"] = [
        ranked_sections(answerer.answer(q.question, depth).hits, place) for q in asked
    ]
    rows = {}
    for name, ranking in rankings.items():
        made = []
        for ranked, gold, question in zip(ranking, right, asked, strict=True):
            stories = {span.story for span in question.evidence}
            first = bool(ranked) and sections[ranked[0]].story in stories
            held = ranking_measures([row in gold for row in ranked], len(gold))
            made.append(held | {"right_story_first": float(first)})
        rows[name] = {
            measure: asdict(mean([held[measure] for held in made])) for measure in made[0]
        }
    return {"questions": len(asked), "sections": len(sections), "rows": rows}, told["versions"]


def sections_of(answerer: Answerer, questions: Sequence[Question]) -> list[Section]:
    """The library cut where FairytaleQA's authors cut it, as far as their questions tell."""
    cuts: dict[str, set[int]] = {}
    for question in questions:
        for span in question.evidence:
            cuts.setdefault(span.story, set()).update((span.start, span.end))
    texts = answerer.index.texts
    sections = []
    for entry in texts.catalogue():
        row = texts.story_row(entry.id)
        assert row is not None
        text = texts.story(row).text
        places = sorted({0, len(text), *cuts.get(entry.id, ())})
        for start, end in pairwise(places):
            if text[start:end].strip():
                sections.append(Section(entry.id, start, end, text[start:end]))
    return sections


def right_sections(sections: Sequence[Section], question: Question) -> set[int]:
    """The sections that share at least half of themselves, or of the evidence, with it."""
    return {
        row
        for row, section in enumerate(sections)
        for span in question.evidence
        if section.story == span.story
        and 2 * (min(section.end, span.end) - max(section.start, span.start))
        >= min(section.end - section.start, span.end - span.start)
    }


def section_finder(sections: Sequence[Section]) -> Callable[[str, int], int]:
    """The section that holds a place of a story."""
    starts: dict[str, list[tuple[int, int]]] = {}
    for row, section in enumerate(sections):
        starts.setdefault(section.story, []).append((section.start, row))

    def find(story: str, place: int) -> int:
        return starts[story][bisect_right(starts[story], (place, len(sections))) - 1][1]

    return find


def ranked_sections(hits: Sequence[Hit], place: Callable[[str, int], int]) -> list[int]:
    """The sections of a ranking of passages, each where its first passage stands."""
    middles = [place(h.passage.story_id, (h.passage.start + h.passage.end) // 2) for h in hits]
    return list(dict.fromkeys(middles))[:DEPTH]


def peers_ranking(
    texts: Sequence[str], asked: Sequence[str], python: Path | None
) -> dict[str, Any]:
    """What benchmarks/peers/rank.py says, run by the peers' python; by ours, of one peer only."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("passages.jsonl", "questions.jsonl", "out.json")]
        files[0].write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), "utf-8")
        files[1].write_text("".join(json.dumps({"question": q}) + "\n" for q in asked), "utf-8")
        command = [str(python or sys.executable), str(PEERS / "rank.py"), *map(str, files)]
        subprocess.run(command if python else [*command, "sentence-transformers"], check=True)
        told: dict[str, Any] = json.loads(files[2].read_text("utf-8"))
    return told


def progress(title: str) -> Callable[[int, int], None]:
    def say(done: int, total: int) -> None:
        if done % 200 == 0 or done == total:
            print(f"{title}: {done} of {total}", file=sys.stderr, flush=True)

    return say


def quality_table(results: dict[str, Any]) -> str:
    """The product's own rows as the README shows them."""
    columns = {
        **{f"search R@{k}": ("search", f"R@{k}") for k in (1, 5, 50)},
        **{f"ask R@{k}": ("ask", f"R@{k}") for k in (1, 5)},
        "right story first": ("ask", "right_story_first"),
        "answer F1": ("answer", "token_f1"),
        "ROUGE-L": ("answer", "rouge_l"),
        "quoted from the evidence": ("answer", "quoted_from_evidence"),
        "wrongly refused": ("wrongly_refused",),
        "rightly refused": ("refused",),
    }
    lines = [
        f"| questions | n | {' | '.join(columns)} |",
        "|---|---|" + "---|" * len(columns),
    ]
    wanted = ("all", "carries a name", "inside the right story", "paraphrased (few words shared)")
    for title, made in results["reports"].items():
        for row, held in made["rows"].items():
            if row not in wanted or (
                row != "all" and not title.startswith("FairytaleQA val, libr")
            ):
                continue
            cells = [_number(held, path) for path in columns.values()]
            name = title if row == "all" else f"— {row}"
            lines.append(f"| {name} | {held['n']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def compared_table(results: dict[str, Any]) -> str:
    """The peers' rows, the best first by the first column."""
    columns = (*(f"R@{k}" for k in DEPTHS), "RR@10", "nDCG@10", "right_story_first")
    parts = []
    for title, made in results["compared"].items():
        parts += [
            f"| {title}: {made['questions']} questions, {made['sections']} sections | "
            + " | ".join(column.replace("_", " ") for column in columns)
            + " |",
            "|---|" + "---|" * len(columns),
        ]
        ordered = sorted(made["rows"].items(), key=lambda row: -row[1]["R@1"]["value"])
        for name, held in ordered:
            cells = [f"{held[column]['value']:.3f}" for column in columns]
            cells[0] += f" ({held['R@1']['low']:.3f}–{held['R@1']['high']:.3f})"
            parts.append(f"| {name} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def _number(held: dict[str, Any], path: tuple[str, ...]) -> str:
    value: Any = held
    for name in path:
        value = value[name]
    return "" if value is None else f"{value['value']:.3f}"


if __name__ == "__main__":
    main()
