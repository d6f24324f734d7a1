"""The only pipeline that writes an index: what changed, embed that, write a generation, swap.

Files are known by the hash of their bytes, stories by that of their text: an unchanged file is not
even read anew, a renamed story keeps its vectors, and in a changed one only new words are embedded.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ballet_qa.corpus import Found, Guessed, Noted, Refused, StoryFile, find_story_files, stories_of
from ballet_qa.encoder import load_encoder
from ballet_qa.errors import (
    IndexMismatchError,
    IndexMissingError,
    LoadError,
    StorageError,
    StoriesError,
)
from ballet_qa.extraction import Extractor, read_regular
from ballet_qa.generation import (
    FORMAT_VERSION,
    Manifest,
    build_lock,
    checksums,
    clear_remains,
    new_generation,
    publish,
    splitting_settings,
)
from ballet_qa.index import PASSAGES, SENTENCES, TERMS, Index
from ballet_qa.loaders import LOADERS_VERSION
from ballet_qa.names import name_counts, title_names
from ballet_qa.passages import section_numbers, sentence_spans, split_passages, word_count
from ballet_qa.settings import SETTINGS
from ballet_qa.terms import TermsWriter
from ballet_qa.texts import FileEntry, TextsWriter
from ballet_qa.types import Encoder, FloatArray, Passage, Span, Story, VectorKind
from ballet_qa.vectors import VectorsWriter

_CANNOT_WRITE = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EEXIST,
    )
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build is: files and passages done of those known so far, and the file in hand."""

    files_done: int
    files: int
    passages_done: int
    path: str


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What a build finds before it reads anything: file ids that are new, changed, gone, the same.

    A file that was refused last time is new again.
    """

    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    unchanged: tuple[str, ...]

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.new or self.changed or self.gone)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build found and did. The id lists are sorted; ``renamed`` has pairs (old, new).

    ``generation`` is the live one's id, None on a dry run; ``left`` is the process whose unfinished
    build was cleared away, if there was one.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    refused: tuple[Refused, ...]
    guessed: tuple[Guessed, ...]
    noted: tuple[Noted, ...]
    ignored: dict[str, int]
    stories: int
    passages: int
    sentences: int
    embedded: int
    generation: str | None
    left: str | None = None

    @property
    def changes(self) -> bool:
        """Whether the index holds anything else than before."""
        return bool(self.added or self.changed or self.renamed or self.removed)


@dataclass(frozen=True, slots=True)
class _Split:
    """A story in passages and sentences, and the words that each of both is embedded by."""

    passages: list[Passage]
    sentences: list[list[Span]]
    readings: list[str]
    words: list[str]


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the index keeps of a story beside its text."""

    passages: list[Passage]
    sentences: list[list[Span]]
    names: dict[str, tuple[str, int]]
    passage_vectors: FloatArray
    sentence_vectors: FloatArray


@dataclass(slots=True)
class _Seen:
    """What came of the files so far. Ids of stories, and their titles and texts' hashes."""

    refused: list[Refused] = field(default_factory=list)
    guessed: list[Guessed] = field(default_factory=list)
    noted: list[Noted] = field(default_factory=list)
    stories: dict[str, tuple[str, str]] = field(default_factory=dict)

    def say(self, file: FileEntry) -> None:
        """Take down what is to be reported of a file."""
        if file.guess is not None:
            self.guessed.append(Guessed(file.path, file.guess))
        self.noted += [Noted(file.path, note) for note in file.notes]


@dataclass(frozen=True, slots=True)
class _Survey:
    """What a build knows before it reads: the files there are, and what the live index has of them.

    ``refused`` could not even be opened, ``hashes`` (sha256 of the bytes) has all others by id,
    ``entries`` the files and ``before`` the stories of the live index.
    """

    found: Found
    refused: tuple[Refused, ...]
    hashes: dict[str, str]
    previous: Index | None
    entries: dict[str, FileEntry]
    before: dict[str, tuple[str, str]]
    plan: BuildPlan

    @property
    def only_adds(self) -> bool:
        """Whether all that the live index holds stays as it is, and where it is."""
        places = {file.id: file.source for file in self.found.files}
        return not (self.plan.changed or self.plan.gone) and all(
            places[entry.id] == entry.path for entry in self.entries.values()
        )

    def begun(self) -> _Seen:
        """What has come of the files before any is read."""
        return _Seen(refused=list(self.refused))


