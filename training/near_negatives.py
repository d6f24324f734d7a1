"""Near negatives by rule: a question changed a little, so that its own passage no longer answers.

Each rule changes one thing that decides (a person, a relation, a number, ...) into something that
the passage does not speak of. Where a rule cannot be sure, it makes nothing. The rules were read by
a person, a hundred of their questions at a time; docs/training.md says how many were right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ballet_qa.names import Name, name_counts, names_in_question
from ballet_qa.passages import sentence_spans
from ballet_qa.words import fold

_AUXILIARY = (
    "is are was were do does did has have had can could will would should must may might"
).split()
_YES_NO = re.compile(rf"^(?:{'|'.join(_AUXILIARY)})\b", re.I)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")

# Words of one class exclude each other: who owns the dog is not who owns the cat.
CLASSES: dict[str, str] = {
    "relation": """mother father sister brother son daughter wife husband uncle aunt grandmother
        grandfather cousin nephew niece friend neighbour teacher employer grandson granddaughter
        stepmother godmother roommate colleague""",
    "role": """doctor nurse captain baker farmer soldier priest sailor fisherman butcher tailor king
        queen prince princess judge lawyer painter carpenter gardener cook driver pilot librarian
        miller blacksmith shoemaker merchant shepherd hunter engineer clerk postman policeman
        conductor violinist pianist singer actor actress journalist professor mayor waiter
        bishop monk nun thief beggar giant witch dwarf fairy dragon emperor wizard""",
    "person": "man woman boy girl",
    "animal": """dog cat horse goat cow pig sheep donkey fox wolf bear lion hen rooster duck goose
        swan parrot crow eagle owl rabbit hare mouse rat frog snake turtle fish bee spider monkey
        elephant camel deer lamb mule""",
    "place": """kitchen attic cellar garden church school hospital station harbour market library
        museum theatre bakery café hotel factory prison castle palace farm forest desert island
        mountain village city beach bridge tower barn cemetery office""",
    "thing": """ring letter book clock lamp mirror coat hat scarf shoe glove umbrella basket box bag
        key knife sword spoon cup bottle bell drum violin piano flute guitar camera telescope radio
        bicycle car train boat ship wagon bus lorry photograph painting map coin necklace bracelet
        blanket pillow table chair bed ladder rope axe hammer""",
    "food": """bread cheese soup cake apple pear plum orange lemon onion potato egg butter honey
        sugar salt rice bean sausage ham chicken biscuit pie chocolate tea coffee milk wine beer
        water""",
    "colour": "red blue green yellow brown grey purple pink orange white black golden silver",
    "time": "morning evening midnight noon afternoon",
    "season": "spring summer autumn winter",
    "month": """january february april june july august september october november december""",
    "day": "monday tuesday wednesday thursday friday saturday sunday",
    "number": """two three four five six seven eight nine ten eleven twelve thirteen fifteen twenty
        thirty forty fifty sixty hundred""",
    "order": "first second third fourth fifth last",
}
_STRANGERS = """Amara Anselm Beatriz Bruno Carmen Dmitri Edith Elif Farid Fiona Greta Hamid Hugo
    Ines Ivan Jasper Joan Kenji Leila Lorenz Magda Mateo Nadia Nils Olga Oscar Pia Priya Quentin
    Rosa Ruben Sanna Selim Tomas Ursula Vera Viktor Wanda Yusuf Zoe""".split()

# What else names a word's meaning; a passage that has one of these may still speak of it.
SYNONYMS: dict[str, str] = {
    "mother": "mum mom mama mamma maman mummy mam parent parents ma mothers stepmother",
    "father": "dad papa daddy parent parents pa pop fathers stepfather",
    "sister": "sibling siblings twin twins sisters stepsister",
    "brother": "sibling siblings twin twins brothers",
    "son": "child children boy sons heir",
    "daughter": "child children girl daughters",
    "wife": "married marry bride widow widower spouse wives widowed wed",
    "husband": "married marry bridegroom groom widow widowed spouse wed",
    "uncle": "uncles aunt",
    "aunt": "auntie aunts uncle",
    "grandmother": "grandma granny nan gran nonna babushka grandparents grandparent",
    "grandfather": "grandpa grandad granddad nonno grandparents grandparent",
    "grandson": "grandchild grandchildren",
    "granddaughter": "grandchild grandchildren",
    "friend": "friends companion comrade pal mate friendship neighbour",
    "neighbour": "neighbor neighbors neighbours neighbouring door friend",
    "teacher": "taught teach schoolmaster schoolmistress lesson lessons master tutor professor",
    "employer": "boss master hired works worked employed",
    "colleague": "worked together team crew",
    "roommate": "shared together",
    "stepmother": "mother",
    "doctor": "physician surgeon medic dr",
    "professor": "teacher dr university",
    "fisherman": "fishing nets fish fishermen",
    "sailor": "crew mate seaman mate sailed captain",
    "captain": "skipper master commander",
    "farmer": "farm peasant ploughed plough farming",
    "soldier": "army regiment sergeant private corporal officer",
    "priest": "father vicar parson pastor reverend monk bishop",
    "monk": "friar brother monks priest abbot",
    "man": "he him his men gentleman old fellow boy",
    "woman": "she her lady women girl old",
    "boy": "he him his lad son boys",
    "girl": "she her lass daughter girls maid",
    "cook": "cooked kitchen chef",
    "driver": "drove drive driving chauffeur",
    "pilot": "flew fly plane",
    "hunter": "hunt hunting huntsman",
    "merchant": "trader shop shopkeeper seller sold",
    "clerk": "office bank",
    "judge": "court",
    "thief": "stole stolen robber burglar thieves",
    "policeman": "police constable inspector officer",
    "singer": "sang sing song sings singing",
    "painter": "painted paint artist painting",
    "king": "majesty royal throne ruler",
    "queen": "majesty royal throne",
    "emperor": "majesty king ruler",
    "prince": "king son royal",
    "princess": "king daughter royal",
    "chicken": "hen rooster",
    "dog": "hound puppy terrier",
    "cat": "kitten",
    "horse": "mare pony stallion foal",
    "kitchen": "cook stove",
    "city": "town",
    "village": "town hamlet",
    "forest": "wood woods trees",
    "harbour": "port quay harbor pier dock",
    "theatre": "theater stage play",
    "church": "chapel cathedral",
    "castle": "palace fortress",
    "palace": "castle",
    "mountain": "hill mountains peak",
    "beach": "shore sand sea coast",
    "office": "desk",
    "letter": "wrote note envelope letters",
    "ship": "boat vessel aboard",
    "boat": "ship vessel ferry",
    "photograph": "photo picture",
    "painting": "picture portrait painted",
    "coat": "jacket cloak",
    "shoe": "boot slipper boots slippers",
    "bag": "sack satchel suitcase",
    "box": "chest case crate",
    "golden": "gold yellow",
    "silver": "grey",
    "grey": "gray silver",
    "orange": "amber",
    "white": "pale snow",
    "black": "dark",
    "morning": "dawn breakfast sunrise early",
    "evening": "dusk sunset supper night",
    "midnight": "night twelve",
    "noon": "midday lunch twelve",
    "afternoon": "lunch",
    "winter": "snow ice december january february",
    "summer": "june july august",
    "spring": "march april may",
    "autumn": "fall september october november",
    "hundred": "century",
    "last": "final finally end",
    "first": "began beginning start",
}
_NOT_IN_YES_NO = frozenset(
    "place thing food colour time season month day number order person opposite negation".split()
)
# Forms in one order: plain, past, third person, participle.
_OPPOSITES = [
    tuple(tuple(side.strip().split("/")) for side in pair.split(" : "))
    for pair in """
    buy/bought/buys/buying : sell/sold/sells/selling
    open/opened/opens/opening : close/closed/closes/closing
    win/won/wins/winning : lose/lost/loses/losing
    find/found/finds/finding : hide/hid/hides/hiding
    love/loved/loves/loving : hate/hated/hates/hating
    remember/remembered/remembers/remembering : forget/forgot/forgets/forgetting
    accept/accepted/accepts/accepting : refuse/refused/refuses/refusing
    laugh/laughed/laughs/laughing : weep/wept/weeps/weeping
    build/built/builds/building : destroy/destroyed/destroys/destroying
    arrive/arrived/arrives/arriving : depart/departed/departs/departing
    begin/began/begins/beginning : finish/finished/finishes/finishing
    start/started/starts/starting : stop/stopped/stops/stopping
    teach/taught/teaches/teaching : punish/punished/punishes/punishing
    marry/married/marries/marrying : divorce/divorced/divorces/divorcing
    save/saved/saves/saving : kill/killed/kills/killing
    write/wrote/writes/writing : read/read/reads/reading
    bring/brought/brings/bringing : break/broke/breaks/breaking
    send/sent/sends/sending : receive/received/receives/receiving
    eat/ate/eats/eating : cook/cooked/cooks/cooking
    carry/carried/carries/carrying : drop/dropped/drops/dropping
    """.strip().splitlines()
]
_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|"
    r"forty|fifty|sixty|seventy|eighty|ninety|hundred|age|aged|old|older|young|younger|years?|"
    r"birthday|born|child|baby|decades?)\b",
    re.I,
)
_TIME = re.compile(
    r"\d|\b(?:when|after|before|until|till|while|during|days?|nights?|tonight|morning|evening|noon|"
    r"midnight|dawn|dusk|years?|months?|weeks?|hours?|minutes?|spring|summer|autumn|winter|today|"
    r"yesterday|tomorrow|then|soon|once|ago|age|time|now|first|as|at last|since|o'clock|later|"
    r"\w+day|already|always|never|suddenly|immediately|at once)\b",
    re.I,
)
_REASON = re.compile(
    r"\b(?:because|since|so|therefore|reason|lest|for|to|as|if|but|that|why|afraid|wanted|"
    r"wished|hoped|hoping|thought)\b",
    re.I,
)
_PLACE = re.compile(
    r"\b(?:in|at|to|from|near|into|under|on|upon|onto|behind|inside|through|by|beside|over|down|"
    r"up|outside|home|there|here|beneath|among|across|along|towards?|between|against|around)\b",
    re.I,
)
_NOT = re.compile(r"\b(?:not|never|no|nobody|nothing|none|without|refused?)\b|n['’]t\b", re.I)

# Questions about a person for which the passage has no answer; "{n}" is the person.
_ATTRIBUTES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("age", ("How old is {n}?", "How old was {n}?", "What age is {n}?", "how old is {n}"), ""),
    ("born", ("Where was {n} born?", "When was {n} born?"), r"born|birth\w*|native|came|from"),
    (
        "origin",
        ("Where does {n} come from?", "Which country is {n} from?"),
        r"from|born|native|came|home|country|village|town|city",
    ),
    (
        "eyes",
        ("What colour are {n}'s eyes?", "What color of eyes does {n} have?"),
        r"eye\w*|gaze|look\w*",
    ),
    ("hair", ("What colour is {n}'s hair?",), r"hair\w*|blond\w*|bald|curl\w*|plait\w*|braid\w*"),
    (
        "spouse",
        ("Who is {n} married to?", "What is the name of {n}'s husband?", "Who is {n}'s wife?"),
        r"marr\w+|wife|husband|wed\w*|bride\w*|widow\w*|spouse|love\w*",
    ),
    (
        "mother",
        ("What is the name of {n}'s mother?", "Who is {n}'s mother?"),
        r"mother|mum|mom|mam\w*|parents?|born|daughter|son|ma",
    ),
    (
        "sister",
        ("What is {n}'s sister called?", "Does {n} have a brother?", "How many siblings has {n}?"),
        r"sister\w*|brother\w*|siblings?|twins?|family",
    ),
    (
        "pay",
        ("How much does {n} earn?", "How much was {n} paid?"),
        r"pa(?:y|id|ying)|earn\w*|wages?|salary|money|coins?|pounds?|dollars?|euros?|francs?|cost",
    ),
    (
        "pet",
        ("What is the name of {n}'s dog?", "What is {n}'s cat called?"),
        r"dog\w*|cat\w*|pets?|animal|hound|puppy|kitten",
    ),
    (
        "song",
        ("What song did {n} sing?", "What music did {n} play?"),
        r"s[aiu]ng\w*|songs?|music|tune|play\w*|melod\w+|hum\w*",
    ),
    (
        "clothes",
        ("What was {n} wearing?", "What colour was {n}'s coat?"),
        r"w[eo]r\w+|coat|dress\w*|cloth\w*|jacket|hat|cloak|shirt|scarf|gloves?|boots?|shoes?|in",
    ),
)


@dataclass(frozen=True)
class Situation:
    """A question with the passage that answers it.

    ``answer`` are characters of ``text``, None where they are not known. ``around`` is all else
    that the reader sees (title, sentence before). ``people`` are the names of the story's persons,
    ``story_words`` all its words, folded: what is swapped in is taken from these where possible.
    """

    question: str
    text: str
    around: str
    answer: tuple[int, int] | None
    people: tuple[str, ...]
    kind: str = ""
    story_words: frozenset[str] = frozenset()

    @cached_property
    def shown(self) -> frozenset[str]:
        """Every word the reader sees, folded, with its singular."""
        words = [fold(w) for w in _WORD.findall(f"{self.around} {self.text}")]
        words += [re.sub(r"['’]s?$", "", word) for word in words]
        words += [re.sub(r"(?:es|s)$", "", word) for word in words]
        return frozenset(words)

    @cached_property
    def near_answer(self) -> str:
        """The sentence of the answer and its neighbours; all where the answer has no place."""
        if self.answer is None:
            return f"{self.around} {self.text}"
        spans = sentence_spans(self.text)
        held = [
            n for n, s in enumerate(spans) if s.start < self.answer[1] and s.end > self.answer[0]
        ]
        if not held:
            return self.text
        first, last = max(0, held[0] - 1), min(len(spans) - 1, held[-1] + 1)
        before = self.around if first == 0 else ""
        return f"{before} {self.text[spans[first].start : spans[last].end]}"

    @cached_property
    def is_yes_no(self) -> bool:
        return self.kind == "yesno" or _YES_NO.match(self.question) is not None

    @cached_property
    def names(self) -> list[Name]:
        return names_in_question(self.question)

    def speaks_of(self, word: str) -> bool:
        """Whether the passage has a word or one that may mean it."""
        known = {fold(word), *(fold(s) for s in SYNONYMS.get(word, "").split())}
        return bool(known & self.shown)


Rule = Callable[[Situation, np.random.Generator], Iterator[tuple[str, str]]]


def near_negatives(
    situation: Situation, rng: np.random.Generator, most: int = 2
) -> list[tuple[str, str]]:
    """Up to ``most`` pairs (kind, question) that the passage does not answer, of distinct kinds."""
    if re.search(r"\bor\b", situation.question, re.I):
        return []  # a choice: each word of it may be the answer
    made: dict[str, str] = {}
    for rule in RULES:
        for kind, question in rule(situation, rng):
            blocked = situation.is_yes_no and kind in _NOT_IN_YES_NO
            if not blocked and fold(question) != fold(situation.question):
                made.setdefault(kind, question)
    kinds = sorted(made)
    weights = np.array([_CHOICE.get(kind, 1.0) for kind in kinds])
    count = min(most, len(kinds))
    if not count:
        return []
    chosen = rng.choice(len(kinds), count, replace=False, p=weights / weights.sum())
    return [(kinds[i], made[kinds[i]]) for i in chosen.tolist()]


_ATTRIBUTE_SHARE = 0.2  # of the questions: such are easily made
_STRANGER_SHARE = 0.5
# How readily each kind is chosen where several are possible.
_CHOICE = {"negation": 0.3, "name": 3.0, "stranger": 0.7, "wh-word": 2.0}


def people_of(text: str) -> tuple[str, ...]:
    """Names that a story uses as those of persons, the commonest first."""
    found = []
    for form, count in sorted(name_counts(text).values(), key=lambda pair: -pair[1]):
        name = re.escape(form)
        places = len(re.findall(rf"\b(?:in|at|near|into|from|of|through|the) {name}\b", text))
        acts = len(re.findall(rf"\b{name}(?:['’]s| (?:was|had|is|has|did|said|\w+ed)\b)", text))
        is_person = acts >= 1 and places <= 0.2 * count and fold(form) not in _FORMS
        if count >= 2 and is_person and len(form) > 2:
            found.append(form)
    return tuple(found)


def _other_person(situation: Situation, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Another person of the story in the place of the one asked about."""
    shown, near = situation.shown, fold(situation.near_answer)
    asked = fold(situation.question)
    answer = "" if situation.answer is None else fold(situation.text[slice(*situation.answer)])
    people = {fold(person) for person in situation.people}
    for name in situation.names:
        if len(name.words) != 1 or fold(name.text) not in people:
            continue
        old = fold(name.text)
        if old not in shown or old in answer:
            continue
        fitting = [
            person
            for person in situation.people
            if fold(person) not in asked
            and not re.search(rf"\b{re.escape(fold(person))}\b", near)
            and not _one_name(situation, old, fold(person))
        ]
        before, after = situation.question[: name.start], situation.question[name.end :]
        if fitting:
            new = fitting[int(rng.integers(min(len(fitting), 4)))]
            yield "name", before + new + after
        stranger = str(rng.choice(_STRANGERS))
        if rng.random() < _STRANGER_SHARE and fold(stranger) not in shown | situation.story_words:
            yield "stranger", before + stranger + after


