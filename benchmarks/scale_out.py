"""A library on one, two and three Ray nodes: how fast it is built and asked, and what falls.

    sudo python benchmarks/scale_out.py [--nodes 1 2 3] [--faults]

Each node is a real one in a network namespace (nodes.py), pinned to a core; where there are fewer
cores than nodes, they share, and more nodes cannot be faster. Needs the right to make namespaces,
ballet-qa[ray], and for the faults Debian's redis-server.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from circumstances import PACKAGES, circumstances
from nodes import Node, cluster, run

ROOT = Path(__file__).resolve().parent.parent
BALLET_QA = [sys.executable, "-m", "ballet_qa"]
PORT = 7860
QUESTIONS = 60
CLIENTS = 8  # where many ask at once
ASKERS = 2  # while something falls
PATIENCE_S = 20.0  # of one who asks
LOOK_S = 5.0  # of one who opens the page
SETTLED_S = 5.0
QUIET_S = 25.0  # whole for so long: it has recovered
AWAY_S = 10.0  # until another machine takes the place of one that fell
LONGEST_S = 180.0


def ask(address: str, question: str) -> tuple[float, str, str]:
    """Seconds, how it was answered (whole, partial, refused, none), and what was said."""
    body = json.dumps({"question": question}).encode()
    request = urllib.request.Request(
        f"http://{address}:{PORT}/api/ask", body, {"Content-Type": "application/json"}
    )
    begun = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as said:
            answer = json.loads(said.read())
        came = "partial" if "partial" in answer else "whole"
        told = json.dumps([one["quote"] for one in answer["findings"]])
    except urllib.error.HTTPError as error:
        came, told = "refused", f"{error.code}: {error.read()[:200].decode()}"
    except (OSError, HTTPException) as error:
        came, told = "none", str(error)
    return time.perf_counter() - begun, came, told


def build(head: Node, home: str, stories: Path, shards: int) -> int:
    """Build a library on the cluster; how many passages it has."""
    words = [*BALLET_QA, "build", "--ray", f"{head.address}:6379", "--index", home]
    words += ["--shards", str(shards), "--stories", str(stories)]
    said = run(*head.words(*words), env=head.env).stdout
    return int(said.split(" passages (")[0].split("; ")[-1].replace(",", ""))


@contextmanager
def served(head: Node, home: str, replicas: int) -> Iterator[None]:
    words = [*BALLET_QA, "serve", "--ray", f"{head.address}:6379", "--index", home]
    words += ["--host", "0.0.0.0", "--port", str(PORT), "--replicas", str(replicas)]
    with subprocess.Popen(
        head.words(*words),
        env=head.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        print("  " + server.stdout.readline().strip(), flush=True)
        yield
        server.kill()


def asked_at(address: str, questions: Sequence[str]) -> dict[str, float]:
    for question in questions[:3]:
        ask(address, question)
    alone = [1000 * ask(address, question)[0] for question in questions]
    begun = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as several:
        list(several.map(lambda question: ask(address, question), questions))
    return {
        "ask_p50_ms": float(np.percentile(alone, 50)),
        "ask_p95_ms": float(np.percentile(alone, 95)),
        "answers_s": len(questions) / (time.perf_counter() - begun),
    }


class Load:
    """Questions asked without end, by some at a time, of a node that stays; each answer is kept.

    And the page is looked at all the time.
    """

    def __init__(self, address: str, questions: Sequence[str]) -> None:
        self._address, self._questions = address, questions
        self._expected = {question: self._whole(question) for question in questions}
        self._answers: list[tuple[float, float, str, str]] = []  # when, how long, how, what
        self._looks: list[tuple[float, bool]] = []  # when, and whether the page was there
        self._over = Event()

    def run(self, fault: Callable[[], None]) -> dict[str, Any]:
        """Let it happen; how all was answered until it had been whole for a while again."""
        threads = [Thread(target=self._ask, args=(number,)) for number in range(ASKERS)]
        threads.append(Thread(target=self._look))
        for thread in threads:
            thread.start()
        time.sleep(SETTLED_S)
        fell = time.perf_counter()
        fault()
        while time.perf_counter() - fell < LONGEST_S and not self._settled(fell):
            time.sleep(0.5)
        self._over.set()
        for thread in threads:
            thread.join()
        after = [answer for answer in self._answers if answer[0] > fell]
        worse = [at - fell for at, _, came, _ in after if came != "whole"]
        gone = [at - fell for at, there in self._looks if at > fell and not there]
        counted = Counter(came for _, _, came, _ in after)
        reasons = Counter(told[:80] for *_, came, told in after if came in ("refused", "none"))
        return {
            "answers": {kind: counted[kind] for kind in ("whole", "partial", "refused", "none")},
            "wrong": counted["wrong"],
            "whole_again_s": round(max(worse, default=0.0), 1),
            "page_again_s": round(max(gone, default=0.0), 1),
            "slowest_s": round(max(seconds for _, seconds, _, _ in after), 1),
            "reasons": dict(reasons.most_common(4)),
        }

    def _ask(self, number: int) -> None:
        for turn in count(number):
            if self._over.is_set():
                return
            question = self._questions[turn % len(self._questions)]
            seconds, came, told = ask(self._address, question)
            if came == "whole" and told != self._expected[question]:
                came = "wrong"
            self._answers.append((time.perf_counter(), seconds, came, told))
            if came == "none":
                time.sleep(0.2)

    def _look(self) -> None:
        page = f"http://{self._address}:{PORT}/"
        while not self._over.wait(0.5):
            try:
                with urllib.request.urlopen(page, timeout=LOOK_S) as said:
                    there = b"ballet_qa" in said.read()
            except (OSError, HTTPException):
                there = False
            self._looks.append((time.perf_counter(), there))

    def _whole(self, question: str) -> str:
        """What is said before anything falls; a node that has just come may need a while."""
        until = time.perf_counter() + LONGEST_S
        while time.perf_counter() < until:
            _, came, told = ask(self._address, question)
            if came == "whole":
                return told
            time.sleep(0.5)
        raise RuntimeError(f"{self._address} does not answer: {came}: {told}")

    def _settled(self, fell: float) -> bool:
        """Whether all has been whole for a while, long enough for the fault to have shown."""
        now = time.perf_counter()
        latest = {came for at, _, came, _ in self._answers if at > now - QUIET_S}
        looks = {there for at, there in self._looks if at > now - QUIET_S}
        return now - fell > QUIET_S and latest == {"whole"} and looks == {True}


def faults(stories: Path, questions: Sequence[str]) -> dict[str, Any]:
    """What becomes of questions when a shard, a node, the head fall; each on a new cluster."""
    made: dict[str, Any] = {}
    for name, replicas in FAULTS:
        with tempfile.TemporaryDirectory() as folder, cluster(3, Path(folder), redis=True) as nodes:
            home = f"file://{folder}/library"
            build(nodes[0], home, stories, 2)
            with served(nodes[0], home, replicas):
                done = fallen(name, nodes, questions[:12])
        made[f"{name}, {replicas} of each"] = done
        print(name, replicas, done, flush=True)
    return made


def fallen(name: str, nodes: Sequence[Node], questions: Sequence[str]) -> dict[str, Any]:
    """How all was answered at a worker that stays; the page's is the last of them, which falls."""
    head, *workers = nodes
    workers.sort(
        key=lambda node: any("ServeReplica:ballet_qa-page" in p for _, p in node.processes())
    )
    return Load(workers[0].address, questions).run(partial(FALLS[name], [head, *workers]))