def build_index(
    stories: Sequence[str | Path] | str | Path = SETTINGS.stories,
    index_dir: str | Path = SETTINGS.index,
    *,
    encoder: Encoder | None = None,
    rebuild: bool = False,
    dry_run: bool = False,
    vectors: VectorKind | None = None,
    progress: Callable[[Progress], None] | None = None,
    planned: Callable[[BuildPlan], None] | None = None,
) -> BuildReport:
    """Bring the index in step with the story files below ``stories``.

    Unchanged stories keep their vectors, and nothing is written when nothing changed; ``rebuild``
    takes nothing over. ``vectors`` says how they are searched, instead of the rule for their number
    (`vectors.kind_for`). A file that cannot be read is refused and named in the report, the others
    are indexed. Raises StoriesError when nothing can be indexed (an index already there stays as
    it is), IndexBusyError when another process is building, StorageError when the index cannot be
    written, EncoderError when the encoder cannot be loaded.
    """
    roots = [stories] if isinstance(stories, (str, Path)) else list(stories)
    index_dir = Path(index_dir)
    found = find_story_files(roots)
    if dry_run:
        survey = _survey(found, None if rebuild else _previous(index_dir, None), planned)
        seen = survey.begun()
        with Extractor() as extractor:
            _add_files(None, survey, extractor, seen, None)
        return _report(survey, seen)
    return build_found(
        found,
        roots,
        index_dir,
        encoder=encoder,
        rebuild=rebuild,
        vectors=vectors,
        progress=progress,
        planned=planned,
    )


def build_found(
    found: Found,
    roots: Sequence[str | Path],
    index_dir: Path,
    *,
    encoder: Encoder | None = None,
    rebuild: bool = False,
    vectors: VectorKind | None = None,
    progress: Callable[[Progress], None] | None = None,
    planned: Callable[[BuildPlan], None] | None = None,
    shard_of: str | None = None,
) -> BuildReport:
    """As `build_index`, of files that were found below ``roots`` already.

    ``shard_of`` is given for a shard of a library, which may be empty: the id of the generation
    that the library's manifest names, which is kept, or an empty string.
    """
    with _writing(index_dir), build_lock(index_dir) as left, Extractor() as extractor:
        clear_remains(index_dir)
        encoder = encoder or load_encoder()
        survey = _survey(found, None if rebuild else _previous(index_dir, encoder), planned)
        seen = survey.begun()
        previous = survey.previous
        if previous is not None and not _worth_writing(survey, extractor, seen):
            _say_all(survey, seen)
            return _report(survey, seen, previous.manifest, 0, previous.folder.name, left)
        part = new_generation(index_dir)
        try:
            writer = _GenerationWriter(part, encoder, survey)
            try:
                _add_files(writer, survey, extractor, seen, progress)
                if shard_of is None:
                    check_any(len(seen.stories), seen.refused)
            except BaseException:
                writer.abandon()
                raise
            manifest = writer.close(roots, vectors)
            generation = publish(part, manifest, shard_of)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return _report(survey, seen, manifest, writer.embedded, generation.name, left)


def check_any(stories: int, refused: Sequence[Refused]) -> None:
    """Raise StoriesError when nothing is left to index."""
    if not stories:
        reasons = "; ".join(f"{file.path}: {file.reason}" for file in refused)
        raise StoriesError(f"every file was refused, nothing to index: {reasons}")


def new_files(found: Found, index_dir: Path, encoder: Encoder) -> tuple[StoryFile, ...]:
    """Those of these files that a build of ``index_dir`` would read."""
    plan = _survey(found, _previous(index_dir, encoder), None).plan
    wanted = {*plan.new, *plan.changed}
    return tuple(file for file in found.files if file.id in wanted)


