"""How fast, and how far from what the machine could do, at 35 to a million passages.

    make bench-speed          35, 4,000, 100,000 and 1,000,000 passages, the peers beside
    make bench-speed-short    35 and 500 passages and one peer, in minutes: what CI runs
    benchmarks/speed.py --sizes 35    one size again; the others stay as they were measured

The 35 are the four seeds. The 4,000 are stories of FairytaleQA where it is at hand, else, like
every larger library, made up: real sentences recombined into paragraphs and stories; from 100,000
on their vectors are real sentence vectors with noise, dealt to the texts by hash. That is right for
time, memory and disk, and says nothing of quality. Every system runs in a process of its own, on
the same texts, the same vectors and the same questions; indexing includes loading the model. The
long form writes benchmarks/results/speed.json and its plot.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import circumstances

from ballet_qa.build import build_index, passage_readings
from ballet_qa.corpus import find_story_files, read_stories
from ballet_qa.encoder import SentenceEncoder, stock_folder
from ballet_qa.passages import section_numbers, sentence_spans, split_passages
from ballet_qa.types import FloatArray, Story

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).parent / "peers"
QUESTIONS = 60
STORY_PASSAGES = 40
EMBEDDED = 10_000  # libraries up to here are embedded in earnest
TWICE = 200_000  # up to here the build of unchanged stories is timed too
# What holds every vector as a Python list, or every word of a library in Python dictionaries, is
# left out where it would need more memory than the machine has, or many minutes to load.
LARGEST = {
    "sentence-transformers": 10**6,
    "LangChain": 10**5,
    "LlamaIndex": 10**4,
    "Haystack": 10**4,
    "txtai": 10**4,
}


class DealtVectors:
    """The real encoder for questions; for passages, real sentence vectors with noise, by hash."""

    def __init__(self, encoder: SentenceEncoder, pool: FloatArray) -> None:
        self.name, self.fingerprint = encoder.name, encoder.fingerprint
        self.dimension = encoder.dimension
        self.encode_queries = encoder.encode_queries
        self._pool = pool

    def encode_passages(self, texts: Sequence[str]) -> FloatArray:
        hashes = [zlib.crc32(text.encode()) for text in texts]
        noise = np.random.default_rng(hashes[0] if hashes else 0)
        rows = self._pool[np.array(hashes, dtype=np.int64) % len(self._pool)]
        spread = 0.3 / np.sqrt(self.dimension)
        rows = rows + noise.standard_normal(rows.shape, dtype=np.float32) * np.float32(spread)
        unit: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[35, 4_000, 100_000, 1_000_000])
    parser.add_argument("--ours", nargs=3, metavar=("STORIES", "INDEX", "POOL"), help="one process")
    options = parser.parse_args()
    questions = asked(options.data)
    if options.ours:
        stories, index, pool = options.ours
        print(json.dumps(measure_ours(Path(stories), Path(index), pool, questions)))
        return
    file = Path(__file__).parent / "results" / "speed.json"
    results: dict[str, Any] = {"sizes": {}}
    if file.exists() and not options.short:
        results = json.loads(file.read_text("utf-8"))
    shell = [sys.executable, "-m", "ballet_qa", "--help"]
    results |= {"limits": machine_limits(), "help_s": seconds(shell)}
    for size in [35, 500] if options.short else options.sizes:
        made = measure_size(size, options, questions, results["limits"])
        results["sizes"][str(size)] = made | {"circumstances": circumstances()}
        print(size_table(made), flush=True)
        if not options.short:  # after each, for the last takes longest
            file.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(speed_table(results))
    if not options.short:
        from plots import plot_speed

        plot_speed(results, ROOT / "docs" / "plots")


def asked(data: Path) -> list[str]:
    file = data / "fairytaleqa/val/questions.jsonl"
    file = file if file.exists() else ROOT / "tests" / "seed_questions.jsonl"
    lines = [json.loads(line)["question"] for line in file.read_text("utf-8").splitlines()]
    return lines[:: max(1, len(lines) // QUESTIONS)][:QUESTIONS]


def measure_size(
    size: int, options: argparse.Namespace, questions: list[str], limits: dict[str, float]
) -> dict[str, Any]:
    """Every system at one size."""
    with tempfile.TemporaryDirectory(prefix="ballet_qa-speed-") as folder:
        stories = make_library(Path(folder, "stories"), size, options.data)
        passages = library_passages(stories)
        real = len(passages) <= EMBEDDED
        pool = Path(folder, "pool.npy")
        if not real:
            np.save(pool, sentence_pool(options.data))
        word = [sys.executable, __file__, "--data", str(options.data)]
        command = [*word, "--ours", str(stories), f"{folder}/index", "-" if real else str(pool)]
        made: dict[str, Any] = {"passages": len(passages), "systems": {}}
        made["systems"]["ballet_qa"] = last_line(command)
        index_mb = made["systems"]["ballet_qa"]["vectors_mb"]
        made["limit_search_ms"] = index_mb / 1e3 / limits["read_gb_s"] * 1e3
        work = made["systems"]["ballet_qa"]["embedding_gflop"]
        made["limit_index_s"] = work / limits["gflop_s"] if work else None
        shutil.rmtree(stories)
        files = {"passages": Path(folder, "p.jsonl"), "questions": Path(folder, "q.jsonl")}
        files["passages"].write_text(
            "".join(json.dumps({"text": text}) + "\n" for text in passages), "utf-8"
        )
        files["questions"].write_text(
            "".join(json.dumps({"question": question}) + "\n" for question in questions), "utf-8"
        )
        given = "-"
        if not real:
            given = str(Path(folder, "vectors.npy"))
            np.save(given, DealtVectors(SentenceEncoder(), np.load(pool)).encode_passages(passages))
        python = options.peers / "bin" / "python"
        for name, largest in LARGEST.items():
            if name != "sentence-transformers" and (options.short or not python.exists()):
                continue
            if size > largest:
                made["systems"][name] = None
                continue
            kept = Path(folder, "kept")
            kept.mkdir()
            room = str(python) if python.exists() and not options.short else sys.executable
            words = [name, *map(str, files.values()), given, str(kept)]
            made["systems"][name] = last_line([room, str(PEERS / "speed.py"), *words])
            shutil.rmtree(kept)
    return made


def measure_ours(
    stories: Path, folder: Path, pool: str, questions: Sequence[str]
) -> dict[str, Any]:
    """Build, build again, and ask, in this process."""
    started = time.perf_counter()
    encoder: Any = SentenceEncoder()
    if pool != "-":
        encoder = DealtVectors(encoder, np.load(pool))
    report = build_index(stories, folder, encoder=encoder)
    built = time.perf_counter()
    if report.passages <= TWICE:
        build_index(stories, folder, encoder=encoder)
    unchanged = time.perf_counter()
    # A process that only asks: what a server holds, not what a build needed.
    again = [sys.executable, "-c", _ASKING, str(folder), json.dumps(list(questions))]
    asking = last_line(again)
    shell = [sys.executable, "-m", "ballet_qa", "ask", questions[0], "--index", str(folder)]
    live = folder / "generations" / (folder / "live").read_text().split()[0]
    return asking | {
        "cold_s": seconds(shell),
        "embedding_gflop": embedding_gflop(stories) if pool == "-" else None,
        "passages": report.passages,
        "sentences": report.sentences,
        "index_s": built - started,
        "unchanged_s": unchanged - built if report.passages <= TWICE else None,
        "peak_build_mb": peak_mb(),
        "saved_mb": sum(p.stat().st_size for p in live.rglob("*")) / 1e6,
        "vectors_mb": sum(p.stat().st_size for p in live.glob("*.faiss")) / 1e6,
    }


def embedding_gflop(stories: Path) -> float:
    """The multiplications and additions of one pass of MiniLM over every passage and sentence.

    Two for each of its 10.6 million weights beyond the word table, a token; attention left out.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stock_folder())
    texts: dict[str, None] = {}
    for story in library_stories(stories):
        passages = split_passages(story.id, story.text, story.sections)
        parts = section_numbers(passages, story.sections)
        for passage, reading in zip(passages, passage_readings(passages, parts), strict=True):
            texts[reading] = None
            for span in sentence_spans(story.text, passage.start, passage.end):
                texts[story.text[span.start : span.end]] = None
    ids = tokenizer(list(texts), truncation=True, max_length=256)["input_ids"]
    weights = 6 * (4 * 384**2 + 2 * 384 * 1536)
    return sum(map(len, ids)) * 2 * weights / 1e9


