"""Turn the untrusted phrase of a region into a noun that sentences can be built around."""

import re
import unicodedata
from dataclasses import dataclass

from components.describe.text import with_bounded_marks


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


SINGULAR = _set("a an one this that each every another")
PLURAL = _set(
    "two three four five six seven eight nine ten these those several many few both various"
)
DEFINITE = _set("the his her its their my your our")
UNCERTAIN = _set("some any more most all")  # of one thing or of many
DETERMINERS = SINGULAR | PLURAL | DEFINITE | UNCERTAIN
# Where the name of a thing ends and what is said about it begins.
TAIL = re.compile(
    r"\s(?:of|in|on|at|with|from|by|for|near|behind|beside|under|over|next|to|that|which|who|and"
    r"|covered|wearing|holding|sitting|standing|riding|playing|looking|made)\s",
    re.IGNORECASE,
)
PEOPLE = _set(
    "man men woman women boy boys girl girls person persons people child children kid kids lady "
    "ladies guy guys fireman firemen astronaut astronauts bride groom worker workers soldier "
    "soldiers paratrooper rider riders skier skiers surfer surfers"
)
IRREGULAR_PLURALS = _set(
    "people men women children feet teeth mice geese firemen policemen leaves wolves"
)
SINGULAR_IN_S = _set("lens gas series species canvas atlas news bus octopus")
MAX_REFERENCE_WORDS = 5
MAX_PHRASE_CHARS = 2000  # more is no name of a thing; an address is looked for in the square of it
_TAG = re.compile(r"<[^<>]*>?")
_ADDRESS = re.compile(r"\S*(?:://|www\.)\S*", re.IGNORECASE)


@dataclass(frozen=True)
class Noun:
    """A phrase that fits into sentences."""

    mention: str  # at its first mention: `a red apple`
    reference: str  # afterwards: `the red apple`
    is_plural: bool
    is_person: bool

    @property
    def pronoun(self) -> str:
        """What stands for it at the start of a sentence."""
        if self.is_plural:
            return "They"
        return "This person" if self.is_person else "It"


def clean_phrase(text: str) -> str:
    """A phrase on one line without markup, addresses, control characters and odd punctuation."""
    text = unicodedata.normalize("NFKC", with_bounded_marks(text[:MAX_PHRASE_CHARS]))
    text = text[:MAX_PHRASE_CHARS]  # one character may become eighteen
    text = _ADDRESS.sub(" ", _TAG.sub(" ", text))
    kept = "".join(char if char.isalnum() or char in "'’-.,%" else " " for char in text)
    return " ".join(word.strip(".,-") for word in kept.split() if word.strip(".,-'’%"))


def noun_of(phrase: str, image_caption: str = "") -> Noun:
    """The noun of a cleaned phrase that is not empty."""
    words = phrase.split()
    first = words[0].lower()
    has_determiner = len(words) > 1 and (first in DETERMINERS or first.isdigit())
    rest = words[1:] if has_determiner else words
    core = " ".join(rest)
    head = TAIL.split(f"{core} ")[0].split()[-1].lower()
    is_plural = _is_plural(first if has_determiner else "", head)
    is_person = head in PEOPLE
    if not has_determiner:
        name = _is_name(words, image_caption)
        mention = core if name else f"the {_uncapitalised(core)}"
        return Noun(mention, _shortened(mention, is_plural, is_person), is_plural, is_person)
    mention = f"{first} {core}"
    article = first if first in DEFINITE else "the"
    keeps_number = first in PLURAL or first.isdigit()
    reference = f"the {mention}" if keeps_number and first != "both" else f"{article} {core}"
    return Noun(mention, _shortened(reference, is_plural, is_person), is_plural, is_person)


def another(noun: Noun) -> str:
    """The mention of a second thing of the same name."""
    core = noun.reference.removeprefix("the ")
    return f"the other {core}" if noun.is_plural else f"another {core}"


def sentence(text: str) -> str:
    """The text with a capital at its start."""
    return text[:1].upper() + text[1:]


def article(word: str) -> str:
    """`a` or `an`, by how a word of our own vocabulary starts."""
    return "an" if word[0] in "aeiou" else "a"


def _is_plural(determiner: str, head: str) -> bool:
    if determiner in SINGULAR:
        return False
    if determiner in PLURAL or (determiner.isdigit() and determiner != "1"):
        return True
    if head in IRREGULAR_PLURALS:
        return True
    ends_like_plural = head.endswith("s") and not head.endswith(("ss", "us", "is", "'s", "’s"))
    return ends_like_plural and head not in SINGULAR_IN_S


def _is_name(words: list[str], image_caption: str) -> bool:
    """Whether a phrase without a determiner is a proper name (`Mickey Mouse`)."""
    if not words[0][:1].isupper():
        return False
    if len(words) > 1:
        return all(word[:1].isupper() for word in words)
    # One capital word is a name unless it only starts a sentence.
    return re.search(rf"[a-z,] {re.escape(words[0])}\b", image_caption) is not None


def _uncapitalised(text: str) -> str:
    first, _, rest = text.partition(" ")
    # An abbreviation keeps its capitals, and so does a word before another name.
    is_plain = first[:1].isupper() and first[1:].islower() and not rest[:1].isupper()
    return f"{first.lower()} {rest}".strip() if is_plain else text


def _shortened(reference: str, is_plural: bool, is_person: bool) -> str:
    if len(reference.split()) <= MAX_REFERENCE_WORDS:
        return reference
    start = TAIL.split(reference)[0]
    if 1 < len(start.split()) <= MAX_REFERENCE_WORDS:
        return start
    if is_person:
        return "the people" if is_plural else "the person"
    return "the objects" if is_plural else "the object"