def embedded_texts(story: Story) -> list[str]:
    """All that is embedded of a story, each text once."""
    split = _split(story)
    return list(dict.fromkeys([*split.readings, *split.words]))


def _say_all(survey: _Survey, seen: _Seen) -> None:
    """What there is to say of an index that is kept as it is."""
    for entry in survey.entries.values():
        seen.say(entry)
    seen.stories.update(survey.before)


def _worth_writing(survey: _Survey, extractor: Extractor, seen: _Seen) -> bool:
    """Whether there is anything to do but to refuse again what was refused before."""
    plan = survey.plan
    if plan.changed or plan.gone:
        return True
    new, refused = set(plan.new), []
    for file in (file for file in survey.found.files if file.id in new):
        try:
            extractor.extract(file.path)
        except LoadError as error:
            refused.append(Refused(file.source, str(error)))
        else:
            return True
    seen.refused += refused
    return False


@contextmanager
def _writing(index_dir: Path) -> Iterator[None]:
    """Say what stood in the way of writing, and that nothing is lost."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, OSError) and error.errno not in _CANNOT_WRITE:
            raise
        raise StorageError(
            f"{index_dir} cannot be written ({error}); make room or name another --index; "
            "an index that was there is as it was"
        ) from error


def _survey(
    found: Found, previous: Index | None, planned: Callable[[BuildPlan], None] | None
) -> _Survey:
    """Look at every file's bytes, and say by ``planned`` what is to be done."""
    hashes: dict[str, str] = {}
    refused = list(found.refused)
    for file in found.files:
        try:
            hashes[file.id] = hashlib.sha256(read_regular(file.path)).hexdigest()
        except LoadError as error:
            refused.append(Refused(file.source, str(error)))
    entries = {} if previous is None else previous.texts.files()
    same = {i for i, entry in entries.items() if i in hashes and _is_same(entry, hashes[i])}
    plan = BuildPlan(
        new=tuple(i for i in hashes if i not in entries),
        changed=tuple(i for i in hashes if i in entries and i not in same),
        gone=tuple(sorted(entries.keys() - hashes.keys())),
        unchanged=tuple(i for i in hashes if i in same),
    )
    if planned is not None:
        planned(plan)
    return _Survey(found, tuple(refused), hashes, previous, entries, _known(previous), plan)


def _is_same(entry: FileEntry, sha256: str) -> bool:
    return (entry.sha256, entry.loaders) == (sha256, LOADERS_VERSION)


def _add_files(
    writer: _GenerationWriter | None,
    survey: _Survey,
    extractor: Extractor,
    seen: _Seen,
    progress: Callable[[Progress], None] | None,
) -> None:
    files = survey.found.files
    only_adds = writer is not None and writer.goes_on
    if only_adds:
        _say_all(survey, seen)
    for number, file in enumerate(files, start=1):
        if file.id in survey.hashes and not (only_adds and file.id in survey.entries):
            _add_file(writer, survey, extractor, file, seen)
        if progress is not None:
            done = 0 if writer is None else writer.texts.passages
            progress(Progress(number, len(files), done, file.source))


def _add_file(
    writer: _GenerationWriter | None,
    survey: _Survey,
    extractor: Extractor,
    file: StoryFile,
    seen: _Seen,
) -> None:
    """Add a file's stories, taken over when it is unchanged. Without a writer, only look."""
    previous, entry = survey.previous, survey.entries.get(file.id)
    if previous is not None and entry is not None and _is_same(entry, survey.hashes[file.id]):
        shelf = replace(entry, path=file.source)
        rows = previous.texts.stories_of_file(file.id)
        told = [replace(previous.texts.story(row), source=file.source) for row in rows]
    else:
        try:
            extracted = extractor.extract(file.path)
        except LoadError as error:
            seen.refused.append(Refused(file.source, str(error)))
            return
        told = stories_of(file, extracted)
        shelf = FileEntry(
            file.id,
            file.source,
            extracted.sha256,
            LOADERS_VERSION,
            extracted.guess,
            extracted.shelf.notes,
        )
    twice = next((story.id for story in told if story.id in seen.stories), None)
    if twice is not None:
        reason = f"another file has a story with the id {twice!r} already; rename one of them"
        seen.refused.append(Refused(file.source, reason))
        return
    seen.say(shelf)
    if writer is not None:
        writer.texts.add_file(shelf)
    for story in told:
        seen.stories[story.id] = (story.sha256, story.title)
        if writer is not None:
            writer.add(story)


