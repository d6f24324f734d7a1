"""Serving a library from a Ray cluster: the same page and routes, shards, encoder and reader apart.

Each shard, the encoder and the reader is an application of Ray Serve, which starts them anew where
they fall, on another node if need be. The page, one replica because a conversation lives in it, and
the routes for programs, as many as wanted, ask them within a deadline and name, with the answer,
who was silent. A new manifest is taken up between two questions, as on one machine; when it has
other shards, once these are there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from ballet_qa.answering import Answerer
from ballet_qa.cluster_build import connected
from ballet_qa.cross_encoder import Context, CrossEncoder, Judgement
from ballet_qa.encoder import load_encoder
from ballet_qa.errors import (
    BalletQAError,
    ServeError,
    SilentError,
)
from ballet_qa.generation import Manifest
from ballet_qa.home import Home, ShardEntry
from ballet_qa.index import Index, check_encoder
from ballet_qa.library import Library
from ballet_qa.parts import SHARD
from ballet_qa.reader import StoryReader
from ballet_qa.retriever import Retriever
from ballet_qa.server import Serving, create_app, create_routes, opening_words
from ballet_qa.settings import SETTINGS
from ballet_qa.shards import (
    Call,
    ShardedIndex,
    perform,
)
from ballet_qa.terminal import say
from ballet_qa.types import Encoder, FloatArray

_log = logging.getLogger(__name__)
_ENCODER, _READER = "encoder", "reader"
_OPEN = 2  # generations of a shard: the live one, and the one before for questions under way
_AT_ONCE = 16  # questions at a shard
_BATCH_WAIT_S = 0.002
_LOOK_S = 1.0  # between two looks, at the manifest and at each replica
_LEAVE_S = 30.0  # for questions under way, until shards that are no more are let go
_CPUS = 0.01  # what Ray sets aside for a deployment: they share the cores, as threads do


def run_on_cluster(
    index_dir: str | Path,
    address: str,
    serving: Serving | None = None,
    replicas: int = 1,
    reader: str | Path | None = None,
) -> None:
    """Serve until interrupted.

    ``replicas`` is how many there are of each shard, the encoder, the reader and the routes;
    ``reader`` is a folder of weights that every node sees. Raises IndexMismatchError when there is
    no sound library, ReaderError for a folder without weights, ServeError when there is no cluster,
    or for what a cluster cannot do.
    """
    serving = serving or Serving()
    if serving.allow_add:
        raise ServeError(
            "on a cluster stories are added by `ballet-qa build --ray`; leave --allow-add out"
        )
    weights = None if reader is None else Path(reader).resolve()
    if weights is not None:
        CrossEncoder(weights)  # what is missing is said at once
    home = Home.at(index_dir)
    names = _names(home)
    with connected(address):
        # As Ctrl-C: what serves would outlive us. After Ray, which has a handler of its own.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        serve.start(http_options={"host": serving.host, "port": serving.port})
        try:
            shards = _shards(home, names, replicas)
            serve.run_many([*shards, *_askers(home, serving, replicas, weights)])
            _let_go_but(names)
            say(opening_words(serving), flush=True)
            while True:
                time.sleep(_LOOK_S)
                names = _redealt(home, names, replicas)
        except KeyboardInterrupt:
            pass
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]


def _redealt(home: Home, names: list[str], replicas: int) -> list[str]:
    """The shards there are; when the library has been dealt anew, these are served first.

    While they cannot be, those before are asked, and it is tried again.
    """
    try:
        dealt = _names(home)
        if dealt != names:
            serve.run_many(_shards(home, dealt, replicas))
            time.sleep(_LEAVE_S)
            _let_go_but(dealt)
        return dealt
    except (BalletQAError, RayError, RayServeException, RuntimeError) as error:
        _log.warning("staying with %s: %s", ", ".join(names), error)
        return names


def _shards(home: Home, names: Sequence[str], replicas: int) -> list[serve.RunTarget]:
    many = _spread(replicas)
    return [_part(ShardKeeper, name, home, name, **many) for name in names]


def _askers(
    home: Home, serving: Serving, replicas: int, reader: Path | None
) -> list[serve.RunTarget]:
    """The page and the routes, with the models they share."""
    many, ingress = _spread(replicas), serve.ingress()
    asking = {"max_ongoing_requests": SETTINGS.max_conversations}
    return [
        _part(EncoderKeeper, _ENCODER, home.encoder(), **many),
        _part(ReaderKeeper, _READER, reader, **many),
        _part(ingress(Page), "page", home, serving, route="/", **asking),
        _part(ingress(Routes), "routes", home, serving, route="/api", **many | asking),
    ]


def _spread(replicas: int) -> dict[str, Any]:
    """So many replicas, on as many nodes as there are: with one that falls, not all do."""
    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    able = sum(n["Alive"] and n["Resources"].get("CPU", 0.0) >= _CPUS for n in known)
    return {
        "num_replicas": replicas,
        "max_replicas_per_node": -(-replicas // max(1, able)),
        "max_ongoing_requests": _AT_ONCE,
    }


def _part(
    kind: type, name: str, *given: Any, route: str | None = None, **options: Any
) -> serve.RunTarget:
    made: Any = serve.deployment(
        kind,
        name=name,
        ray_actor_options={"num_cpus": _CPUS},
        health_check_period_s=_LOOK_S,
        health_check_timeout_s=SETTINGS.shard_seconds,
        **options,
    )
    return serve.RunTarget(made.bind(*given), _application(name), route)


def _application(name: str) -> str:
    return f"ballet_qa-{name}"


def _let_go_but(names: Sequence[str]) -> None:
    """Have no shards but these."""
    for name in serve.status().applications:
        shard = name.removeprefix(_application(""))
        if shard.startswith(SHARD) and shard not in names:
            serve.delete(name)


def _handle(name: str) -> DeploymentHandle[Any]:
    """How this part is asked. Raises SilentError when there is none."""
    try:
        return serve.get_app_handle(_application(name))
    except (RayError, RayServeException) as error:
        raise SilentError(f"{name} is not there; ask again in a moment") from error


class ShardKeeper:
    """Keeps one shard open."""

    def __init__(self, home: Home, name: str) -> None:
        _use_every_core()
        self._home = home
        self._held: OrderedDict[str, Index] = OrderedDict()
        self._lock = Lock()
        for entry in home.library().shards:
            if entry.name == name:
                self._index(entry)

    def manifest(self, entry: ShardEntry) -> Manifest:
        """Open this generation, and say what it holds."""
        return self._index(entry).manifest

    def do(self, entry: ShardEntry, calls: Sequence[Call]) -> list[Any]:
        """Do these calls on this generation."""
        return perform(self._index(entry), calls)

    def _index(self, entry: ShardEntry) -> Index:
        with self._lock:
            if entry.generation not in self._held:
                self._held[entry.generation] = self._home.open(entry)
            self._held.move_to_end(entry.generation)
            while len(self._held) > _OPEN:
                self._held.popitem(last=False)
            return self._held[entry.generation]


class EncoderKeeper:
    """Keeps the encoder loaded, and embeds the questions of a moment together."""

    def __init__(self, name: str) -> None:
        _use_every_core()
        self._encoder = load_encoder(name)

    def told(self) -> tuple[str, str, int]:
        """Its name, fingerprint and dimension."""
        return self._encoder.name, self._encoder.fingerprint, self._encoder.dimension

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=_BATCH_WAIT_S)
    async def encode(self, texts: list[str]) -> list[FloatArray]:
        """The vector of each question."""
        return list(await asyncio.to_thread(self._encoder.encode_queries, texts))


class ReaderKeeper:
    """Keeps the reader's network loaded."""

    def __init__(self, folder: Path | None) -> None:
        _use_every_core()
        self._network = CrossEncoder.loading(folder)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=_BATCH_WAIT_S)
    async def judge(self, asked: list[tuple[str, list[Context]]]) -> list[list[Judgement]]:
        """As `CrossEncoder.judge`, for each question with its passages."""

        def judged() -> list[list[Judgement]]:
            return [self._network.judge(question, contexts) for question, contexts in asked]

        return await asyncio.to_thread(judged)


