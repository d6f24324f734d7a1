"""Building a library on a Ray cluster (Moritz et al., 2018): the same files as on one machine.

Ray Data reads the files that are new, splits them and embeds their texts wherever there is room, a
block at a time; the vectors wait in a folder beside the shards. Then each shard is built by a task
of its own, as any index is, its vectors taken from there. A task that fails is done again by Ray;
the library's manifest is replaced when all is done.

Every node sees the stories under the same paths, and the index under one path or URL (home.py).
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow.parquet

# Read when Ray is imported: what goes wrong is said by us, in one line.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
import ray.data

from ballet_qa.build import BuildReport, embedded_texts, new_files
from ballet_qa.corpus import Found, StoryFile, find_story_files, stories_of
from ballet_qa.encoder import DEFAULT, load_encoder
from ballet_qa.errors import LoadError, ServeError
from ballet_qa.extraction import Extractor
from ballet_qa.generation import build_lock
from ballet_qa.home import Home, ShardEntry, file_system
from ballet_qa.parts import Part, build_part, check_home, deal, join, prepared
from ballet_qa.types import Encoder, FloatArray

_NAMESPACE = "ballet_qa"
_FILES_A_BLOCK = 16
_TEXTS_A_BATCH = 256
_TRIES = 3
_LOOK_S = 5.0
# All three go on at once, even where there is one core: reading and writing wait for embedding. And
# something is left of it, for the library may be served there meanwhile.
_EMBEDDER_CPUS, _BESIDE_CPUS = 0.4, 0.2
_SHARD_CPUS = 0.75  # one at a time on a core


def build_on_cluster(
    stories: Sequence[str | Path] | str | Path,
    index_dir: str | Path,
    parts: int,
    address: str,
    *,
    encoder: str = DEFAULT,
) -> BuildReport:
    """Bring a library of so many shards in step with the stories, on the cluster at ``address``.

    Raises as `parts.build_library`, and ServeError when there is no cluster at that address.
    """
    given = [stories] if isinstance(stories, (str, Path)) else list(stories)
    # A worker has a working directory of its own.
    roots, home = [Path(root).resolve() for root in given], Home.at(index_dir)
    dealt = deal(find_story_files(roots), parts)
    check_home(home)
    with build_lock(home.folder), connected(address), home.staging() as staging:
        live = home.live()
        shards = [(home, name, part, live.get(name)) for name, part in dealt.items()]
        wanted = ray.get([_new.remote(*shard, encoder) for shard in shards])
        _embed(dict(zip(dealt, wanted, strict=True)), staging, encoder)
        built = ray.get([_build.remote(*shard, roots, encoder, staging) for shard in shards])
        return join(home, roots, live, built)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be connected to the cluster at ``address``; ``local`` begins one on this machine.

    Raises ServeError when there is none.
    """
    if ray.is_initialized():
        yield
        return
    try:
        _look(address)
        ray.init(
            address=address, namespace="ballet_qa", log_to_driver=False, logging_level=logging.ERROR
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ServeError(
            f"no Ray cluster at {address!r} ({first}); begin one with `ray start --head`, and if "
            "it wants a token, set RAY_AUTH_MODE=token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _look(address: str) -> None:
    """Raise OSError when nobody listens there: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _LOOK_S).close()


@ray.remote(max_retries=_TRIES, num_cpus=_SHARD_CPUS)
def _new(
    home: Home, name: str, part: Found, live: ShardEntry | None, encoder: str
) -> tuple[StoryFile, ...]:
    return new_files(part, prepared(home, name, live), load_encoder(encoder))


@ray.remote(max_retries=_TRIES, num_cpus=_SHARD_CPUS)
def _build(
    home: Home,
    name: str,
    part: Found,
    live: ShardEntry | None,
    roots: Sequence[Path],
    encoder: str,
    staging: str,
) -> Part:
    staged = StagedVectors(load_encoder(encoder), f"{staging}/shard={name}", home.folder)
    return build_part(home, name, part, roots, live, staged)


def _embed(wanted: Mapping[str, Sequence[StoryFile]], staging: str, encoder: str) -> None:
    """Embed what these files say, and leave the vectors in ``staging``, by shard."""
    rows = [
        # A path may be of bytes that are no text.
        {"shard": name, "id": f.id, "path": os.fsencode(f.path).hex(), "shelf_id": f.shelf_id}
        for name, files in wanted.items()
        for f in files
    ]
    if not rows:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    cpus = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
    embedders = max(1, int(cpus))
    files, path = file_system(staging)
    blocks = min(len(rows), 1 + len(rows) // _FILES_A_BLOCK)
    (
        ray.data.from_items(rows, override_num_blocks=blocks)
        .map_batches(_texts, batch_size=_FILES_A_BLOCK, num_cpus=_BESIDE_CPUS)
        .map_batches(
            _Embedder,
            fn_constructor_args=(encoder,),
            batch_size=_TEXTS_A_BATCH,
            num_cpus=_EMBEDDER_CPUS,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=embedders),
        )
        .write_parquet(
            path,
            filesystem=files,
            partition_cols=["shard"],
            ray_remote_args={"num_cpus": _BESIDE_CPUS},
        )
    )


def _texts(batch: Mapping[str, Any]) -> Iterator[dict[str, list[str]]]:
    """All that is embedded of these files, a file at a time. One that is refused says nothing."""
    with Extractor() as extractor:
        for shard, id_, path, shelf_id in zip(
            *(batch[name] for name in ("shard", "id", "path", "shelf_id")), strict=True
        ):
            file = StoryFile(str(id_), Path(os.fsdecode(bytes.fromhex(path))), str(shelf_id))
            try:
                stories = stories_of(file, extractor.extract(file.path))
            except LoadError:  # the build that follows says so
                continue
            texts = dict.fromkeys(text for story in stories for text in embedded_texts(story))
            yield {"shard": [str(shard)] * len(texts), "text": list(texts)}


class _Embedder:
    """Embeds batches of texts, on the cores that Ray gives it."""

    def __init__(self, encoder: str) -> None:
        self._encoder = load_encoder(encoder)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        texts = [str(text) for text in batch["text"]]
        vectors = self._encoder.encode_passages(texts)
        return {
            "shard": batch["shard"],
            "key": np.array([_key(text) for text in texts], dtype=object),
            "vector": np.array([row.astype("<f4").tobytes() for row in vectors], dtype=object),
        }


class StagedVectors:
    """An encoder whose vectors were made before; what is not among them it embeds itself."""

    def __init__(self, encoder: Encoder, place: str, room: Path) -> None:
        """``place``, a path or URL, has the vectors as Parquet, or nothing.

        ``room`` is a folder where they may be gathered.
        """
        self.name, self.fingerprint = encoder.name, encoder.fingerprint
        self.dimension = encoder.dimension
        self.encode_queries = encoder.encode_queries
        self._encoder = encoder
        self._rows: dict[bytes, int] = {}
        self._vectors: FloatArray = np.zeros((0, self.dimension), dtype=np.float32)
        files, path = file_system(place)
        parquet = sorted(files.glob(f"{path}/*.parquet"))
        if not parquet:
            return
        # Gathered in one file and mapped: a shard's vectors need not fit in memory.
        room.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=room) as gathered:
            for name in parquet:
                with files.open(name) as file:
                    self._gather(pyarrow.parquet.ParquetFile(file), gathered)
            gathered.flush()
            shape = (gathered.tell() // (4 * self.dimension), self.dimension)
            self._vectors = np.memmap(gathered, dtype="<f4", mode="r", shape=shape)

    def _gather(self, staged: Any, gathered: IO[bytes]) -> None:
        for batch in staged.iter_batches(columns=["key", "vector"]):
            for key, vector in zip(*(column.to_pylist() for column in batch), strict=True):
                self._rows.setdefault(key, gathered.tell() // (4 * self.dimension))
                gathered.write(vector)

    def encode_passages(self, texts: Sequence[str]) -> FloatArray:
        """As `Encoder.encode_passages`."""
        keys = [_key(text) for text in texts]
        missing = [t for t, key in zip(texts, keys, strict=True) if key not in self._rows]
        embedded = iter(self._encoder.encode_passages(missing) if missing else ())
        made = np.empty((len(texts), self.dimension), dtype=np.float32)
        for place, key in enumerate(keys):
            row = self._rows.get(key)
            made[place] = next(embedded) if row is None else self._vectors[row]
        return made


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8")).digest()[:16]