class _GenerationWriter:
    """Writes stories into the folder of an unpublished generation."""

    def __init__(self, folder: Path, encoder: Encoder, survey: _Survey) -> None:
        self._folder = folder
        self._encoder = encoder
        self._previous = survey.previous
        # Where stories only come, this generation begins as the one before.
        base = survey.previous.folder if survey.previous and survey.only_adds else None
        self._base = base
        self.goes_on = base is not None
        self.texts = TextsWriter(folder, base)
        self._terms = TermsWriter(folder / TERMS, base and base / TERMS)
        self._passages, self._sentences = (
            VectorsWriter(folder, name, encoder.dimension, base) for name in (PASSAGES, SENTENCES)
        )
        self.embedded = 0

    def add(self, story: Story) -> None:
        """Add a story, with the vectors its words had before, and new ones for new words."""
        rows = self._rows(story)
        self.texts.add_story(story, rows.passages, rows.sentences, rows.names)
        self._terms.add_story(
            self.texts.stories - 1,
            story.title,
            story.text,
            [passage.text for passage in rows.passages],
            section_numbers(rows.passages, story.sections),
        )
        self._passages.add(rows.passage_vectors)
        self._sentences.add(rows.sentence_vectors)

    def abandon(self) -> None:
        """Let go of every file, unfinished."""
        self.texts.abandon()
        self._terms.abandon()
        self._passages.abandon()
        self._sentences.abandon()

    def close(self, roots: Sequence[str | Path], vectors: VectorKind | None) -> Manifest:
        """Finish every file and describe the generation."""
        self.texts.close()
        self._terms.close()
        self._passages.close(vectors)
        self._sentences.close(vectors)
        return Manifest(
            format_version=FORMAT_VERSION,
            built=datetime.now(UTC).isoformat(timespec="seconds"),
            encoder=self._encoder.name,
            encoder_fingerprint=self._encoder.fingerprint,
            dimension=self._encoder.dimension,
            settings=splitting_settings(),
            roots=[str(Path(root).resolve()) for root in roots],
            stories=self.texts.stories,
            passages=self.texts.passages,
            sentences=self.texts.sentences,
            files=checksums(self._folder, self._base),
        )

    def _rows(self, story: Story) -> _Rows:
        previous, twin = self._previous, self._twin(story)
        known: dict[str, FloatArray] = {}
        if previous is not None and twin is not None:
            if replace(previous.texts.story(twin), source=story.source) == story:
                return _rows_of(previous, twin)
            known = _vectors_by_words(previous, twin)
        split = _split(story)
        self.embedded += sum(reading not in known for reading in split.readings)
        # Each distinct sentence once: dialogue repeats itself, and a passage is often one sentence.
        new = [text for text in dict.fromkeys([*split.readings, *split.words]) if text not in known]
        if new:
            known.update(zip(new, self._encoder.encode_passages(new), strict=True))
        return _Rows(
            split.passages,
            split.sentences,
            title_names(story.title) | name_counts(story.text),
            self._stacked([known[text] for text in split.readings]),
            self._stacked([known[text] for text in split.words]),
        )

    def _twin(self, story: Story) -> int | None:
        """The row that this story had before, else that of one with the same text."""
        if self._previous is None:
            return None
        texts = self._previous.texts
        row = texts.story_row(story.id)
        if row is not None:
            return row
        return next(iter(texts.stories_with_sha256(story.sha256)), None)

    def _stacked(self, rows: Sequence[FloatArray]) -> FloatArray:
        made = np.zeros((len(rows), self._encoder.dimension), dtype=np.float32)
        for place, row in enumerate(rows):
            made[place] = row
        return made


