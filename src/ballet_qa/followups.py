"""A question that leans on the one before, completed from the conversation. Pure.

"How old is she?" after "Who owns the café?" becomes "How old is Colette?". Only a pronoun, an
ellipsis ("Why?") or a bare name ("What about Camilla?") is completed, and only with words that the
conversation holds: an honest rule that a person can follow, shown and taken back where it errs.
docs/followups.md has what it is worth beside rewriting by people (CANARD, Elgohary et al., 2019).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ballet_qa.names import names_in_question

_WH = (
    r"(?:who|whom|whose|what|where|when|why|which|how)"
    r"(?:\s+(?:many|much|old|long|far|often|tall|else|kind\s+of\s+\w+|sort\s+of\s+\w+))?"
)
_JOINING = r"(?:and|but|so|then|also|ok|okay|well|oh|now)"
_LEAD = rf"{_JOINING}?[\s,]*"
_AND = re.compile(rf"^\s*{_JOINING}[\s,]+", re.IGNORECASE)
_ABOUT = re.compile(
    rf"^\s*{_LEAD}(?:(?:what|how)\s+about\s+|and\s+)(?P<what>[^?]+?)\s*\?*\s*$", re.IGNORECASE
)
_BARE = re.compile(r"^\s*(?P<what>[^\s?]+(?:\s+[^\s?]+){0,3})\s*\?+\s*$")
_ELLIPSIS = re.compile(
    rf"^\s*{_LEAD}(?P<what>(?:with\s+|for\s+|to\s+|from\s+|by\s+)?{_WH})"
    r"(?:\s+(?:so|then|not|exactly|that|was\s+that|is\s+that|did\s+that\s+happen))?\s*\?*\s*$",
    re.IGNORECASE,
)
_OPENING = re.compile(rf"^\s*{_LEAD}{_WH}\b", re.IGNORECASE)
_AUXILIARY = re.compile(
    r"\s*(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|shall|should|may|might)\b",
    re.IGNORECASE,
)
_WHO = re.compile(rf"^\s*{_LEAD}(?:with\s+|to\s+|for\s+)?(?:who|whom|whose)\b", re.IGNORECASE)
_WHERE = re.compile(rf"^\s*{_LEAD}(?:where|in\s+wh(?:ich|at)\s+\w+)\b", re.IGNORECASE)
_OTHER = re.compile(
    r"\bthe\s+other(?:\s+(?:one|girl|boy|woman|man)\b|(?=\s*(?:$|[?.,]|['’]s))"
    r"|(?=\s+[a-z]+(?<!s)\s*(?:$|[?.,])))(?P<of>['’]s)?",
    re.IGNORECASE,
)
_PRONOUN = re.compile(
    r"\b(?:(?P<she>she|her|hers|herself)|(?P<he>he|him|his|himself)"
    r"|(?P<they>they|them|their|theirs|themselves)|(?P<it>it|its|itself)"
    r"|(?P<there>there)|(?P<this>this|that|these|those))\b(?P<of>['’]s)?",
    re.IGNORECASE,
)
_POSSESSIVES = frozenset(("his", "its", "their", "hers", "theirs"))
_NO_NOUN = re.compile(
    r"\s*(?:$|[?.,;:!)\"”]|(?:in|on|at|to|from|of|for|with|by|about|into|after|before|when|while|as|"
    r"and|or|but|a|an|the|that|this|so|too|again|then|there|up|down|out|off|over|away|back|how|why|"
    r"what|where|who|go|do|be|leave|become|get|feel|see|come|was|is|during|because|if|not)\b)",
    re.IGNORECASE,
)
_THE_THING = re.compile(
    r"\b(?:the|an?|his|her|their|its|my)\s+((?:[\w’'-]+\s+){0,2}?[\w’'-]+)(?=\s*(?:$|[?.,;:]|\b"
    r"(?:in|on|at|to|from|of|for|with|by|about|into|after|before|when|who|that|is|was|were|did|do|"
    r"does|and|or|have|has|had)\b))",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"\s+(?:the|an?|he|she|it|they|we|you|his|her|its|their|[A-ZÀ-Þ]\w*)\b")
_PREDICATE = re.compile(r"\s*\w+\s*\?*\s*$")
_IS_BEFORE = re.compile(r"\b(?:is|was|are|were)\s*$", re.IGNORECASE)
_VAGUE = re.compile(
    r"\b(?:result|name|time|year|day|kind|sort|problem|reason|first|second|other|others|same|way|"
    r"end|beginning|most|best|only|two|three|thing|things|article|story|section|hit|any)\b",
    re.IGNORECASE,
)
_THE_WHOLE = re.compile(r"\s*(?:article|story|tale|section|book|text|page)\b", re.IGNORECASE)
_OWNED = re.compile(r"['’]s?\s+[a-z]\w*")  # behind a name: Camilla’s dream
_NO_THING = re.compile(r"(?:yes|no|because|I)\b", re.IGNORECASE)
_PREPOSITION = re.compile(r"^(?:in|at|to|from|on|near|into)\s+", re.IGNORECASE)
_INDEFINITE = re.compile(
    r"(?:any|some|every|no)(?:thing|body|one)?\b|really|yes|no|ok|thanks?", re.I
)
_ASIDE = re.compile(r"\s*\([^)]*\)")
_LONGEST_ANTECEDENT = 6  # words of an answer that may stand for "it" or "there"
_BACK = 4  # turns


@dataclass(frozen=True, slots=True)
class Turn:
    """What was asked before, as it was searched for, and what was answered.

    ``answer`` is the short answer, empty when there was none; ``people`` are those it is about, the
    likeliest first; ``topic`` and ``story_id`` are the title and id of the one story that answered,
    None when several did, or none.
    """

    question: str
    answer: str = ""
    people: tuple[str, ...] = ()
    topic: str | None = None
    story_id: str | None = None


def _anybody(_name: str, _pronoun: str) -> bool:
    return True


def _nobody(_name: str) -> Sequence[str]:
    return ()


def completed(
    question: str,
    turns: Sequence[Turn],
    fits: Callable[[str, str], bool] = _anybody,
    others: Callable[[str], Sequence[str]] = _nobody,
) -> str | None:
    """The question with what it leaves out put in; None when it stands by itself.

    ``turns`` are in order. ``fits`` tells whether a name may be meant by "she", "he", "they" or
    "it"; ``others`` gives who else shares a name with somebody. Nothing is put in that neither the
    conversation nor ``others`` holds.
    """
    if not turns:
        return None
    made = (
        _the_other(question, turns, others)
        or _about(question, turns[-1])
        or _ellipsis(question, turns[-1])
        or _pronoun(question, turns, fits)
    )
    if made is None:
        return None
    made = _AND.sub("", made)
    return made[:1].upper() + made[1:]


def _about(question: str, last: Turn) -> str | None:
    """The last question, asked of somebody else: "What about Camilla?"."""
    match = _ABOUT.match(question)
    if match is None:
        match = _BARE.match(question)
        if match is None or _INDEFINITE.match(match["what"]):
            return None
        if not names_in_question(f"Is it {match['what']}?"):
            return None
    what = match["what"].strip()
    if _OPENING.match(what) or _AUXILIARY.match(what) or _PRONOUN.search(what):
        return None
    # Somebody for somebody, something for something: nobody asks "Who owns Camilla?".
    if names_in_question(f"Is it {what}?"):
        names = names_in_question(last.question)
        return _put(last.question, names[0].start, names[0].end, what) if names else None
    things = list(_THE_THING.finditer(last.question))
    if things:
        return _put(last.question, things[-1].start(), things[-1].end(), what)
    return None


def _ellipsis(question: str, last: Turn) -> str | None:
    """The last question, opened by another word: "Why?"."""
    match = _ELLIPSIS.match(question)
    opening = _OPENING.match(last.question)
    if match is None or opening is None:
        return None
    rest = last.question[opening.end() :]
    word = match["what"][:1].upper() + match["what"][1:]
    if not _AUXILIARY.match(rest) and last.answer:
        rest = f" {_short(last.answer)}{rest}"  # "Who owns the café?": Why Colette owns the café?
    return f"{word}{rest}"


def _the_other(
    question: str, turns: Sequence[Turn], others: Callable[[str], Sequence[str]]
) -> str | None:
    """The namesake of whom we spoke: "And where did the other one train?"."""
    match = _OTHER.search(question)
    if match is None:
        return None
    for turn in reversed(turns[-_BACK:]):
        spoken = _people(turn)
        for name in spoken:
            for other in others(name):
                return _put(question, match.start(), match.end(), other + (match["of"] or ""))
    return None


def _pronoun(question: str, turns: Sequence[Turn], fits: Callable[[str, str], bool]) -> str | None:
    for match in _PRONOUN.finditer(question):
        kind = next(key for key, word in match.groupdict().items() if word and key != "of")
        before = names_in_question(question[: match.start()] + "x")
        if before and kind in ("she", "he", "they"):
            return None  # the question itself says who
        if _is_empty(question, match, kind):
            continue
        start, end, word = match.start(), match.end(), match.group().lower()
        demonstrates = kind == "this" and not _NO_NOUN.match(question[end:])
        if (
            demonstrates
            and _PREDICATE.match(question[end:])
            and _IS_BEFORE.search(question[:start])
        ):
            demonstrates = False  # "Was that wise?"
        whole = _THE_WHOLE.match(question[end:]) if demonstrates else None
        if demonstrates:
            kind = "whole" if whole else "they"
        found = next(_antecedents(kind, turns, fits), None)
        if found is None:
            continue
        if whole:
            return _put(question, start, end + whole.end(), found)
        if demonstrates:
            return _put(question, len(question.rstrip(" ?")), len(question), f" of {found}?")
        if kind == "there":
            return _put(question, start, end, f"in {found}")
        owns = word in _POSSESSIVES or (word == "her" and not _NO_NOUN.match(question[end:]))
        return _put(question, start, end, _owner(found) if owns else found + (match["of"] or ""))
    return None


def _is_empty(question: str, match: re.Match[str], kind: str) -> bool:
    """Whether it stands for nothing: "is it true that", "was there a wolf"."""
    before, after = question[: match.start()].lower(), question[match.end() :].lower()
    if kind == "there":
        return bool(
            re.search(r"\b(?:is|are|was|were|been|be|anything|else)\s*$", before)
            or re.match(r"\s*(?:is|are|was|were|any)\b", after)
        )
    if kind == "it":
        return bool(re.match(r"\s*(?:true|possible|that|rain\w*|snow\w*|who|to)\b", after))
    if kind == "this" and match.group().lower() == "that":
        # a conjunction, or a relative pronoun
        if _CLAUSE.match(question[match.end() :]):
            return True
        return bool(before.strip()) and not _NO_NOUN.match(after) and not _demonstrative(before)
    return False


def _demonstrative(before: str) -> bool:
    return bool(
        re.search(
            r"\b(?:in|on|at|from|of|for|with|by|about|after|before|to|did|does|do|was|is|were|are)\s*$",
            before,
        )
    )


def _antecedents(
    kind: str, turns: Sequence[Turn], fits: Callable[[str, str], bool]
) -> Iterator[str]:
    for turn in reversed(turns[-_BACK:]):
        if kind == "whole":
            yield from _topic(turn)
        elif kind in ("she", "he", "they"):
            people = (_in_full(name, turns) for name in _people(turn))
            yield from (name for name in people if fits(name, kind))
        else:
            yield from _things(kind, turn)


def _in_full(name: str, turns: Sequence[Turn]) -> str:
    """The fullest form in which the conversation has this name: Camilla is Camilla Roche."""
    told = [one for turn in turns for one in (*_topic(turn), *turn.people)]
    told += [one.text for turn in turns for one in names_in_question(turn.question)]
    words = name.split()
    fuller = [one for one in told if set(words) < set(one.split()) and len(one.split()) < 5]
    return max(fuller, key=len) if fuller else name


def _people(turn: Turn) -> Iterator[str]:
    """Who a turn is about: who was asked for, then who was asked about, then the others."""
    answered = [name.text for name in names_in_question(f"Is it {turn.answer}?")]
    asked = [name.text for name in names_in_question(turn.question)]
    if _WHO.match(turn.question) and turn.answer:
        yield from answered
        if not answered and len(turn.answer.split()) <= _LONGEST_ANTECEDENT:
            yield _short(turn.answer)
    yield from asked
    yield from turn.people
    yield from _topic(turn)


def _things(kind: str, turn: Turn) -> Iterator[str]:
    """What "it" or "there" may be: a short answer, else the last thing the question named."""
    answer = _short(turn.answer)
    short = 0 < len(answer.split()) <= _LONGEST_ANTECEDENT
    asked_for = _WHERE.match(turn.question) if kind == "there" else not _WHO.match(turn.question)
    if short and asked_for and not _NO_THING.match(answer):
        yield _PREPOSITION.sub("", answer)
    things = [m.group() for m in _THE_THING.finditer(turn.question) if not _VAGUE.search(m.group())]
    things = [thing for thing in things if not re.match(r"an?\s", thing, re.IGNORECASE)]
    if things:
        yield things[-1]
    names = names_in_question(turn.question)
    for name in reversed(names):
        owned = _OWNED.match(turn.question, name.end)
        if owned and not _VAGUE.search(owned.group()):
            yield turn.question[name.start : owned.end()]
    if names:
        yield names[-1].text
    yield from _topic(turn)


def _topic(turn: Turn) -> list[str]:
    """The title of the one story that answered, if there was one: what is in brackets left out."""
    return [_ASIDE.sub("", turn.topic)] if turn.topic else []


def _put(question: str, start: int, end: int, words: str) -> str:
    if not question[:start].strip():
        words = words[:1].upper() + words[1:]
    return question[:start] + words + question[end:]


def _owner(name: str) -> str:
    return f"{name}’" if name.endswith("s") else f"{name}’s"


def _short(answer: str) -> str:
    return answer.strip(' \t\n.,;:!?"“”')