@dataclass(frozen=True, slots=True)
class KeptShard:
    """A shard in a deployment, as `shards.Shard` has it."""

    name: str
    manifest: Manifest
    entry: ShardEntry
    handle: DeploymentHandle[Any]

    def begin(self, calls: Sequence[Call]) -> Callable[[], list[Any]]:
        """As `Shard.begin`."""
        return answered(self.name, SETTINGS.shard_seconds, self.handle.do, self.entry, calls)


class KeptEncoder:
    """The encoder in its deployment."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        told = answered("the encoder", SETTINGS.model_seconds, handle.told)()
        self.name, self.fingerprint, self.dimension = told

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        """As `Encoder.encode_queries`."""
        encode = self._handle.encode
        begun = [answered("the encoder", SETTINGS.model_seconds, encode, text) for text in texts]
        return np.stack([wait() for wait in begun])

    def encode_passages(self, texts: Sequence[str]) -> FloatArray:
        """As `Encoder.encode_passages`."""
        return self.encode_queries(texts)


class KeptReader:
    """The reader's network in its deployment."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    def judge(self, question: str, contexts: Sequence[Context]) -> list[Judgement]:
        """As `CrossEncoder.judge`."""
        asked = question, list(contexts)
        wait = answered("the reader", SETTINGS.model_seconds, self._handle.judge, asked)
        judged: list[Judgement] = wait()
        return judged


