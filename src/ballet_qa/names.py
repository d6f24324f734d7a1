"""Proper names, by their capitals: in stories, in questions, and in a story's opening sentence.

A capital in the middle of a sentence makes a name; at its start it does not, unless the word is
not otherwise written small. This is orthography, not a trained recogniser: it needs no weights
and works for invented names, which stories are full of.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ballet_qa.passages import sentence_spans
from ballet_qa.words import STOP_WORDS, fold, stem

_WORD = re.compile(r"[^\W\d_]+(?:[-’'][^\W\d_]+)*")
_POSSESSIVE = re.compile(r"(?:['’]s?|['’])$")
# What may stand between two words of one name. A full stop joins only after an initial or "Mr".
_JOIN = re.compile(
    r"[ \n]|\.[ \n]?|[ \n](?:(?:de|du|la|le|les|van|von|der|bin|ibn|of|the|y)[ \n]){1,2}"
)

_HONORIFICS = frozenset(
    """
    mr mrs miss ms dr sir lady lord madame madam monsieur mademoiselle king queen prince
    princess emperor empress duke duchess count countess baron baroness captain colonel
    general saint st father mother brother sister uncle aunt grandfather grandmother old young
    little master mistress dame don dona senor senora herr frau professor doctor president god
    """.split()
)
_CALENDAR = frozenset(
    """
    monday tuesday wednesday thursday friday saturday sunday january february march april may
    june july august september october november december christmas easter
    """.split()
)
_PLACE_CUES = frozenset(
    """
    in at to from near of into through towards toward on
    """.split()
)
# Words of descent say what somebody is like; a story need not use them for them to fit.
_DESCENT = frozenset(
    """
    african american arab arabian arabic asian australian austrian british canadian celtic
    chinese christian danish dutch egyptian english european finnish flemish french german
    greek hungarian icelandic indian iranian irish islamic italian japanese jewish korean
    latin mexican moroccan muslim nordic norse norwegian parisian persian polish portuguese roman
    romanian russian scandinavian scotch scots scottish siberian slavic spanish swedish swiss
    turkish ukrainian viking welsh
    """.split()
)
_DETERMINERS = frozenset("the a an this that his her its their my your our".split())
_OPENERS = frozenset(
    """
    describe explain find give list mention name quote say show summarise summarize according
    long many much every one two three ah oh yes no well never perhaps suddenly meanwhile
    finally although though since whenever wherever whatever whoever despite besides instead
    like unlike within without today tonight yesterday tomorrow even still yet thus hence
    therefore however is are was were do does did can could will would has have had should
    """.split()
)
_AUXILIARIES = frozenset(
    "is are was were do does did can could will would has have had should".split()
)
_AFTER_A_SUBJECT = re.compile(
    r"\s+(?:is|was|are|were|has|had|have|did|does|do|can|could|will|would|who|and|or)\b|['’]s\b|,"
)


@dataclass(frozen=True, slots=True)
class Name:
    """A name as written, with its words folded, and where it stands in the text it was found in."""

    text: str
    words: tuple[str, ...]
    start: int
    end: int


def names_in_question(question: str) -> list[Name]:
    """The proper names a question holds, by its capitals; none if it is written all in capitals."""
    words = list(_WORD.finditer(question))
    if len(words) > 3 and not any(word.group()[0].islower() for word in words):
        return []  # Title Case or shouting: capitals say nothing
    starts = {span.start for span in sentence_spans(question)}
    found = []
    for run in _runs(question, words):
        if run[0].start() in starts or _opens_a_quote(question, run[0].start()):
            run = _without_opener(question, run)
        if run:
            found.append(_name(question, run))
    return [name for name in found if _says_who(name)]


@lru_cache(maxsize=2)  # a story's title is looked for, and its names are kept, one after the other
def name_counts(text: str) -> dict[str, tuple[str, int]]:
    """The name words of a story: stem to (its commonest form, how often it is a name).

    A word counts when it stands with a capital more often than small, sentence starts left out
    unless the word is never written small at all.
    """
    capital: Counter[str] = Counter()
    opening: Counter[str] = Counter()
    small: Counter[str] = Counter()
    forms: dict[str, Counter[str]] = {}
    for span in sentence_spans(text):
        at_start = True
        for match in _WORD.finditer(text, span.start, span.end):
            starts = at_start or _opens_a_quote(text, match.start())
            at_start = False
            for word, key, is_capital in _counted_words(match.group()):
                if is_capital:
                    (opening if starts else capital)[key] += 1
                    forms.setdefault(key, Counter())[word] += 1
                else:
                    small[key] += 1
    names: dict[str, tuple[str, int]] = {}
    for key, written in forms.items():
        count = capital[key] + opening[key]
        certain = capital[key] > small[key] or (opening[key] > 2 and not small[key])
        if certain and len(key) > 1 and not {fold(form) for form in written} & _OPENERS:
            names[key] = (written.most_common(1)[0][0], count)
    return names


@lru_cache(maxsize=100_000)
def _counted_words(whole: str) -> tuple[tuple[str, str, bool], ...]:
    """What counts of a word: its parts, their stems, whether each is written with a capital."""
    whole = _POSSESSIVE.sub("", whole)
    if re.split(r"[’']", fold(whole))[0] in STOP_WORDS:
        return ()  # "I'll" is no name
    counted = []
    for word in re.split(r"[-’']", whole):
        shouted = word.isupper() and len(word) > 3
        if word[:1].islower() or (word[:1].isupper() and not shouted):
            counted.append((word, stem(word), word[:1].isupper()))
    return tuple(counted)


def title_names(title: str) -> dict[str, tuple[str, int]]:
    """Every word of a title, as name_counts has them: a story may be asked for by its title."""
    words = (match.group() for match in _WORD.finditer(title))
    return {stem(part): (part, 0) for word in words for part in re.split(r"[-’']", word) if part}


def person_introduced(text: str) -> str | None:
    """The first person named in the opening sentence, or None.

    A place is told from a person by the word before it ("in Bagdad", "the North"), a passing name
    from a character by coming back later in the story.
    """
    sentences = sentence_spans(text[:4000])
    if not sentences:
        return None
    opening = sentences[0]
    known = name_counts(text)
    words = list(_WORD.finditer(text, opening.start, opening.end))
    for run in _runs(text, words):
        if run[0].start() == opening.start and fold(run[0].group()) in STOP_WORDS | _OPENERS:
            run = run[1:]
        if not run:
            continue
        before = [word for word in words if word.end() <= run[0].start()]
        cue = fold(before[-1].group()) if before else ""
        name = _name(text, run)
        core = [word for word in name.words if word not in _HONORIFICS]
        if not core or cue in _PLACE_CUES or set(core) & (_CALENDAR | _DESCENT):
            continue
        if cue == "the" and len(core) == len(name.words):
            continue
        again = sum(word.group() == run[-1].group() for word in _WORD.finditer(text))
        first_again = sum(word.group() == run[0].group() for word in _WORD.finditer(text))
        known_again = any(known.get(stem(word), ("", 0))[1] > 1 for word in core)
        if known_again or (len(core) > 1 and max(again, first_again) > 1):
            return name.text
    return None


def people_named(text: str, known: Collection[str]) -> list[str]:
    """The people a text names, each as it first does, in order; ``known`` are stems of names.

    What follows "in" or "from" is taken for a place. A later name that shares a word with an
    earlier one is the same person's: Camilla Roche, then Camilla.
    """
    words = list(_WORD.finditer(text))
    people: list[tuple[str, set[str]]] = []
    for run in _runs(text, words):
        run = [word for word in run if stem(_POSSESSIVE.sub("", word.group())) in known]
        before = [word for word in words if run and word.end() <= run[0].start()]
        if not run or (before and fold(before[-1].group()) in _PLACE_CUES):
            continue
        name = _name(text, run)
        core = set(essential_words(name))
        same = next((held for _, held in people if held & core), None)
        if same is not None:
            same |= core
        elif core:
            people.append((name.text, core))
    return [person for person, _ in people]


def essential_words(name: Name) -> list[str]:
    """The words of a name that must be known for it to be known: titles and descent left out."""
    aside = _HONORIFICS | _DESCENT | _CALENDAR
    return [word for word in name.words if word not in aside and len(word) > 1]


def follows_the(question: str, name: Name) -> bool:
    """Whether "the" or a like word stands before the name: "the King" may be any king."""
    before = question[: name.start].rstrip().rsplit(None, 1)
    if not before:
        return False
    last = before[-1]
    return fold(last) in _DETERMINERS or bool(_POSSESSIVE.search(last) and len(last) > 2)


def stands_for_a_person(question: str, name: Name) -> bool:
    """Whether a name stands where a person would: "did Joy feel", "Who is Joy?", "Joy's hat"."""
    before = question[: name.start].split()
    possessed = _POSSESSIVE.match(question[name.end : name.end + 2])
    return bool(possessed) or (bool(before) and fold(before[-1]) in _AUXILIARIES)


def _says_who(name: Name) -> bool:
    return bool(essential_words(name)) and not all(
        w in STOP_WORDS and len(name.text) < 3 for w in name.words
    )


def _name(text: str, run: Sequence[re.Match[str]]) -> Name:
    start = run[0].start()
    last = _POSSESSIVE.sub("", run[-1].group())
    end = run[-1].start() + len(last)
    words = tuple(
        part
        for match in run
        for part in re.split(r"[-’']", fold(_POSSESSIVE.sub("", match.group())))
        if part and part not in STOP_WORDS
    )
    return Name(" ".join(text[start:end].split()), words, start, end)


def _runs(text: str, words: Sequence[re.Match[str]]) -> Iterator[list[re.Match[str]]]:
    """Maximal runs of capitalised words that only white space or a name's particle parts."""
    run: list[re.Match[str]] = []
    for word in words:
        if not word.group()[0].isupper():
            continue
        if run:
            gap = text[run[-1].end() : word.start()]
            possessed = run[-1].group() != _POSSESSIVE.sub("", run[-1].group())
            if not possessed and _JOIN.fullmatch(gap) and not _ends_sentence(gap, run[-1].group()):
                run.append(word)
                continue
            yield run
        run = [word]
    if run:
        yield run


def _ends_sentence(gap: str, word: str) -> bool:
    return gap.startswith(".") and len(word) > 1 and fold(word) not in _HONORIFICS


def _without_opener(question: str, run: list[re.Match[str]]) -> list[re.Match[str]]:
    """A sentence's first word is a name only if what follows it says so."""
    first = run[0]
    word = fold(_POSSESSIVE.sub("", first.group()))
    if word in STOP_WORDS or word in _OPENERS:
        return run[1:]
    if len(run) > 1 or "-" in first.group():
        return run
    possessed = first.group() != _POSSESSIVE.sub("", first.group())
    return run if possessed or _AFTER_A_SUBJECT.match(question, first.end()) else []


def _opens_a_quote(text: str, position: int) -> bool:
    return position > 0 and text[position - 1] in "\"“‘'«("
