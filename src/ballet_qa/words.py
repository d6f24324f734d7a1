"""Words as the term index and the names know them: folded, stopped, stemmed."""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache

import tantivy

# Words that a question is made of, whatever it is about. "did" or "who" in a passage says nothing
# of the answer; stopping question words too takes BM25 from R@1 .500 to .516 (docs/retrieval.md).
STOP_WORDS = frozenset(
    """
    a about above after again against all also am an and any are as at be because been before
    being below between both but by can could did do does doing done down during each else
    ever few for from further had has have having he her here hers herself him himself his how
    i if in into is it its itself just let me might more most must my myself no nor not now of
    off on once only or other our ours ourselves out over own please s same shall she should
    so some such t tell than that the their theirs them themselves then there these they this
    those through to too under until up upon us very was we were what when where whether which
    while who whom whose why will with would you your yours yourself yourselves don didn doesn
    isn wasn weren won wouldn couldn shouldn hadn hasn haven ain aren ll re ve d m happen
    happened happens
    """.split()
)


def fold(text: str) -> str:
    """Lower case without accents: "Amélie" and "AMELIE" fold to "amelie"."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


def is_unicode(text: str) -> bool:
    """Whether it can be encoded: it holds no lone surrogate, as a name that is no UTF-8 does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def bare(text: str) -> str:
    """The letters and digits alone, in one case: headings are told by these, however set."""
    return "".join(filter(str.isalnum, text)).casefold()


def composed(text: str) -> str:
    """Text in the form the analyzer splits well: accents joined to letters, one apostrophe."""
    return unicodedata.normalize("NFKC", text).replace("’", "'")


@cache
def analyzer() -> tantivy.TextAnalyzer:
    """The analyzer of passages and queries alike."""
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.remove_long(60))
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.ascii_fold())
        .filter(tantivy.Filter.custom_stopword(sorted(STOP_WORDS)))
        .filter(tantivy.Filter.stemmer("English"))
        .build()
    )


def terms(text: str) -> list[str]:
    """The stems of the words that carry meaning, in order, repeats kept."""
    return analyzer().analyze(composed(text))


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """The stem of one word; a word the analyzer stops is only folded."""
    return " ".join(terms(word)) or fold(word)