_ASKING = """
import json, sys, time
import numpy as np, psutil
from ballet_qa.answering import Answerer
from ballet_qa.encoder import SentenceEncoder
encoder = SentenceEncoder()
started = time.perf_counter()
answerer = Answerer.load(sys.argv[1], encoder)
made = {"open_s": time.perf_counter() - started, "warm": {}}
questions = json.loads(sys.argv[2])
search = answerer.retriever.search
ways = {"search": lambda q: search(q, 10), "ask": lambda q: answerer.answer(q, 5)}
for name, ask in ways.items():
    ask(questions[0])
    times = []
    for question in questions:
        begun = time.perf_counter()
        ask(question)
        times.append((time.perf_counter() - begun) * 1000)
        if sum(times) > 60_000:
            break
    p50, p95 = np.percentile(times, [50, 95])
    made["warm"][name] = {"p50_ms": float(p50), "p95_ms": float(p95), "n": len(times)}
made["resident_mb"] = psutil.Process().memory_info().rss / 1e6
print(json.dumps(made))
"""


def seconds(command: Sequence[str]) -> float:
    """From a cold shell to the command's end, the middle of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return sorted(times)[1]


def last_line(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def machine_limits() -> dict[str, float]:
    """Bytes one core reads a second, and floating-point work all cores do, the best of five."""
    rows = np.ones((250_000, 384), dtype=np.float32)
    vector = np.ones(384, dtype=np.float32)
    with one_thread():
        reading = min(spent(lambda: rows @ vector) for _ in range(5))
    square = np.ones((2048, 2048), dtype=np.float32)
    work = min(spent(lambda: square @ square) for _ in range(5))
    return {
        "read_gb_s": rows.nbytes / reading / 1e9,
        "gflop_s": 2 * 2048**3 / work / 1e9,
    }


def spent(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def one_thread() -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def make_library(folder: Path, size: int, data: Path) -> Path:
    """A folder of stories with about ``size`` passages."""
    folder.mkdir(parents=True)
    if size == 35:
        shutil.copytree(ROOT / "seeds", folder, dirs_exist_ok=True)
        return folder
    real = data / "fairytaleqa/train/stories"
    if size <= EMBEDDED and real.is_dir():
        left = size
        for story in library_stories(real):
            passages = split_passages(story.id, story.text)[:left]
            (folder / f"{story.id}.txt").write_text(story.text[: passages[-1].end], "utf-8")
            left -= len(passages)
            if left <= 0:
                break
        return folder
    sentences = real_sentences(data)
    chance = random.Random(size)
    for number in range(-(-size // STORY_PASSAGES)):
        count = min(STORY_PASSAGES, size - number * STORY_PASSAGES)
        paragraphs = [
            " ".join(chance.choices(sentences, k=chance.choice((1, 2, 3, 4)))) for _ in range(count)
        ]
        below = folder / f"{number // 1000:03d}"
        below.mkdir(exist_ok=True)
        (below / f"{number:06d}.txt").write_text("\n\n".join(paragraphs) + "\n", "utf-8")
    return folder


@cache
def real_sentences(data: Path) -> list[str]:
    real = data / "fairytaleqa/train/stories"
    found: list[str] = []
    for story in library_stories(real if real.is_dir() else ROOT / "seeds")[:60]:
        for passage in split_passages(story.id, story.text):
            for span in sentence_spans(story.text, passage.start, passage.end):
                found.append(" ".join(story.text[span.start : span.end].split()))
    return list(dict.fromkeys(found))


@cache
def sentence_pool(data: Path) -> FloatArray:
    """Real vectors to deal: of some thousand real sentences."""
    return SentenceEncoder().encode_passages(real_sentences(data)[:5_000])


def library_passages(stories: Path) -> list[str]:
    return [
        passage.text
        for story in library_stories(stories)
        for passage in split_passages(story.id, story.text, story.sections)
    ]


def library_stories(stories: Path) -> list[Story]:
    return [story for file in find_story_files([stories]).files for story in read_stories(file)]


def size_table(made: dict[str, Any]) -> str:
    """One size as the README shows it: values, and times as multiples of ours."""
    ours = made["systems"]["ballet_qa"]
    lines = [
        f"| {made['passages']:,} passages | passages indexed a second | p50 ms | p95 ms | to ours "
        "| memory MB | on disk MB | start to first answer s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = ours["warm"]["search"]["p50_ms"]
    for name, held in made["systems"].items():
        if held is None:
            lines.append(f"| {name} | not measured at this size | | | | | | |")
            continue
        for kind, warm in held["warm"].items():
            title = f"ballet_qa {kind}" if name == "ballet_qa" else kind
            rate = f"{made['passages'] / held['index_s']:,.0f}"
            lines.append(
                f"| {title} | {rate} | {warm['p50_ms']:.1f} | {warm['p95_ms']:.1f} "
                f"| {warm['p50_ms'] / base:.2f} | {held['resident_mb']:,.0f} "
                f"| {held['saved_mb']:,.1f} | {held['cold_s']:.1f} |"
            )
    floor = made["limit_index_s"]
    fastest = f"{made['passages'] / floor:,.0f}" if floor else ""
    lines.append(
        f"| the machine's limit for us | {fastest} | {made['limit_search_ms']:.1f} | "
        f"| {made['limit_search_ms'] / base:.2f} | | {ours['vectors_mb']:,.1f} | |"
    )
    return "\n".join(lines) + "\n"


def speed_table(results: dict[str, Any]) -> str:
    """Our own growth with size."""
    lines = [
        "| passages | built in s | unchanged in s | opened in s | search p50 ms | ask p50 ms "
        "| memory MB | peak while building MB | on disk MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for made in results["sizes"].values():
        held = made["systems"]["ballet_qa"]
        unchanged = "" if held["unchanged_s"] is None else f"{held['unchanged_s']:,.1f}"
        search, ask = (held["warm"][way]["p50_ms"] for way in ("search", "ask"))
        lines.append(
            f"| {made['passages']:,} | {held['index_s']:,.1f} | {unchanged} "
            f"| {held['open_s']:.2f} | {search:.0f} | {ask:.0f} "
            f"| {held['resident_mb']:,.0f} | {held['peak_build_mb']:,.0f} "
            f"| {held['saved_mb']:,.1f} |"
        )
    limits = results["limits"]
    lines += [
        "",
        f"From a cold shell, `--help` takes {results['help_s']:.2f} s. "
        f"One core reads {limits['read_gb_s']:.1f} GB/s, "
        f"all of them do {limits['gflop_s']:.0f} Gflop/s in single precision.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