def _one_name(situation: Situation, old: str, new: str) -> bool:
    """Whether two names stand side by side: then they are likely parts of one."""
    both = fold(f"{situation.around} {situation.text}")
    joined = rf"\b{re.escape(old)} {re.escape(new)}\b|\b{re.escape(new)} {re.escape(old)}\b"
    return re.search(joined, both) is not None


def _class_swap(situation: Situation, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """A word in the place of another of its class; the passage speaks of the old one only."""
    named = [range(name.start, name.end) for name in situation.names]
    for match in re.finditer(r"[^\W\d_]+", situation.question):
        if any(match.start() in part for part in named):
            continue
        word = match.group()
        for kind, singular, plural in _classes_of(fold(word)):
            if _is_fixed(situation.question, match) or fold(singular) not in situation.shown:
                continue
            fitting = [
                other
                for other in _members(kind)
                if other != singular
                and not (plural and other in _UNCOUNTED)
                and not situation.speaks_of(other)
                and fold(other) not in fold(situation.question)
            ]
            fitting = [other for other in fitting if other in situation.story_words] or fitting
            if fitting:
                new = fitting[int(rng.integers(len(fitting)))]
                new = _plural(new) if plural else new
                new = new.capitalize() if word[0].isupper() else new
                yield kind, _replaced(situation.question, match, new)


def _is_fixed(question: str, match: re.Match[str]) -> bool:
    """Whether a word is part of a phrase that a swap would break."""
    before = fold(question[: match.start()])
    after = fold(question[match.end() :])
    ordered = _FORMS.get(fold(match.group()), [("", "", False)])[0][0] == "order"
    if ordered and not re.search(r"(?:\b(?:the|his|her|their|its|my)|['’]s) $", before):
        return True  # "when she first came" has no third
    return bool(
        re.search(r"\b(?:how|at|no|any|some|every|each) $", before)
        or re.match(r"[-'’]\w| (?:of all|time|name|place|floor|day)\b", after)
        or before.endswith("-")
    )


def _replaced(question: str, match: re.Match[str], new: str) -> str:
    """The question with a new word, "a" or "an" in front of it made to fit."""
    before, after = question[: match.start()], question[match.end() :]
    article = re.search(r"\b([Aa])n? $", before)
    if article:
        fitting = article.group(1) + ("n" if new[0] in "aeiou" else "")
        before = before[: article.start()] + fitting + " "
    return before + new + after


def _members(kind: str) -> list[str]:
    return CLASSES[kind].split()


def _plural(word: str) -> str:
    irregular = {"man": "men", "woman": "women", "fish": "fish", "sheep": "sheep", "deer": "deer"}
    irregular |= {"mouse": "mice", "goose": "geese", "knife": "knives", "wife": "wives"}
    irregular |= {"fisherman": "fishermen", "policeman": "policemen", "postman": "postmen"}
    irregular |= {"thief": "thieves", "wolf": "wolves", "dwarf": "dwarfs"}
    if word in irregular:
        return irregular[word]
    if re.search(r"(?:s|x|ch|sh)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"


def _classes_of(word: str) -> list[tuple[str, str, bool]]:
    """The classes a word is of: (class, its singular, whether it is plural)."""
    return _FORMS.get(word, [])


_UNCOUNTED = frozenset("bread butter honey sugar salt rice ham chocolate milk water".split())
_COUNTED = ("relation", "role", "person", "animal", "place", "thing", "food")
_FORMS: dict[str, list[tuple[str, str, bool]]] = {}
for _kind in CLASSES:
    for _member in _members(_kind):
        _FORMS.setdefault(fold(_member), []).append((_kind, _member, False))
        if _kind in _COUNTED:
            _FORMS.setdefault(fold(_plural(_member)), []).append((_kind, _member, True))


def _opposite(situation: Situation, _rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """A verb in the place of its opposite."""
    for pair in _OPPOSITES:
        for old, new in (pair, pair[::-1]):
            if set(new) & situation.shown or not set(old) & situation.shown:
                continue
            for place, form in enumerate(old[:3]):  # a participle may be a noun: "the building"
                match = re.search(rf"\b{form}\b", situation.question)
                if match and _is_verb(situation.question, match):
                    yield "opposite", _replaced(situation.question, match, new[place])


def _is_verb(question: str, match: re.Match[str]) -> bool:
    """Whether a word is the verb of a question: after "did" and its subject, or after "who"."""
    before = fold(question[: match.start()])
    if re.match(r" (?:up|out|away|back|off|over)\b", question[match.end() :]):
        return False  # "find out" is another verb
    return bool(
        re.search(r"\b(?:did|does|do) (?:[\w'’]+ ){1,4}$", before)
        or re.search(r"^(?:and )?(?:who|what|which [\w'’]+) $", before)
    )


def _wh_word(situation: Situation, _rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Another question word, asking for what the passage has nothing of."""
    match = re.match(
        rf"(why|where|when|how) (?:{'|'.join(_AUXILIARY)})\b", situation.question, re.I
    )
    if not match:
        return
    old = match.group(1).lower()
    everything = f"{situation.around} {situation.text}"
    lacking = [
        ("when", _TIME, everything),
        ("where", _PLACE, situation.near_answer),
        ("why", _REASON, situation.near_answer),
    ]
    for new, holds, where in lacking:
        if new != old and not holds.search(where):
            new = new.capitalize() if match.group()[0].isupper() else new
            yield "wh-word", new + situation.question[match.end(1) :]


def _negation(situation: Situation, _rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Why it happened becomes why it did not, and the other way round."""
    match = re.match(r"(why (?:did|does|was|were|is|had|would|could)) ", situation.question, re.I)
    if match and not _NOT.search(situation.question) and not _NOT.search(situation.near_answer):
        yield "negation", match.group(1) + "n't" + situation.question[match.end(1) :]
    opposite = re.match(
        r"(why (?:did|does|was|were|is|had|would|could))n['’]t ", situation.question, re.I
    )
    if opposite:
        yield "negation", opposite.group(1) + situation.question[opposite.end() - 1 :]


def _attribute(situation: Situation, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Something about a person of the passage that it does not say."""
    everything = fold(f"{situation.around} {situation.text}")
    people = [p for p in situation.people if re.search(rf"\b{re.escape(p)}\b", situation.text)]
    if not people or rng.random() > _ATTRIBUTE_SHARE:
        return
    person = people[int(rng.integers(len(people)))]
    fitting = [
        question
        for attribute, questions, holds in _ATTRIBUTES
        for question in questions
        if not (
            _NUMBER.search(everything)
            if attribute == "age"
            else re.search(rf"\b(?:{holds})\b", everything)
        )
    ]
    if fitting:
        yield "attribute", fitting[int(rng.integers(len(fitting)))].format(n=person)


RULES: Sequence[Rule] = (
    _other_person,
    _class_swap,
    _opposite,
    _wh_word,
    _negation,
    _attribute,
)