def shard_falls(nodes: Sequence[Node]) -> None:
    """A shard's process is killed: the first there is."""
    for node in nodes[1:]:
        keepers = [pid for pid, name in node.processes() if "ServeReplica:ballet_qa-shard" in name]
        if keepers:
            run("kill", "-9", keepers[0])
            return
    raise AssertionError("no node keeps a shard")


def node_falls(nodes: Sequence[Node]) -> None:
    """The last node is killed, the page's, and does not come back."""
    nodes[-1].kill()


def node_returns(nodes: Sequence[Node]) -> None:
    """The last node is killed, the page's; a new one takes its place after a while."""
    nodes[-1].kill()
    time.sleep(AWAY_S)
    nodes[-1].start(nodes[0])


def head_returns(nodes: Sequence[Node]) -> None:
    """The head is killed; a new one takes its place after a while, with what Redis knows."""
    nodes[0].kill()
    time.sleep(AWAY_S)
    nodes[0].start(nodes[0])


FALLS: dict[str, Callable[[Sequence[Node]], None]] = {
    "a shard": shard_falls,
    "a node": node_falls,
    "a node that returns": node_returns,
    "the head": head_returns,
}
FAULTS = [
    ("a shard", 1),
    ("a shard", 2),
    ("a node", 1),
    ("a node", 2),
    ("a node that returns", 1),
    ("the head", 1),
    ("the head", 2),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    stories = ROOT.parent / "shared" / "data" / "fairytaleqa" / "val"
    parser.add_argument("--stories", type=Path, default=stories)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--faults", action="store_true", help="only these, instead of the rates")
    options = parser.parse_args()
    lines = (options.stories / "questions.jsonl").read_text("utf-8").splitlines()
    asked = [json.loads(line)["question"] for line in lines]
    questions = asked[:: max(1, len(asked) // QUESTIONS)][:QUESTIONS]
    file = Path(__file__).parent / "results" / "scale_out.json"
    results: dict[str, Any] = {"nodes": {}}
    if file.exists():
        results = json.loads(file.read_text("utf-8"))
    results["circumstances"] = circumstances((*PACKAGES, "ray"))
    if options.faults:
        results["faults"] = faults(options.stories / "stories", questions)
        file.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        print(faults_table(results))
        return
    for number in options.nodes:
        with tempfile.TemporaryDirectory() as folder, cluster(number, Path(folder)) as nodes:
            head, home = nodes[0], f"{folder}/library"
            begun = time.perf_counter()
            passages = build(head, home, options.stories / "stories", max(2, number))
            made = {"passages": passages, "built_s": time.perf_counter() - begun}
            print(
                f"{number} nodes: {passages} passages built in {made['built_s']:.0f} s", flush=True
            )
            with served(head, home, 1):
                made |= asked_at(head.address, questions)
            results["nodes"][str(number)] = made
            print(f"  {made}", flush=True)
            file.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(table(results))


def table(results: dict[str, Any]) -> str:
    """The rates for docs/scale-out.md."""
    lines = [
        "| nodes | passages built a second | ask p50 ms | p95 ms | answers a second, 8 at once |",
        "|---|---|---|---|---|",
    ]
    for nodes, made in results["nodes"].items():
        rate = made["passages"] / made["built_s"]
        line = f"| {nodes} | {rate:.1f} | {made['ask_p50_ms']:.0f} | {made['ask_p95_ms']:.0f} "
        lines.append(line + f"| {made['answers_s']:.1f} |")
    return "\n".join(lines)


def faults_table(results: dict[str, Any]) -> str:
    """What fell and returned, for docs/scale-out.md."""
    lines = [
        "| killed | whole | partial | refused | none | wrong | whole again after s | slowest s "
        "| page again after s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, made in results["faults"].items():
        numbers = " | ".join(str(number) for number in made["answers"].values())
        lines.append(
            f"| {name} | {numbers} | {made['wrong']} | {made['whole_again_s']} "
            f"| {made['slowest_s']} | {made['page_again_s']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
