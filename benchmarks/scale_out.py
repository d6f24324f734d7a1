"""A library on one, two and three Ray nodes: how fast it is built and asked, and nodes killed.

    sudo python benchmarks/scale_out.py

Each node is a real Ray node in a network namespace of its own (iproute2), with its own address,
pinned to a core; where there are fewer cores than nodes, they share, and more nodes cannot be
faster. Needs the right to make namespaces, and ballet-qa[ray].
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import PACKAGES, circumstances

ROOT = Path(__file__).resolve().parent.parent
BALLET_QA = [sys.executable, "-m", "ballet_qa"]
RAY = str(Path(sys.executable).with_name("ray"))
BRIDGE, NET, PORT = "bq-bridge", "10.77.0", 7860
OURS = os.environ | {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    # A node that is gone is known to be gone after some ten seconds.
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
QUESTIONS = 60
CLIENTS = 8


def run(*words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, check=check, capture_output=True, text=True, env=OURS, **more)


class Node:
    """A Ray node in a network namespace."""

    def __init__(self, number: int) -> None:
        self.name, self.address = f"bq-node-{number}", f"{NET}.{10 + number}"
        self._core = str(number % (os.cpu_count() or 1))
        inside, outside = f"bq-in-{number}", f"bq-out-{number}"
        self._outside = outside
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside)
        run("ip", "link", "set", outside, "master", BRIDGE, "up")
        run("ip", "link", "set", inside, "netns", self.name)
        run("ip", "-n", self.name, "addr", "add", f"{self.address}/24", "dev", inside)
        run("ip", "-n", self.name, "link", "set", inside, "up")
        run("ip", "-n", self.name, "link", "set", "lo", "up")

    def words(self, *words: str) -> list[str]:
        """A command as it is run in the node."""
        return ["ip", "netns", "exec", self.name, "taskset", "-c", self._core, *words]

    def start(self, head: Node) -> None:
        where = ["--head", "--port=6379", "--include-dashboard=false"]
        if head is not self:
            where = [f"--address={head.address}:6379"]
        limits = ["--num-cpus=1", "--object-store-memory=150000000"]
        place = [f"--node-ip-address={self.address}", f"--temp-dir=/tmp/{self.name}"]
        run(*self.words(RAY, "start", *where, *(limits + (place if head is self else place[:1]))))

    def kill(self) -> None:
        """All its processes at once, as a power cut does."""
        for pid in run("ip", "netns", "pids", self.name).stdout.split():
            run("kill", "-9", pid, check=False)

    def remove(self) -> None:
        self.kill()
        run("ip", "link", "del", self._outside, check=False)
        run("ip", "netns", "del", self.name, check=False)


@contextmanager
def cluster(count: int) -> Iterator[list[Node]]:
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    nodes: list[Node] = []
    try:
        run("ip", "addr", "add", f"{NET}.1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        nodes += [Node(number) for number in range(count)]
        for node in nodes:
            node.start(nodes[0])
        yield nodes
    finally:
        for node in nodes:
            node.remove()
        run("ip", "link", "del", BRIDGE, check=False)


def ask(address: str, question: str) -> tuple[float, str]:
    """Seconds, and what came: whole, the silent shards, or the error."""
    body = json.dumps({"question": question}).encode()
    request = urllib.request.Request(
        f"http://{address}:{PORT}/api/ask", body, {"Content-Type": "application/json"}
    )
    begun = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=90) as said:
            answer = json.loads(said.read())
        came = "partial: " + ", ".join(answer["partial"]) if "partial" in answer else "whole"
        quotes = json.dumps([one["quote"] for one in answer["findings"]])
        return time.perf_counter() - begun, f"{came}\t{quotes}"
    except urllib.error.HTTPError as error:
        return time.perf_counter() - begun, f"{error.code}: {error.read()[:200].decode()}"
    except OSError as error:
        return time.perf_counter() - begun, f"no connection: {error}"


@contextmanager
def served(head: Node, home: Path, replicas: int) -> Iterator[None]:
    words = [*BALLET_QA, "serve", "--ray", f"{head.address}:6379", "--index", str(home)]
    words += ["--host", "0.0.0.0", "--port", str(PORT), "--replicas", str(replicas)]
    with subprocess.Popen(
        head.words(*words), env=OURS, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
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


def killed(head: Node, victim: Node, questions: Sequence[str]) -> dict[str, Any]:
    """Kill a node under load: what was answered until all is whole again, and how long that took.

    Whatever is said to be whole must be what was answered before.
    """
    before = {question: ask(head.address, question)[1] for question in questions[:12]}
    victim.kill()
    fell, whole_since, came = time.perf_counter(), None, {"whole": 0, "partial": 0, "error": 0}
    wrong = 0
    while time.perf_counter() - fell < 150:
        for question, told in before.items():
            _, now = ask(head.address, question)
            kind = now.split("\t")[0].split(":")[0]
            came[kind if kind in came else "error"] += 1
            wrong += kind == "whole" and now != told
            whole_since = (whole_since or time.perf_counter()) if kind == "whole" else None
        if whole_since is not None and time.perf_counter() - whole_since > 15:
            break
    recovered = None if whole_since is None else round(whole_since - fell, 1)
    return {"answers": came, "wrong": wrong, "whole_again_s": recovered}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    stories = ROOT.parent / "shared" / "data" / "fairytaleqa" / "val"
    parser.add_argument("--stories", type=Path, default=stories)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    lines = (options.stories / "questions.jsonl").read_text("utf-8").splitlines()
    asked = [json.loads(line)["question"] for line in lines]
    questions = asked[:: max(1, len(asked) // QUESTIONS)][:QUESTIONS]
    file = Path(__file__).parent / "results" / "scale_out.json"
    results: dict[str, Any] = {"nodes": {}}
    if file.exists():
        results = json.loads(file.read_text("utf-8"))
    results["circumstances"] = circumstances((*PACKAGES, "ray"))
    for count in options.nodes:
        with cluster(count) as nodes, tempfile.TemporaryDirectory() as folder:
            head, home = nodes[0], Path(folder, "library")
            words = [*BALLET_QA, "build", "--ray", f"{head.address}:6379", "--index", str(home)]
            words += ["--shards", str(max(2, count)), "--stories", str(options.stories / "stories")]
            begun = time.perf_counter()
            said = run(*head.words(*words)).stdout
            built = time.perf_counter() - begun
            passages = int(said.split(" passages (")[0].split("; ")[-1].replace(",", ""))
            made: dict[str, Any] = {"passages": passages, "built_s": built}
            print(f"{count} nodes: {passages} passages built in {built:.0f} s", flush=True)
            with served(head, home, 1 if count == 1 else 2):
                made |= asked_at(head.address, questions)
                if count > 1:
                    made["killed"] = killed(head, nodes[-1], questions)
            results["nodes"][str(count)] = made
            print(f"  {made}", flush=True)
            file.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(table(results))


def table(results: dict[str, Any]) -> str:
    """The results for docs/scale-out.md."""
    lines = [
        "| nodes | passages built a second | ask p50 ms | p95 ms | answers a second, 8 at once "
        "| a node killed: answered whole, partly, not at all | wrong | whole again after s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for count, made in results["nodes"].items():
        rate = made["passages"] / made["built_s"]
        line = f"| {count} | {rate:.1f} | {made['ask_p50_ms']:.0f} | {made['ask_p95_ms']:.0f} "
        line += f"| {made['answers_s']:.1f} "
        fell = made.get("killed")
        if fell is None:
            lines.append(line + "| | | |")
            continue
        numbers = ", ".join(str(number) for number in fell["answers"].values())
        lines.append(line + f"| {numbers} | {fell['wrong']} | {fell['whole_again_s']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
