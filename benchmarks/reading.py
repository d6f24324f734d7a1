"""What each part of the reading adds, and what it costs to read more passages.

    make bench-reading

Asks val's questions of the libraries of benchmarks/quality.py. First val's library is searched with
the stock encoder and with the trained one. Then the search's first fifty passages are read once,
and put in the order of each part: the search alone, the network alone, the network without the line
of context, the fitted order of all evidence over the first 5 to 50. Last, questions that no story
answers are told from those that one does by each sign alone, and by all of them. Prints the tables
of docs/answers.md, and writes benchmarks/results/reading.json and a plot.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import circumstances
from quality import COMPARED, FILES, ROOT, asked_of, libraries, progress

from ballet_qa.answering import Answerer
from ballet_qa.build import build_index
from ballet_qa.cross_encoder import Context, CrossEncoder, Judgement
from ballet_qa.encoder import STOCK, load_encoder
from ballet_qa.metrics import mean, success_at
from ballet_qa.questions import Question, is_right, load_questions
from ballet_qa.reader import StoryReader, certainty
from ballet_qa.retriever import Retriever
from ballet_qa.settings import SETTINGS
from ballet_qa.types import Hit, Reading

READ = (5, 10, 15, 20, 30, 50)
DEPTHS = (1, 5)
ENCODER_DEPTHS = (1, 5, 30)
WRONG = (0.10, 0.15)  # of the questions a story answers, so many may be refused
REFUSED = 128  # questions of each file, at most
DEFAULT = " or ".join(str(many) for many, _ in SETTINGS.read_in_turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--indexes", type=Path, default=ROOT / ".bench", help="kept between runs")
    parser.add_argument("--network", type=Path, help="its folder; by default the package's")
    parser.add_argument("--every", type=int, default=4, help="of so many questions, one is asked")
    options = parser.parse_args()
    answerers = libraries(options.data, options.indexes, short=False)
    network = CrossEncoder.loading(options.network)
    results = circumstances() | {"sets": {}, "encoders": {}, "refusals": {}}
    for title, _, file in COMPARED:
        asked = [q for q in load_questions(options.data / file) if q.answerable]
        asked = asked[::2] if len(asked) > 200 else asked
        title = title.replace("train + val", "val")
        results["encoders"][title] = encoders(options, answerers["val"], asked)
        print(encoder_table(title, results["encoders"][title]), flush=True)
    for title, library, file in COMPARED:
        questions = [q for q in load_questions(options.data / file) if q.answerable]
        asked = questions[:: options.every] if len(questions) > 200 else questions
        results["sets"][title] = measure(answerers[library], network, asked, progress(title))
        print(table(title, results["sets"][title]), flush=True)
    results["refusals"] = refusals(answerers["val"], network, options.data)
    print(refusal_table(results["refusals"]), flush=True)
    folder = Path(__file__).parent / "results"
    (folder / "reading.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    from plots import plot_reading

    plot_reading(results, ROOT / "docs" / "plots")


def encoders(
    options: argparse.Namespace, answerer: Answerer, questions: Sequence[Question]
) -> dict[str, Any]:
    """The ranks of the stock encoder and of ours: passage vectors alone, and the fused search."""
    stories = options.data / "fairytaleqa/val/stories"
    stock = load_encoder(STOCK)
    build_index(stories, options.indexes / "val-stock", encoder=stock)
    found: dict[str, dict[str, Any]] = {}
    for retriever in (Retriever.load(options.indexes / "val-stock", stock), answerer.retriever):
        texts, vectors = retriever.index.texts, retriever.index.passage_vectors
        alone, fused = [], []
        for question in questions:
            rows, _ = vectors.search(retriever.query(question.question).vector, max(ENCODER_DEPTHS))
            alone.append([is_right(texts.passage(row), question.evidence) for row in rows.tolist()])
            hits = retriever.search(question.question, max(ENCODER_DEPTHS))
            fused.append([is_right(hit.passage, question.evidence) for hit in hits])
        for what, rankings in (("vectors alone", alone), ("fused search", fused)):
            found[f"{retriever.encoder.name}, {what}"] = {
                f"R@{k}": asdict(mean([success_at(row, k) for row in rankings]))
                for k in ENCODER_DEPTHS
            }
    return {"questions": len(questions), "rows": found}


def encoder_table(title: str, made: dict[str, Any]) -> str:
    lines = [
        f"| {title}, {made['questions']} questions | "
        + " | ".join(f"R@{k}" for k in ENCODER_DEPTHS)
        + " |",
        "|---|" + "---|" * len(ENCODER_DEPTHS),
    ]
    for name, held in made["rows"].items():
        lines.append(f"| {name} | " + " | ".join(map(interval, held.values())) + " |")
    return "\n".join(lines) + "\n"


def interval(held: dict[str, float]) -> str:
    return f"{held['value']:.3f} ({held['low']:.3f}–{held['high']:.3f})"


def measure(
    answerer: Answerer,
    network: CrossEncoder,
    questions: Sequence[Question],
    tick: Callable[[int, int], None],
) -> dict[str, Any]:
    """R@1 and R@5 of every order, and the milliseconds of reading so many passages."""
    reader = StoryReader(answerer.index, answerer.retriever.encoder, network)
    found: dict[str, list[list[bool]]] = {}
    times: dict[str, list[float]] = {name: [] for name in (*map(str, READ), DEFAULT)}
    for number, question in enumerate(questions, start=1):
        hits = answerer.retriever.search(question.question, max(READ))
        right = [is_right(hit.passage, question.evidence) for hit in hits]
        judged = reader.judged(question.question, hits)
        contexts = [Context("", "", hit.passage.text) for hit in hits[:20]]
        bare = network.judge(question.question, contexts)
        orders = {
            "search alone": range(len(hits)),
            "network alone, 20 read": by_relevance(judged[:20]),
            "network alone, 20 read without their context": by_relevance(bare),
        }
        for count in READ:
            name = f"all evidence, {count} read"
            orders[name] = by_evidence(reader, question.question, hits[:count], judged[:count])
            if number % 8 == 0:  # timed now and then: it reads everything once more
                started = time.perf_counter()
                again = reader.judged(question.question, hits[:count])
                by_evidence(reader, question.question, hits[:count], again)
                times[str(count)].append((time.perf_counter() - started) * 1000)
        started = time.perf_counter()
        readings = reader.read(question.question, hits)
        times[DEFAULT].append((time.perf_counter() - started) * 1000)
        orders[f"all evidence, {DEFAULT} read"] = places(hits, readings)
        for name, order in orders.items():
            rest = [row for row in range(len(hits)) if row not in set(order)]
            found.setdefault(name, []).append([right[row] for row in [*order, *rest]])
        tick(number, len(questions))
    return {
        "questions": len(questions),
        "orders": {
            name: {f"R@{k}": asdict(mean([success_at(row, k) for row in rankings])) for k in DEPTHS}
            for name, rankings in found.items()
        },
        "reading_ms": {name: float(np.median(spent)) for name, spent in times.items()},
    }


def by_relevance(judged: Sequence[Judgement]) -> list[int]:
    return sorted(range(len(judged)), key=lambda row: -judged[row].relevance)


def by_evidence(
    reader: StoryReader, question: str, hits: Sequence[Hit], judged: Sequence[Judgement]
) -> list[int]:
    return places(hits, reader.weigh(reader.asked(question), hits, judged))


def places(hits: Sequence[Hit], readings: Sequence[Reading]) -> list[int]:
    """Where in the search's ranking each reading's passage stands."""
    rank = {hit.passage.id: row for row, hit in enumerate(hits)}
    return [rank[reading.hit.passage.id] for reading in readings]


def refusals(answerer: Answerer, network: CrossEncoder, data: Path) -> dict[str, Any]:
    """How many unanswerable questions each sign refuses, where it may refuse so many others.

    The others are FairytaleQA's answerable questions, and those of the same file, if it has any.
    The threshold of a sign is the highest that refuses at most that share of them.
    """
    reader = StoryReader(answerer.index, answerer.retriever.encoder, network)
    read: dict[str, dict[bool, list[dict[str, float]]]] = {}
    for title, library, file in FILES:
        if library != "val":
            continue
        questions = asked_of(data / file)
        read[title.removesuffix(", library val")] = held = {}
        for answerable in (True, False):
            told = [q for q in questions if q.answerable == answerable]
            asked = told[:: max(1, len(told) // REFUSED)][:REFUSED]
            held[answerable] = [signs(answerer, reader, question.question) for question in asked]
            print(f"{title}: {len(asked)} of {len(told)} read", flush=True)
    first = next(iter(read))
    rows = []
    for title, held in read.items():
        beside = {first: read[first][True]} | ({title: held[True]} if held[True] else {})
        for other, answerable in beside.items() if held[False] else ():
            for sign in held[False][0]:
                ranked = sorted(made[sign] for made in answerable)
                thresholds = [ranked[int(wrong * len(ranked))] for wrong in WRONG]
                refused = [
                    asdict(mean([float(made[sign] < threshold) for made in held[False]]))
                    for threshold in thresholds
                ]
                rows.append(
                    {
                        "questions": f"{title}: {len(held[False])}",
                        "beside": f"{other}: {len(answerable)}",
                        "sign": sign,
                        "refused": refused,
                    }
                )
    return {"rows": rows}


def signs(answerer: Answerer, reader: StoryReader, question: str) -> dict[str, float]:
    """What may tell that a question has no answer, each higher where it has one."""
    hits = answerer.retriever.search(question, SETTINGS.most_read)
    judged = reader.judged(question, hits)
    answer = answerer.answer(question)
    return {
        "the search's score": hits[0].score,
        "the network's answerable head": max(made.answerable for made in judged),
        "the certainty of the answer's place": max(certainty(made) for made in judged),
        "all evidence": reader.weigh(reader.asked(question), hits, judged)[0].answerable,
        "all evidence, and unknown names": answer.likelihood,
    }


def refusal_table(made: dict[str, Any]) -> str:
    lines = [
        "| questions no story answers | answerable ones beside | told by | "
        + " | ".join(f"refused at {wrong:.0%} wrong" for wrong in WRONG)
        + " |",
        "|---|---|---|" + "---|" * len(WRONG),
    ]
    for row in made["rows"]:
        cells = " | ".join(map(interval, row["refused"]))
        lines.append(f"| {row['questions']} | {row['beside']} | {row['sign']} | {cells} |")
    return "\n".join(lines) + "\n"


def table(title: str, made: dict[str, Any]) -> str:
    lines = [
        f"| {title}, {made['questions']} questions | R@1 | R@5 | reading, p50 ms |",
        "|---|---|---|---|",
    ]
    for name, held in made["orders"].items():
        cells = map(interval, held.values())
        count = name.removeprefix("all evidence, ").removesuffix(" read")
        spent = made["reading_ms"].get(count) if name.startswith("all") else None
        lines.append(
            f"| {name} | {' | '.join(cells)} | {'' if spent is None else f'{spent:.0f}'} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
