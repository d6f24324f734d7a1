"""The only pipeline that writes an index: what changed, embed that, write a generation, swap."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ballet_qa.corpus import Guessed, Refused, StoryFile, find_story_files, read_story
from ballet_qa.encoder import SentenceEncoder
from ballet_qa.errors import IndexMismatchError, IndexMissingError, LoadError, StoriesError
from ballet_qa.generation import (
    FORMAT_VERSION,
    Manifest,
    build_lock,
    checksums,
    new_generation,
    publish,
    splitting_settings,
)
from ballet_qa.index import PASSAGE_VECTORS, SENTENCE_VECTORS, TERMS, TEXTS, Index
from ballet_qa.names import name_counts, title_names
from ballet_qa.passages import sentence_spans, split_passages, word_count
from ballet_qa.settings import SETTINGS
from ballet_qa.terms import TermsWriter
from ballet_qa.texts import TextsWriter
from ballet_qa.types import Encoder, FloatArray, Passage, Span, Story
from ballet_qa.vectors import VectorsWriter


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build is: passages done of those known so far, and the story in hand."""

    stories_done: int
    stories: int
    passages_done: int
    story_id: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build found and did. The id lists are sorted; ``generation`` is None on a dry run."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    refused: tuple[Refused, ...]
    guessed: tuple[Guessed, ...]
    stories: int
    passages: int
    sentences: int
    embedded: int
    generation: str | None


@dataclass(frozen=True, slots=True)
class _Vectors:
    """A story's vectors: a row a passage, and a row a sentence."""

    passages: FloatArray
    sentences: FloatArray


