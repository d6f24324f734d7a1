"""A real Ray cluster on this machine: built on it, asked over it, a part of it killed."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from ballet_qa.answering import Answerer
from ballet_qa.render import answer_json
from conftest import SEEDS, run_apart

pytest.importorskip("ray", reason="Ray is an extra: pip install 'ballet-qa[ray]'")

BALLET_QA = [sys.executable, "-m", "ballet_qa"]
RAY = [str(Path(sys.executable).with_name("ray"))]
OURS = os.environ | {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is brought from a URL goes to a folder of the tests."""
    OURS["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of one node: its address, and the port of its page."""

    address: str
    port: int
    home: str

    def get(self, path: str, body: object = None) -> Any:
        """What the page's server says."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as said:
            return json.loads(said.read())

    def build(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Build on the cluster."""
        return subprocess.run(
            [*BALLET_QA, "build", "--ray", self.address, "--index", self.home, *more],
            capture_output=True,
            text=True,
            check=False,
            env=OURS,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "stories"
    folder.mkdir()
    for file in SEEDS.glob("*.txt"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module")
def cluster(stories: Path) -> Iterator[Cluster]:
    """A cluster of one core, with the seeds in two shards, kept at a URL, served."""
    port, page = free_port(), free_port()
    subprocess.run(
        [
            *(*RAY, "start", "--head", f"--port={port}", "--num-cpus=1"),
            *("--include-dashboard=false", "--node-ip-address=127.0.0.1"),
            "--object-store-memory=200000000",
        ],
        check=True,
        capture_output=True,
        env=OURS,
    )
    made = Cluster(f"127.0.0.1:{port}", page, f"file://{stories.parent}/library")
    try:
        done = made.build("--stories", str(stories), "--shards", "2")
        assert done.returncode == 0, done.stderr
        assert "4 stories: 4 added" in done.stdout
        assert "(32 embedded)" in done.stdout
        words = ["serve", "--ray", made.address, "--index", made.home, "--port", str(page), "--mcp"]
        with subprocess.Popen(
            [*BALLET_QA, *words], stdout=subprocess.PIPE, text=True, env=OURS
        ) as serving:
            assert serving.stdout is not None
            assert "is open at" in serving.stdout.readline()
            yield made
            serving.terminate()
    finally:
        subprocess.run([*RAY, "stop", "--force"], capture_output=True, check=False)


def shard_keepers() -> list[psutil.Process]:
    """The processes that keep shards."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(
            "ServeReplica" in word and "shard-" in word for word in process.info["cmdline"] or ()
        )
    ]


def without_scores(answer: Any) -> Any:
    """An answer's form but for what may differ in the sixth place."""
    hits = [{**hit, "score": None} for hit in answer["hits"]]
    found = [{**one, "confidence": None} for one in answer["findings"]]
    return {**answer, "hits": hits, "findings": found}


@pytest.mark.parametrize(
    "question", ["Who owns the café?", "Who is Camilla?", "Where did Natasha Petrova live?"]
)
def test_the_cluster_answers_as_one_machine(
    question: str, cluster: Cluster, answerer: Answerer
) -> None:
    said = cluster.get("/api/ask", {"question": question})
    here = json.loads(json.dumps(answer_json(answerer.answer(question))))
    assert without_scores({k: v for k, v in said.items() if v is not None}) == without_scores(
        {k: v for k, v in here.items() if v is not None}
    )
    assert [hit["score"] for hit in said["hits"]] == pytest.approx(
        [hit["score"] for hit in here["hits"]], abs=1e-5
    )
    assert cluster.get("/health")["stories"] == 4


def test_the_page_is_served(cluster: Cluster) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.port}/", timeout=60) as page:
        assert b"ballet_qa" in page.read()


def test_agents_are_served(cluster: Cluster) -> None:
    from mcp.client import Client

    async def asked() -> Any:
        async with Client(f"http://127.0.0.1:{cluster.port}/mcp") as client:
            return await client.call_tool("ask", {"question": "Who owns the café?"})

    said = run_apart(asyncio.wait_for(asked(), 60))
    assert "Colette" in str(said.structured_content)


def test_a_killed_shard_is_named_or_replaced_and_comes_back(cluster: Cluster) -> None:
    """Nothing is ever left out in silence: each answer is whole, or names who was silent."""
    question = {"question": "Who owns the café?"}
    whole = cluster.get("/api/ask", question)
    keepers = shard_keepers()
    assert len(keepers) == 2
    for keeper in keepers:
        keeper.kill()
    until, named, recovered = time.monotonic() + 120, 0, False
    while not recovered and time.monotonic() < until:
        try:
            said = cluster.get("/api/ask", question)
        except urllib.error.HTTPError as error:
            with error:
                why = error.read().decode()
            if error.code != 503 or "does not answer" not in why:
                pytest.fail(f"{error.code}: {why}")
            named += 1
            continue
        if "partial" in said:
            named += 1
            assert all(name.startswith("shard-") for name in said["partial"])
        else:
            assert without_scores(said) == without_scores(whole)
            recovered = True
    assert recovered


def test_a_new_manifest_is_taken_up_while_questions_are_asked(
    cluster: Cluster, stories: Path
) -> None:
    (stories / "late.txt").write_text(
        "Odette Okafor was a lamplighter.\n\nShe danced Giselle in Lagos.\n", "utf-8"
    )
    question = {"question": "What did Odette Okafor dance?"}
    assert cluster.get("/api/ask", question)["reason"] == "unknown_name"
    with subprocess.Popen(
        [
            *(*BALLET_QA, "build", "--ray", cluster.address),
            *("--index", cluster.home, "--stories", str(stories)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=OURS,
    ) as building:
        statuses = set()
        while building.poll() is None:
            statuses.add(cluster.get("/api/ask", question)["status"])
        assert building.stdout is not None
        assert "5 stories: 1 added" in building.stdout.read()
    assert statuses <= {"not_found", "answered"}
    said = cluster.get("/api/ask", question)
    assert [one["quote"] for one in said["findings"]] == ["She danced Giselle in Lagos."]


def test_other_shards_are_taken_up_while_questions_are_asked(cluster: Cluster) -> None:
    """The page and the routes stay; the shards before answer until the new ones are there."""
    question = {"question": "Who owns the café?"}
    whole = cluster.get("/api/ask", question)
    before = {keeper.pid for keeper in shard_keepers()}
    assert len(before) == 2
    done = cluster.build("--stories", str(SEEDS), "--shards", "3")
    assert done.returncode == 0, done.stderr
    until = time.monotonic() + 150
    while before & {keeper.pid for keeper in shard_keepers()} and time.monotonic() < until:
        assert without_scores(cluster.get("/api/ask", question)) == without_scores(whole)
    assert len(shard_keepers()) == 3
    assert not before & {keeper.pid for keeper in shard_keepers()}
    assert without_scores(cluster.get("/api/ask", question)) == without_scores(whole)


def test_a_library_in_a_folder_that_every_node_sees(
    cluster: Cluster, tmp_path: Path, answerer: Answerer
) -> None:
    folder = replace(cluster, home=str(tmp_path / "library"))
    for embedded in (32, 0):
        done = folder.build("--stories", str(SEEDS), "--shards", "3")
        assert f"({embedded} embedded)" in done.stdout, done.stderr
    question = "Who owns the café?"
    said = Answerer.load(folder.home, answerer.retriever.encoder).answer(question)
    assert said.findings == answerer.answer(question).findings


def test_no_cluster_is_one_line_and_a_remedy(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(*BALLET_QA, "build", "--ray", f"127.0.0.1:{free_port()}", "--shards", "2"),
            *("--stories", str(SEEDS), "--index", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=OURS,
    )
    assert done.returncode == 3
    assert "no Ray cluster at" in done.stderr
    assert "ray start --head" in done.stderr
