"""One generation, open: texts, terms and vectors that belong together, and verified to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ballet_qa.errors import IndexMismatchError, UnknownStoryError
from ballet_qa.generation import (
    Hold,
    Manifest,
    build_command,
    live_generation,
    read_manifest,
    verify,
)
from ballet_qa.names import essential_words, follows_the, names_in_question
from ballet_qa.terms import TermIndex
from ballet_qa.texts import Texts
from ballet_qa.types import Encoder
from ballet_qa.vectors import VectorIndex
from ballet_qa.words import stem, terms

TERMS = "terms"
PASSAGES = "passages"
SENTENCES = "sentences"


@dataclass(frozen=True, slots=True)
class QuestionName:
    """A name in a question: as written, its stems, and whether it may be a common noun."""

    text: str
    stems: tuple[str, ...]
    maybe_common: bool


@dataclass(frozen=True, slots=True)
class Index:
    """What a generation holds, ready to be searched. Rows are those of ``texts``."""

    folder: Path
    hold: Hold
    manifest: Manifest
    texts: Texts
    terms: TermIndex
    passage_vectors: VectorIndex
    sentence_vectors: VectorIndex

    @classmethod
    def open(cls, index_dir: str | Path) -> Index:
        """Open the live generation of ``index_dir``, every file and count verified.

        Raises IndexMissingError, or IndexMismatchError naming what is wrong and the remedy.
        """
        folder = live_generation(Path(index_dir))
        try:
            hold = Hold(folder)
        except IndexMismatchError:  # two builds have ended since the pointer was read
            folder = live_generation(Path(index_dir))
            hold = Hold(folder)
        manifest = read_manifest(folder)
        verify(folder, manifest, again=False)
        index = cls(
            folder=folder,
            hold=hold,
            manifest=manifest,
            texts=Texts(folder),
            terms=TermIndex(folder / TERMS),
            passage_vectors=VectorIndex(folder, PASSAGES, manifest.dimension),
            sentence_vectors=VectorIndex(folder, SENTENCES, manifest.dimension),
        )
        index._check_counts(Path(index_dir))
        return index

    def check_encoder(self, encoder: Encoder, index_dir: Path) -> None:
        """Raise IndexMismatchError unless ``encoder`` made this index's vectors."""
        if encoder.fingerprint != self.manifest.encoder_fingerprint:
            raise IndexMismatchError(
                f"{index_dir} was built with {self.manifest.encoder} "
                f"({self.manifest.encoder_fingerprint[-12:]}), not with {encoder.name} "
                f"({encoder.fingerprint[-12:]}); run: {build_command(index_dir)}"
            )

    def story_rows(self, story_ids: Iterable[str]) -> list[int]:
        """The rows of these stories. Raises UnknownStoryError naming the first unknown one."""
        rows = []
        for story_id in story_ids:
            row = self.texts.story_row(story_id)
            if row is None:
                raise UnknownStoryError(
                    f"no story {story_id!r} in this index; `ballet-qa info --stories` lists them"
                )
            rows.append(row)
        return sorted(set(rows))

    def names_in(self, question: str) -> list[QuestionName]:
        """The names a question holds: by its capitals, and, written small, those known here."""
        names = [
            QuestionName(
                name.text, tuple(map(stem, essential_words(name))), follows_the(question, name)
            )
            for name in names_in_question(question)
        ]
        told = {word for name in names for word in name.stems}
        for term in terms(question):
            # A word that is a name wherever it occurs is one in the question too.
            if term in told or not self.texts.is_a_name_in(self.terms.stories_holding(term), term):
                continue
            if self.texts.stories_naming(term) == self.terms.stories_with(term):
                names.append(QuestionName(term, (term,), maybe_common=True))
        return names

    def passages_among(self, story_rows: Iterable[int]) -> NDArray[np.bool_]:
        """One truth value a passage: whether it belongs to one of these stories."""
        among = np.zeros(self.passage_vectors.count, dtype=np.bool_)
        for story_row in story_rows:
            start, end = self.texts.passage_rows(story_row)
            among[start:end] = True
        return among

    def _check_counts(self, index_dir: Path) -> None:
        told = self.manifest
        counts = {
            "stories": (told.stories, self.texts.story_count, self.terms.story_count),
            "passages": (
                told.passages,
                len(self.texts.passage_story),
                self.terms.passage_count,
                self.passage_vectors.count,
                self.passage_vectors.indexed,
            ),
            "sentences": (
                told.sentences,
                len(self.texts.sentence_passage),
                self.sentence_vectors.count,
                self.sentence_vectors.indexed,
            ),
        }
        for what, numbers in counts.items():
            if len(set(numbers)) != 1:
                raise IndexMismatchError(
                    f"{self.folder} holds {what} in unequal numbers {numbers}; "
                    f"run: {build_command(index_dir)}"
                )
