"""Real Ray nodes in network namespaces, killed while questions are asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from conftest import ROOT, SEEDS

sys.path.insert(0, str(ROOT / "benchmarks"))

import nodes
import scale_out

pytest.importorskip("ray", reason="Ray is an extra: pip install 'ballet-qa[ray]'")


def why_not() -> str:
    """What is missing for nodes with addresses of their own; empty when nothing is."""
    missing = [tool for tool in ("ip", "redis-server", "taskset") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    mounted = ["ip", "netns", "exec", "bq-try", "mount", "--bind", "/tmp", "/tmp"]
    try:
        for words in (["ip", "netns", "add", "bq-try"], mounted):
            if subprocess.run(words, capture_output=True, check=False).returncode:
                return f"`{' '.join(words)}` is not allowed here"
    finally:
        subprocess.run(["ip", "netns", "del", "bq-try"], capture_output=True, check=False)
    return ""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[nodes.Node]]:
    """A head that only coordinates, its state in Redis, and two workers with two of each."""
    reason = why_not()
    if reason:
        pytest.skip(f"{reason}; these tests kill real nodes")
    room = tmp_path_factory.mktemp("nodes")
    with nodes.cluster(3, room, redis=True) as made:
        home = f"file://{room}/library"
        assert scale_out.build(made[0], home, SEEDS, 2) == 32
        with scale_out.served(made[0], home, 2):
            yield made


@pytest.mark.timeout(400)
@pytest.mark.parametrize("falls", ["the head", "a node that returns"])
def test_nothing_is_answered_wrongly_and_all_is_whole_again(
    falls: str, served: list[nodes.Node]
) -> None:
    questions = ["Who owns the café?", "Who is Camilla?", "Where did Natasha Petrova live?"]
    done = scale_out.fallen(falls, served, questions)
    assert done["wrong"] == 0, done
    assert done["answers"]["whole"] > 10, done
    assert done["whole_again_s"] < scale_out.LONGEST_S - scale_out.QUIET_S, done
    assert all("does not answer" in why or "503" not in why for why in done["reasons"]), done