def answered(name: str, seconds: float, method: Any, *given: Any) -> Callable[[], Any]:
    """Begin a call of a deployment's method; what is given waits for the answer.

    Then it raises SilentError when there is none in time. A replica that falls is not waited for:
    another is asked, once, in the time that is left.
    """
    until = time.monotonic() + seconds
    begun = method.remote(*given)

    def wait() -> Any:
        try:
            try:
                return begun.result(timeout_s=max(0.0, until - time.monotonic()))
            except RayActorError:
                return method.remote(*given).result(timeout_s=max(0.0, until - time.monotonic()))
        except RayTaskError as error:
            if isinstance(error.cause, BalletQAError):
                raise error.cause from error
            raise
        except (TimeoutError, RayActorError, RayServeException) as error:
            raise SilentError(f"{name} does not answer; ask again in a moment") from error

    return wait


class Page:
    """The whole application, over what the deployments keep."""

    def __init__(self, home: Home, serving: Serving) -> None:
        self._home, self._serving = home, serving

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """What Ray Serve asks for once the replica is there."""
        return await asyncio.to_thread(self._app)

    def _app(self) -> FastAPI:
        return create_app(self._library(), self._serving)

    def _library(self) -> Library:
        return Library(str(self._home), opened=self._opened)

    def _opened(self, encoder: Encoder | None) -> Answerer:
        """An answerer of the live manifest."""
        encoder = encoder or KeptEncoder(_handle(_ENCODER))
        kept = [(entry, _handle(entry.name)) for entry in self._home.library().shards]
        begun = [
            answered(entry.name, SETTINGS.model_seconds, handle.manifest, entry)
            for entry, handle in kept
        ]
        index = ShardedIndex(
            [
                KeptShard(entry.name, wait(), entry, handle)
                for (entry, handle), wait in zip(kept, begun, strict=True)
            ]
        )
        check_encoder(index.manifest, encoder, self._home.folder)
        retriever = Retriever(index, encoder)
        return Answerer(retriever, StoryReader(index, encoder, KeptReader(_handle(_READER))))


class Routes(Page):
    """The routes for programs alone: nothing lives in them, so there may be several."""

    def _app(self) -> FastAPI:
        return create_routes(self._library(), self._serving)


def _use_every_core() -> None:
    """Ray tells a process by this how few it may use; here they are shared, as by threads."""
    os.environ.pop("OMP_NUM_THREADS", None)


def _names(home: Home) -> list[str]:
    return [entry.name for entry in home.library().shards]
