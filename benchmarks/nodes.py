"""Real Ray nodes on one machine, each in a network namespace of its own (iproute2), and a Redis.

Each has its own address, is pinned to a core, and keeps what it brings from elsewhere in a cache of
its own. Needs the right to make namespaces, and ballet-qa[ray].
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

RAY = str(Path(sys.executable).with_name("ray"))
RAYS = "/tmp/ray"
BRIDGE, NET, REDIS_PORT = "bq-bridge", "10.77.0", 6399
PASSWORD = secrets.token_hex(16)  # of the Redis
OURS = os.environ | {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    # A node that is gone is known to be gone after some ten seconds.
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


def run(*words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command; one that fails says why."""
    done = subprocess.run(words, check=False, capture_output=True, text=True, **more)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Node:
    """A Ray node in a network namespace."""

    def __init__(self, number: int, room: Path, redis: str | None = None) -> None:
        """``room`` is a folder for its files, ``redis`` where a head keeps its state.

        Such a head only coordinates: what would run on it would fall with it.
        """
        self._redis = redis is not None
        self.name, self.address = f"bq-node-{number}", f"{NET}.{10 + number}"
        self._core = str(number % (os.cpu_count() or 1))
        self.env = OURS | {"XDG_CACHE_HOME": str(room / self.name / "cache")}
        # Ray's own files: a node that shared them would lose its sockets with another's.
        self._rays = room / self.name / "ray"
        if redis is not None:
            self.env |= {"RAY_REDIS_ADDRESS": redis, "RAY_external_storage_namespace": "ballet_qa"}
        inside, outside = f"bq-in-{number}", f"bq-out-{number}"
        self._outside = outside
        self.remove()  # what a run that was killed has left
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside)
        run("ip", "link", "set", outside, "master", BRIDGE, "up")
        run("ip", "link", "set", inside, "netns", self.name)
        run("ip", "-n", self.name, "addr", "add", f"{self.address}/24", "dev", inside)
        run("ip", "-n", self.name, "link", "set", inside, "up")
        run("ip", "-n", self.name, "link", "set", "lo", "up")

    def words(self, *words: str) -> list[str]:
        """A command as it is run in the node."""
        mounted = ["sh", "-c", f'mount --bind "$0" {RAYS} && exec "$@"', str(self._rays)]
        return ["ip", "netns", "exec", self.name, *mounted, "taskset", "-c", self._core, *words]

    def start(self, head: Node) -> None:
        """Start Ray here, as the head or on it."""
        where = ["--head", "--port=6379", "--include-dashboard=false"]
        if self._redis:
            where.append(f"--redis-password={PASSWORD}")
        if head is not self:
            where = [f"--address={head.address}:6379"]
        # A machine that takes the place of another has nothing of it.
        shutil.rmtree(self._rays, ignore_errors=True)
        self._rays.mkdir(parents=True)
        limits = [f"--num-cpus={0 if self._redis else 1}", "--object-store-memory=150000000"]
        words = [RAY, "start", *where, *limits, f"--node-ip-address={self.address}"]
        run(*self.words(*words), env=self.env)

    def processes(self) -> list[tuple[str, str]]:
        """Its processes, as (id, command)."""
        pids = run("ip", "netns", "pids", self.name).stdout.split()
        told = run("ps", "-o", "pid=,args=", "-p", ",".join(pids), check=False).stdout
        return [
            (pid, name) for pid, _, name in (w.strip().partition(" ") for w in told.splitlines())
        ]

    def kill(self) -> None:
        """All its processes at once, as a power cut does."""
        for pid in run("ip", "netns", "pids", self.name, check=False).stdout.split():
            run("kill", "-9", pid, check=False)

    def remove(self) -> None:
        """Leave nothing of it."""
        self.kill()
        run("ip", "link", "del", self._outside, check=False)
        run("ip", "netns", "del", self.name, check=False)


@contextmanager
def cluster(count: int, room: Path, *, redis: bool = False) -> Iterator[list[Node]]:
    """So many nodes, the head first; with ``redis`` it only coordinates, and its state stays."""
    Path(RAYS).mkdir(exist_ok=True)
    run("ip", "link", "del", BRIDGE, check=False)
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    nodes: list[Node] = []
    try:
        run("ip", "addr", "add", f"{NET}.1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        with _redis(room) if redis else nullcontext() as kept:
            for number in range(count):
                nodes.append(Node(number, room, kept if number == 0 else None))
            for node in nodes:
                node.start(nodes[0])
            yield nodes
    finally:
        for node in nodes:
            node.remove()
        run("ip", "link", "del", BRIDGE, check=False)


@contextmanager
def _redis(room: Path) -> Iterator[str]:
    """A Redis on the bridge, on no node."""
    words = ["redis-server", "--port", str(REDIS_PORT), "--bind", f"{NET}.1", "--dir", str(room)]
    words += ["--requirepass", PASSWORD, "--appendonly", "yes"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
        try:
            ping = ["redis-cli", "-h", f"{NET}.1", "-p", str(REDIS_PORT), "-a", PASSWORD, "ping"]
            until = time.monotonic() + 10
            while "PONG" not in run(*ping, check=False).stdout and time.monotonic() < until:
                time.sleep(0.1)
            yield f"{NET}.1:{REDIS_PORT}"
        finally:
            server.terminate()
