"""Is an index sound, and what to do when it is not. Each check says what it found wrong.

`Index.open` verifies checksums and counts; here what they cannot tell is looked at, too: whether
offsets, texts and vectors belong together, as they would not if a wrong program had written them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ballet_qa.build import BuildReport, build_index, passage_readings
from ballet_qa.corpus import hash_of_text
from ballet_qa.encoder import load_encoder
from ballet_qa.errors import IndexMismatchError, IndexMissingError
from ballet_qa.generation import (
    build_command,
    finished_generations,
    live_generation,
    make_live,
    read_manifest,
    verify,
)
from ballet_qa.index import Index
from ballet_qa.passages import section_numbers
from ballet_qa.types import Encoder, Passage, Story

_BLOCK_ROWS = 4096
_UNIT_WITHIN = 1e-3
_SAMPLE_STORIES = 8
_SAMPLE_PASSAGES = 4
_SAME_COSINE = 0.97  # eight bits give other last digits on other processors


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and what is wrong with it, None when nothing is."""

    name: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done: the generation that was gone back to, if any, and what was built then."""

    went_back_to: str | None
    built: BuildReport | None


def examine(index_dir: str | Path, encoder: Encoder | None = None) -> Iterator[Check]:
    """The checks of an index, in order; after one that fails in its files, the rest make no sense.

    ``encoder`` defaults to the one the index names, which is loaded for the last check. Raises
    IndexMissingError when there is no index, EncoderError when its encoder cannot be loaded.
    """
    index_dir = Path(index_dir)
    try:
        read_manifest(live_generation(index_dir))
        yield Check("pointer and manifest", None)
        index = Index.open(index_dir)
        yield Check("checksums", None)
        yield Check("counts of stories, passages, sentences", None)
    except IndexMismatchError as error:
        yield Check("files", str(error))
        return
    remedy = f"; run: {build_command(index_dir)}"
    for name, look in (
        ("offsets against texts", _offsets),
        ("lengths of vectors", _lengths),
    ):
        problem = look(index)
        yield Check(name, problem and problem + remedy)
    encoder = encoder or load_encoder(index.manifest.encoder)
    problem = _sample(index, encoder)
    yield Check(f"a sample embedded again with {encoder.name}", problem and problem + remedy)


def repair(index_dir: str | Path, encoder: Encoder | None = None) -> Repair:
    """Make a damaged index whole: back to the last good generation, then in step with its stories.

    Raises IndexMissingError when there is no index, IndexMismatchError, with the remedy, when no
    generation is whole and the folders it was built from are not known or not there.
    """
    index_dir = Path(index_dir)
    if not index_dir.is_dir():
        raise IndexMissingError(f"no index in {index_dir}; run: {build_command(index_dir)}")
    went_back_to = None
    if not _live_is_whole(index_dir):
        live = next(filter(_is_whole, finished_generations(index_dir)), None)
        if live is not None:
            make_live(live)
            went_back_to = live.name
    roots = _roots(index_dir)
    if roots:
        # A whole generation may still be wrong in what checksums do not tell: take nothing over.
        rebuild = went_back_to is None
        return Repair(went_back_to, build_index(roots, index_dir, encoder=encoder, rebuild=rebuild))
    if went_back_to is None:
        raise IndexMismatchError(
            f"no generation in {index_dir} is whole, and the stories it was built from are not "
            f"there; run: {build_command(index_dir)} --stories DIR"
        )
    return Repair(went_back_to, None)


def _live_is_whole(index_dir: Path) -> bool:
    try:
        return _is_whole(live_generation(index_dir))
    except (IndexMismatchError, IndexMissingError):
        return False


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder, read_manifest(folder))
    except IndexMismatchError:
        return False
    return True


def _roots(index_dir: Path) -> list[str]:
    """The folders the index was last built from, when all of them are there."""
    for folder in finished_generations(index_dir):
        try:
            roots = read_manifest(folder).roots
        except IndexMismatchError:
            continue
        return roots if all(Path(root).exists() for root in roots) else []
    return []


def _offsets(index: Index) -> str | None:
    texts = index.texts
    for row in range(texts.story_count):
        story = texts.story(row)
        if hash_of_text(story.text) != story.sha256:
            return f"the text of {story.id} is not the one its hash was taken of"
        position = 0
        for passage_row, passage in zip(
            range(*texts.passage_rows(row)), texts.passages_of(row), strict=True
        ):
            if problem := _passage_problem(index, story, passage, passage_row, position):
                return problem
            position = passage.end
    return None


def _passage_problem(
    index: Index, story: Story, passage: Passage, row: int, position: int
) -> str | None:
    if not position <= passage.start < passage.end <= len(story.text):
        return f"{passage.id} is at {passage.start}:{passage.end}, out of order or of its story"
    if not index.texts.holds_its_words(passage, row):
        return f"{passage.id} does not hold the words its digest was taken of"
    for span in index.texts.sentences(row):
        if not passage.start <= span.start < span.end <= passage.end:
            return f"a sentence at {span.start}:{span.end} is not in its passage {passage.id}"
    return None


def _lengths(index: Index) -> str | None:
    for name, vectors in (
        ("passage", index.passage_vectors),
        ("sentence", index.sentence_vectors),
    ):
        for start in range(0, vectors.count, _BLOCK_ROWS):
            rows = vectors.block(start, min(start + _BLOCK_ROWS, vectors.count))
            lengths = np.linalg.norm(rows, axis=1)
            wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_WITHIN))
            if len(wrong):
                row = start + int(wrong[0])
                return f"the vector of {name} {row} has length {lengths[wrong[0]]:.3f}, not 1"
    return None


def _sample(index: Index, encoder: Encoder) -> str | None:
    """Whether passages spread over the collection get the vectors they have."""
    if encoder.fingerprint != index.manifest.encoder_fingerprint:
        return f"built with {index.manifest.encoder}, another model than {encoder.name} is now"
    texts = index.texts
    drawn = np.unique(np.linspace(0, texts.story_count - 1, _SAMPLE_STORIES).astype(int))
    for row in drawn.tolist() if texts.story_count else ():  # a shard may be empty
        passages = texts.passages_of(row)
        parts = section_numbers(passages, texts.sections(row))
        readings = passage_readings(passages, parts)[:_SAMPLE_PASSAGES]
        start, _ = texts.passage_rows(row)
        kept = index.passage_vectors.block(start, start + len(readings))
        cosines = np.sum(kept * encoder.encode_passages(readings), axis=1)
        wrong = np.flatnonzero(~(cosines >= _SAME_COSINE))
        if len(wrong):
            found = passages[int(wrong[0])].id
            return f"the vector of {found} is not what its words give (cosine {cosines.min():.3f})"
    return None
