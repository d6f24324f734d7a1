"""Fifty people at once: is any question lost, how long do they wait, does the memory stay flat.

    make bench-load             about ten minutes on two cores

Starts ``ballet-qa serve`` over the four seeds and asks it by the page's own queue: one person
alone, then fifty at once, each waiting for an answer before asking again, an hour's worth of
questions in all. Then 200 ask the REST route in the same moment: each is answered, or told at once
to come back (503). Waiting is given as times of what one person alone waits. Writes
benchmarks/results/load.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from circumstances import circumstances
from quality import ROOT

from ballet_qa.build import build_index
from ballet_qa.questions import load_questions

if TYPE_CHECKING:
    import psutil

PEOPLE = 50
AN_HOURS_WORTH = 50 * 20  # fifty people, a question every three minutes
AT_THE_SAME_MOMENT = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=AN_HOURS_WORTH)
    options = parser.parse_args()
    asked = [q.question for q in load_questions(ROOT / "tests" / "seed_questions.jsonl")]
    with tempfile.TemporaryDirectory() as folder:
        build_index(ROOT / "seeds", folder)
        with serving(folder) as (address, server):
            results = circumstances() | measure(address, server, asked, options.questions)
    print(table(results))
    path = Path(__file__).parent / "results" / "load.json"
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


@contextmanager
def serving(index: str) -> Iterator[tuple[str, psutil.Process]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ballet_qa", "serve", "--index", index, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            try:
                if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        import psutil  # of the benchmark extra; the tables need it not

        yield address, psutil.Process(process.pid)
        process.terminate()


def measure(
    address: str, server: psutil.Process, questions: list[str], wanted: int
) -> dict[str, Any]:
    alone = [by_queue(address, question)[0] for question in questions[:30]]
    turn = itertools.cycle(questions)
    spent: list[float] = []
    lost: Counter[str] = Counter()
    memory = [server.memory_info().rss]
    started = time.perf_counter()
    with ThreadPoolExecutor(PEOPLE) as people:
        batch = wanted // 5
        for _ in range(5):
            waiting = [people.submit(by_queue, address, next(turn)) for _ in range(batch)]
            for made in waiting:
                seconds, problem = made.result()
                spent.append(seconds)
                lost.update([problem] if problem else [])
            memory.append(server.memory_info().rss)
            print(f"{len(spent)} asked, {memory[-1] / 2**20:.0f} MB", flush=True)
    seconds = time.perf_counter() - started
    with ThreadPoolExecutor(AT_THE_SAME_MOMENT) as people:
        codes = list(
            people.map(lambda q: by_route(address, q), itertools.islice(turn, AT_THE_SAME_MOMENT))
        )
    return {
        "alone_p50_ms": float(np.median(alone)) * 1000,
        "alone_answers_a_second": len(alone) / sum(alone),
        "people": PEOPLE,
        "questions": len(spent),
        "lost": dict(lost),
        "p50_ms": float(np.percentile(spent, 50)) * 1000,
        "p95_ms": float(np.percentile(spent, 95)) * 1000,
        "answers_a_second": len(spent) / seconds,
        "memory_mb": [round(held / 2**20) for held in memory],
        "same_moment": {str(code): codes.count(code) for code in sorted(set(codes))},
    }


def by_queue(address: str, question: str) -> tuple[float, str]:
    """Ask as the page does; the seconds it took, and what went wrong, if anything did."""
    started = time.perf_counter()
    try:
        with httpx.Client(timeout=300) as client:
            joined = client.post(
                f"{address}/gradio_api/call/ask", json={"data": [question, 5, None]}
            )
            if joined.status_code != 200:
                return time.perf_counter() - started, f"status {joined.status_code}"
            event = joined.json()["event_id"]
            told = client.get(f"{address}/gradio_api/call/ask/{event}").text
    except httpx.HTTPError as error:
        return time.perf_counter() - started, type(error).__name__
    told = told.partition("event: complete\ndata: ")[2].partition("\n")[0]
    answered = told and json.loads(told)[0]["question"] == question
    return time.perf_counter() - started, "" if answered else "not answered"


def by_route(address: str, question: str) -> int:
    return httpx.post(f"{address}/api/ask", json={"question": question}, timeout=300).status_code


def table(results: dict[str, Any]) -> str:
    alone = results["alone_p50_ms"]
    lost = sum(results["lost"].values())
    same = ", ".join(f"{count} × {code}" for code, count in results["same_moment"].items())
    memory = results["memory_mb"]
    return "\n".join(
        [
            f"| {results['people']} people at once, {results['questions']} questions | |",
            "|---|---|",
            f"| lost | {lost} |",
            f"| one person alone waits (p50) | {alone:.0f} ms |",
            f"| fifty wait, p50 | {results['p50_ms'] / alone:.0f} times that |",
            f"| p95 | {results['p95_ms'] / alone:.0f} times that |",
            f"| answers a second, one after the other | {results['alone_answers_a_second']:.1f} |",
            f"| answers a second, fifty at once | {results['answers_a_second']:.1f} |",
            f"| memory after each fifth | {', '.join(map(str, memory))} MB |",
            f"| {AT_THE_SAME_MOMENT} at the REST route in the same moment | {same} |",
        ]
    )


if __name__ == "__main__":
    main()
