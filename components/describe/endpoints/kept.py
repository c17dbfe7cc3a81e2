"""A cheap rule that a merge kept the object and the location, before a judge is paid to look."""

import re

from components.describe.endpoints.gates import Problem
from data_contracts.reasons import DescribeReason

# Words that say where something is. Prepositions that every sentence has ("of", "on") say nothing.
_PLACES = """
    above across against among around atop background before behind below beneath beside between
    bottom center central centered centre centred close corner distance edge facing far foreground
    front front-left hanging held inside leftmost left lower lying middle near nearby nearest next
    opposite outside over positioned right rightmost side surrounded top topmost towards under
    underneath upper within
"""
_EVERYDAY = """
    about all also and another any appears area are being black but blue both brown color colored
    colour coloured each features for from gray green grey has have her his image into its large
    light located looks made main object orange other part photograph pink purple red region round
    seen shape shaped short slightly small some that the their there these this visible was were
    white which with yellow
"""
PLACES, EVERYDAY = frozenset(_PLACES.split()), frozenset(_EVERYDAY.split())


def lost_in_merge(object_caption: str, context_caption: str, long_caption: str) -> Problem | None:
    """What the long caption no longer says, or None."""
    merged = _stems(long_caption)
    names = _stems(object_caption) - EVERYDAY_STEMS
    if names and not names & merged:
        return Problem(DescribeReason.MERGE_LOST_OBJECT, f"none of: {', '.join(sorted(names)[:8])}")
    places = _words(context_caption) & PLACES
    # Said in other words of place is still said; the judge looks at whether it is the same place.
    if places and not _words(long_caption) & PLACES:
        return Problem(
            DescribeReason.MERGE_LOST_LOCATION,
            f"no word of place; there were {', '.join(sorted(places))}",
        )
    return None


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z][a-z'-]+", text.lower()))


def _stems(text: str) -> set[str]:
    return {_stem(word) for word in _words(text) if len(word) > 2}


def _stem(word: str) -> str:
    """Singular of a regular plural; enough to compare nouns."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


EVERYDAY_STEMS = frozenset(map(_stem, EVERYDAY))