def _split(story: Story) -> _Split:
    passages = split_passages(story.id, story.text, story.sections)
    sentences = [sentence_spans(story.text, p.start, p.end) for p in passages]
    readings = passage_readings(passages, section_numbers(passages, story.sections))
    words = [story.text[span.start : span.end] for row in sentences for span in row]
    return _Split(passages, sentences, readings, words)


def passage_readings(passages: Sequence[Passage], parts: Sequence[int]) -> list[str]:
    """The words each passage is embedded by: a very short one is read with its neighbours.

    ``parts`` has the number of each passage's section; neighbours are of the same one.
    """
    readings = []
    for position, passage in enumerate(passages):
        reach = word_count(passage.text) < SETTINGS.lone_passage_words
        near = range(max(0, position - reach), min(position + reach + 1, len(passages)))
        readings.append("\n".join(passages[p].text for p in near if parts[p] == parts[position]))
    return readings


def _previous(index_dir: Path, encoder: Encoder | None) -> Index | None:
    """The live index, if its vectors can be taken over."""
    try:
        index = Index.open(index_dir)
    except (IndexMissingError, IndexMismatchError):
        return None
    same_encoder = encoder is None or encoder.fingerprint == index.manifest.encoder_fingerprint
    return index if same_encoder and index.manifest.settings == splitting_settings() else None


def _known(index: Index | None) -> dict[str, tuple[str, str]]:
    if index is None:
        return {}
    return {entry.id: (entry.sha256, entry.title) for entry in index.texts.catalogue()}


def _rows_of(index: Index, story_row: int) -> _Rows:
    """What the index keeps of a story, as it is."""
    texts = index.texts
    start, end = texts.passage_rows(story_row)
    first = texts.sentence_rows(start)[0] if end > start else 0
    last = texts.sentence_rows(end - 1)[1] if end > start else 0
    return _Rows(
        texts.passages_of(story_row),
        [texts.sentences(row) for row in range(start, end)],
        texts.name_counts_of(story_row),
        index.passage_vectors.block(start, end),
        index.sentence_vectors.block(first, last),
    )


def _vectors_by_words(index: Index, story_row: int) -> dict[str, FloatArray]:
    """The vector of everything that was embedded of a story, by its words."""
    rows, story = _rows_of(index, story_row), index.texts.story(story_row)
    readings = passage_readings(rows.passages, section_numbers(rows.passages, story.sections))
    found = dict(zip(readings, rows.passage_vectors, strict=True))
    words = [story.text[span.start : span.end] for row in rows.sentences for span in row]
    return found | dict(zip(words, rows.sentence_vectors, strict=True))


def _report(
    survey: _Survey,
    seen: _Seen,
    manifest: Manifest | None = None,
    embedded: int = 0,
    generation: str | None = None,
    left: str | None = None,
) -> BuildReport:
    before, now = survey.before, seen.stories
    new, gone = now.keys() - before.keys(), before.keys() - now.keys()
    gone_by_text = {before[story_id][0]: story_id for story_id in sorted(gone, reverse=True)}
    renamed = []
    for story_id in sorted(new):
        old = gone_by_text.pop(now[story_id][0], None)
        if old is not None:
            renamed.append((old, story_id))
    new -= {story_id for _, story_id in renamed}
    gone -= {story_id for story_id, _ in renamed}
    kept = now.keys() & before.keys()
    return BuildReport(
        added=tuple(sorted(new)),
        changed=tuple(sorted(i for i in kept if now[i] != before[i])),
        renamed=tuple(renamed),
        removed=tuple(sorted(gone)),
        unchanged=tuple(sorted(i for i in kept if now[i] == before[i])),
        refused=tuple(seen.refused),
        guessed=tuple(seen.guessed),
        noted=tuple(seen.noted),
        ignored=survey.found.ignored,
        stories=len(now),
        passages=manifest.passages if manifest else 0,
        sentences=manifest.sentences if manifest else 0,
        embedded=embedded,
        generation=generation,
        left=left,
    )