def build_index(
    stories: Sequence[str | Path] | str | Path = SETTINGS.stories,
    index_dir: str | Path = SETTINGS.index,
    *,
    encoder: Encoder | None = None,
    rebuild: bool = False,
    dry_run: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> BuildReport:
    """Bring the index in step with the story files below ``stories``.

    Unchanged stories keep their vectors; ``rebuild`` takes nothing over. A file that cannot be read
    is refused and named in the report, the others are indexed. Raises StoriesError when nothing
    can be indexed (an index already there stays as it is), IndexBusyError when another process is
    building, EncoderError when the encoder cannot be loaded.
    """
    roots = [stories] if isinstance(stories, (str, Path)) else list(stories)
    index_dir = Path(index_dir)
    files = find_story_files(roots)
    refused: list[Refused] = []
    guessed: list[Guessed] = []
    if dry_run:
        before = {} if rebuild else _known(_previous(index_dir, None))
        now = {story.id: story.sha256 for story in _stories(files, refused, guessed)}
        return _report(before, now, refused, guessed)

    encoder = encoder or SentenceEncoder()
    with build_lock(index_dir):
        previous = None if rebuild else _previous(index_dir, encoder)
        before = _known(previous)
        part = new_generation(index_dir)
        try:
            writer = _GenerationWriter(part, encoder)
            now = {}
            for number, story in enumerate(_stories(files, refused, guessed), start=1):
                kept = None
                if previous is not None and before.get(story.id) == story.sha256:
                    kept = _vectors_of(previous, story.id)
                writer.add(story, kept)
                now[story.id] = story.sha256
                if progress is not None:
                    progress(Progress(number, len(files), writer.texts.passages, story.id))
            if not now:
                reasons = "; ".join(f"{file.path}: {file.reason}" for file in refused)
                raise StoriesError(f"every file was refused, nothing to index: {reasons}")
            manifest = writer.close()
            generation = publish(part, manifest)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return _report(before, now, refused, guessed, manifest, writer.embedded, generation.name)


class _GenerationWriter:
    """Writes stories into the folder of an unpublished generation."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self._folder = folder
        self._encoder = encoder
        self.texts = TextsWriter(folder / TEXTS)
        self._terms = TermsWriter(folder / TERMS)
        self._passages = VectorsWriter(encoder.dimension)
        self._sentences = VectorsWriter(encoder.dimension)
        self.embedded = 0

    def add(self, story: Story, kept: _Vectors | None) -> None:
        """Add a story, with the vectors it had before, or new ones."""
        passages = split_passages(story.id, story.text)
        sentences = [sentence_spans(story.text, p.start, p.end) for p in passages]
        vectors = kept or self._embed(story, passages, sentences)
        names = title_names(story.title) | name_counts(story.text)
        self.texts.add_story(story, passages, sentences, names)
        self._terms.add_story(
            self.texts.stories - 1, story.title, story.text, [p.text for p in passages]
        )
        self._passages.add(vectors.passages)
        self._sentences.add(vectors.sentences)

    def close(self) -> Manifest:
        """Finish every file and describe the generation."""
        self.texts.close()
        self._terms.close()
        self._passages.save(self._folder / PASSAGE_VECTORS)
        self._sentences.save(self._folder / SENTENCE_VECTORS)
        return Manifest(
            format_version=FORMAT_VERSION,
            built=datetime.now(UTC).isoformat(timespec="seconds"),
            encoder=self._encoder.name,
            encoder_fingerprint=self._encoder.fingerprint,
            dimension=self._encoder.dimension,
            settings=splitting_settings(),
            stories=self.texts.stories,
            passages=self.texts.passages,
            sentences=self.texts.sentences,
            files=checksums(self._folder),
        )

    def _embed(
        self, story: Story, passages: Sequence[Passage], sentences: Sequence[Sequence[Span]]
    ) -> _Vectors:
        self.embedded += len(passages)
        spans = [span for row in sentences for span in row]
        # Each distinct sentence once: dialogue repeats itself, and a passage is often one sentence.
        texts = [passage_reading(passages, position) for position in range(len(passages))]
        texts += [story.text[span.start : span.end] for span in spans]
        unique = list(dict.fromkeys(texts))
        rows = self._encoder.encode_passages(unique)
        at = {text: row for row, text in enumerate(unique)}
        every = rows[np.array([at[text] for text in texts], dtype=np.int64)]
        return _Vectors(every[: len(passages)], every[len(passages) :])


def passage_reading(passages: Sequence[Passage], position: int) -> str:
    """The words a passage is embedded by: a very short one is read with its neighbours."""
    passage = passages[position]
    if word_count(passage.text) >= SETTINGS.lone_passage_words:
        return passage.text
    around = passages[max(0, position - 1) : position + 2]
    return "\n".join(p.text for p in around)


def _stories(
    files: Sequence[StoryFile], refused: list[Refused], guessed: list[Guessed]
) -> Iterator[Story]:
    for file in files:
        try:
            story, guess = read_story(file)
        except LoadError as error:
            refused.append(Refused(str(file.path), str(error)))
            continue
        if guess is not None:
            guessed.append(Guessed(str(file.path), guess))
        yield story


def _previous(index_dir: Path, encoder: Encoder | None) -> Index | None:
    """The live index, if its vectors can be taken over."""
    try:
        index = Index.open(index_dir)
    except (IndexMissingError, IndexMismatchError):
        return None
    same_encoder = encoder is None or encoder.fingerprint == index.manifest.encoder_fingerprint
    return index if same_encoder and index.manifest.settings == splitting_settings() else None


def _known(index: Index | None) -> dict[str, str]:
    return {} if index is None else {s.id: s.sha256 for s in index.texts.catalogue()}


def _vectors_of(index: Index, story_id: str) -> _Vectors:
    (story_row,) = index.story_rows([story_id])
    start, end = index.texts.passage_rows(story_row)
    first, last = index.texts.sentence_rows(start)[0], index.texts.sentence_rows(end - 1)[1]
    return _Vectors(
        index.passage_vectors.block(start, end), index.sentence_vectors.block(first, last)
    )


def _report(
    before: dict[str, str],
    now: dict[str, str],
    refused: Sequence[Refused],
    guessed: Sequence[Guessed],
    manifest: Manifest | None = None,
    embedded: int = 0,
    generation: str | None = None,
) -> BuildReport:
    return BuildReport(
        added=tuple(sorted(now.keys() - before.keys())),
        changed=tuple(sorted(i for i in now.keys() & before.keys() if now[i] != before[i])),
        removed=tuple(sorted(before.keys() - now.keys())),
        unchanged=tuple(sorted(i for i in now.keys() & before.keys() if now[i] == before[i])),
        refused=tuple(refused),
        guessed=tuple(guessed),
        stories=len(now),
        passages=manifest.passages if manifest else 0,
        sentences=manifest.sentences if manifest else 0,
        embedded=embedded,
        generation=generation,
    )
