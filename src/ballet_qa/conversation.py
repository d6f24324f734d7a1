"""A question asked in a conversation: completed, asked of the story in view, answered.

The story that answered last is asked first when a question leans on it, and all stories when it
does not tell. Either is said in the answer, so that no story is carried on in silence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ballet_qa.answering import Answerer
from ballet_qa.followups import Turn, completed
from ballet_qa.passages import sentence_spans
from ballet_qa.settings import SETTINGS
from ballet_qa.shards import heard
from ballet_qa.types import Answer
from ballet_qa.words import fold, stem

_HERS = re.compile(r"\b(?:she|her|hers|herself|woman|girl|daughter|mother|queen|princess)\b", re.I)
_HIS = re.compile(r"\b(?:he|him|his|himself|man|boy|son|father|king|prince)\b", re.IGNORECASE)
_ALIKE = 3  # one "his" in the story of a woman says nothing yet


def answer_next(
    answerer: Answerer,
    question: str,
    before: Sequence[Turn],
    top_k: int = SETTINGS.top_k,
    stories: Sequence[str] | None = None,
) -> Answer:
    """Answer a question after others; what was put into it is in `Answer.asked`.

    ``stories`` are as in `Answerer.answer`; without them, a completed question is asked of the one
    story that answered last, named in `Answer.within`, then of all. Raises what it raises.
    """
    answer, silent = heard(
        answerer.index, lambda: _answered_next(answerer, question, before, top_k, stories)
    )
    return replace(answer, partial=silent)


def _answered_next(
    answerer: Answerer,
    question: str,
    before: Sequence[Turn],
    top_k: int,
    stories: Sequence[str] | None,
) -> Answer:
    cast = _Cast(answerer)
    asked = completed(question, before, cast.fits, cast.namesakes)
    if asked is None or len(asked) > SETTINGS.max_question_chars:
        return answerer.answer(question, top_k, stories)
    within = before[-1].story_id
    if stories is None and within is not None and cast.may_tell(asked, within):
        answer = answerer.answer(asked, top_k, [within])
        if answer.findings:
            return replace(answer, question=question, asked=asked, within=before[-1].topic)
    return replace(answerer.answer(asked, top_k, stories), question=question, asked=asked)


def turn_of(answer: Answer) -> Turn:
    """An answer as the next question may lean on it."""
    question = answer.asked or answer.question
    if not answer.findings:
        return Turn(question)
    first = answer.findings[0]
    stories = {
        finding.citation.story.id: finding.citation.story.title for finding in answer.findings
    }
    people = tuple(
        dict.fromkeys(finding.about for finding in answer.findings if finding.about is not None)
    )
    if len(stories) > 1:
        return Turn(question, first.answer, people)
    ((story_id, title),) = stories.items()
    return Turn(question, first.answer, people, title, story_id)


class _Cast:
    """Who is who in the stories, as far as a question's completion asks."""

    def __init__(self, answerer: Answerer) -> None:
        self._texts = answerer.index.texts
        self._names = answerer.index.names_in

    def fits(self, name: str, pronoun: str) -> bool:
        """Whether the stories speak of somebody as "she" or "he"; yes where they do not say."""
        words = fold(name).split()
        rows = [self._texts.stories_naming(stem(word)) for word in words]
        known = [row for row in rows if row]
        if not known:
            return True
        hers = his = 0
        for row in sorted(frozenset.intersection(*known))[:3]:
            text = self._texts.story(row).text
            near = False
            for span in sentence_spans(text):
                sentence = text[span.start : span.end]
                folded = fold(sentence)
                named = any(word in folded for word in words)
                if named or near:
                    hers += len(_HERS.findall(sentence))
                    his += len(_HIS.findall(sentence))
                near = named
        if pronoun == "she":
            return hers + _ALIKE > his
        return pronoun != "he" or his + _ALIKE > hers

    def namesakes(self, name: str) -> list[str]:
        """The titles of other stories that share a word with this name."""
        own = fold(name)
        found = []
        for word in own.split():
            for row in sorted(self._texts.stories_naming(stem(word))):
                title = self._texts.title(row)
                if word in fold(title).split() and not set(own.split()) >= set(fold(title).split()):
                    found.append(title)
        return list(dict.fromkeys(found))

    def may_tell(self, question: str, story_id: str) -> bool:
        """Whether every name of the question stands in that story: it may be asked alone."""
        row = self._texts.story_row(story_id)
        return row is not None and all(
            row in self._texts.stories_naming(word)
            for name in self._names(question)
            if not name.maybe_common
            for word in name.stems
        )
