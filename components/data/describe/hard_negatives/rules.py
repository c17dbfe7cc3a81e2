"""What a wrong caption must be, without a model: the right one with one attribute changed."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from components.data.describe.flow import stems
from components.data.describe.scenes import Attribute
from components.data.llm.gates import Problem, TextRules, find_problem
from data_contracts.captions import SHORT
from data_contracts.reasons import NegativeReason

MOST_WORDS = 3  # that are taken out, and that are put in; articles aside
ARTICLES = frozenset({"a", "an", "the"})
SPELLINGS = {"gray": "grey", "color": "colour", "colored": "coloured", "colors": "colours"}
MIRRORED = {"left": "right", "right": "left"}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words that tell what a change is about: all that are known must be of one attribute.
KINDS: dict[Attribute, frozenset[str]] = {
    "colour": _set("""
        amber azure beige black blackish blue bluish bright bronze brown brownish buff chestnut
        colourful cream crimson dark deep dull gold golden green greenish grey greyish indigo ivory
        lavender light magenta maroon mauve muted navy ochre olive orange pale pink purple red
        reddish rufous rust rusty scarlet silver silvery tan teal turquoise violet vivid white
        whitish yellow yellowish
    """),
    "material": _set("""
        brick ceramic chrome cloth concrete cotton fabric glass leather metal metallic paper plastic
        porcelain rubber steel stone straw velvet wicker wood wooden wool woollen
    """),
    "shape": _set("""
        angular blunt boxy broad conical curved flat forked hooked long narrow oval pointed
        rectangular round rounded short slender square straight thick thin triangular wide
    """),
    "pattern": _set("""
        banded barred checked dotted floral furry glossy matte mottled plain rough shiny smooth
        speckled spotted streaked striped textured
    """),
    "size": _set("""
        big gigantic huge large little long medium-sized narrow short small tall thick thin tiny
        wide
    """),
    "number": _set("one two three four five six seven eight nine ten single several many"),
    "side": _set("left right"),
}
NEUTRAL = _set("almost and fairly mostly partly quite rather slightly very")  # beside any word
NAMED = frozenset().union(*KINDS.values())


@dataclass(frozen=True)
class Original:
    """What a wrong caption is made from; `phrases` are those of all regions of the image."""

    caption: str
    phrase: str
    phrases: Sequence[str] = ()


def normalised(text: str) -> tuple[str, ...]:
    """The words of a text by which captions are compared: lower case, one spelling."""
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", unicodedata.normalize("NFKC", text).lower())
    return tuple(SPELLINGS.get(word, word) for word in words)


def find_flaw(
    original: Original,
    wrong: str,
    attribute: Attribute,
    others: Collection[tuple[str, ...]] = (),
) -> Problem | None:
    """Why a text cannot be a wrong caption, or None; `others` are the normalised ones before it."""
    before, after = normalised(original.caption), normalised(wrong)
    if before == after:
        return Problem(NegativeReason.SAME_TEXT, "but for spelling")
    if after in others:
        return Problem(NegativeReason.REPEATED, "")
    problem = find_problem(wrong, TextRules("the wrong caption", *SHORT), "")
    if problem:
        return Problem(problem.reason, problem.detail)
    removed, added = changed_words(before, after)
    return (
        _not_one_change(removed, added)
        or _lost_name(original, removed, attribute)
        or _true_of_twin(original, removed, added)
    )


def changed_words(
    before: Sequence[str], after: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What stands between the common beginning and the common end, articles aside."""
    shorter = min(len(before), len(after))
    start = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    end = next(
        (i for i in range(shorter - start) if before[-1 - i] != after[-1 - i]), shorter - start
    )
    removed, added = (
        tuple(word for word in words[start : len(words) - end] if word not in ARTICLES)
        for words in (before, after)
    )
    return removed, added


def _not_one_change(removed: Sequence[str], added: Sequence[str]) -> Problem | None:
    told = f"'{' '.join(removed)}' became '{' '.join(added)}'"
    if not removed or not added:
        detail = f"{told}: words are only added or left out"
    elif max(len(removed), len(added)) > MOST_WORDS:
        detail = f"{told}: more than {MOST_WORDS} words"
    elif set(removed) & set(added):
        detail = f"{told}: in two places, or in another order"
    elif not _is_one_attribute(removed, added):
        detail = f"{told}: two attributes"
    else:
        return None
    return Problem(NegativeReason.NOT_ONE_CHANGE, detail)


def _is_one_attribute(removed: Sequence[str], added: Sequence[str]) -> bool:
    """Whether the known words share an attribute, and none stands beside a name (`red apple`)."""
    sides = [set(words) - NEUTRAL for words in (removed, added)]
    known = [word for side in sides for word in side if word in NAMED]
    is_mixed = any(side & NAMED and side - NAMED for side in sides)
    kinds = [{kind for kind, words in KINDS.items() if word in words} for word in known]
    return not is_mixed and (not kinds or bool(set.intersection(*kinds)))


def _lost_name(original: Original, removed: Sequence[str], attribute: Attribute) -> Problem | None:
    """A change of anything but the part leaves the region's name as it is."""
    names = stems(original.phrase) - NAMED
    lost = sorted(names & stems(" ".join(removed)))
    if attribute == "part" or not lost:
        return None
    return Problem(NegativeReason.LOST_NAME, f"no longer says {', '.join(lost)}")


def _true_of_twin(
    original: Original, removed: Sequence[str], added: Sequence[str]
) -> Problem | None:
    """The other side's part is in the image too: its caption is no lie there."""
    if not any(MIRRORED.get(word) in added for word in removed):
        return None
    twin = tuple(MIRRORED.get(word, word) for word in normalised(original.phrase))
    if twin == normalised(original.phrase) or twin not in map(normalised, original.phrases):
        return None
    return Problem(NegativeReason.TRUE_OF_TWIN, f"the image has a {' '.join(twin)} too")
