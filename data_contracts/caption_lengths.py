"""How many words a caption has: what a data set may hold, and what a describer writes within that.

A caption outside `LONG`, `SHORT` or `PART` does not get into a data set, whoever wrote it.
`describe` asks language models for the narrower lengths of the paper, which its settings may
change. Its embedded rules, which see little, write shorter still.
"""

from typing import NamedTuple


class Words(NamedTuple):
    """The fewest and the most words of a caption."""

    fewest: int
    most: int


# What a data set may hold; a part is the caption of the object or of its context.
LONG, SHORT, PART = Words(12, 300), Words(1, 40), Words(2, 200)
# What a model is asked for.
ASKED_LONG, ASKED_SHORT, ASKED_PART = Words(30, 120), Words(2, 20), Words(3, 150)
# What the embedded rules aim at, as far as the settings allow it.
RULED_LONG, RULED_SHORT_MOST = Words(30, 60), 12
