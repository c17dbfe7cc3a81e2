"""Read COCO's compressed mask counts of many rows at once, without decoding any mask.

`pixclip.masks.rle_num_pixels` reads one string; a million of them need arrays. The format: a
number is a little-endian run of 6-bit characters (offset 48) with 5 bits of value each, bit 5
for "goes on" and, in the last character, bit 4 for the sign. From the fourth on, a number is the
difference to the run two places before.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Codes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
MAX_CHARS = 6  # of a number: up to 2**29, more pixels than any image has
BLOCK_BYTES = 120_000  # of counts at a time: the arrays then stay in the processor's cache


@dataclass(frozen=True)
class CountsFacts:
    """What counts say, one value a row; -1 where they are missing or damaged."""

    num_pixels: Ints
    area_px: Ints


def read_counts(counts: pa.Array) -> CountsFacts:
    """Pixels in all and inside the mask that each row's counts describe."""
    facts: list[CountsFacts] = []
    block: list[bytes] = []
    num_bytes = 0
    for text in counts.to_pylist():
        block.append((text or "").encode())
        num_bytes += len(block[-1])
        if num_bytes > BLOCK_BYTES:
            facts.append(_read_block(block))
            block, num_bytes = [], 0
    facts.append(_read_block(block))
    return CountsFacts(
        np.concatenate([fact.num_pixels for fact in facts]),
        np.concatenate([fact.area_px for fact in facts]),
    )


def _read_block(texts: list[bytes]) -> CountsFacts:
    num_pixels, area_px = (np.full(len(texts), -1, dtype=np.int64) for _ in range(2))
    present = np.flatnonzero([len(text) > 0 for text in texts])
    if not len(present):
        return CountsFacts(num_pixels, area_px)
    codes = np.frombuffer(b"".join(texts), dtype=np.uint8) - np.uint8(48)
    ends = np.cumsum([len(texts[row]) for row in present])
    numbers, first, is_damaged = _numbers(codes, ends)
    runs = _runs(numbers, first)
    is_damaged |= np.minimum.reduceat(runs, first) < 0
    num_pixels[present] = np.where(is_damaged, -1, np.add.reduceat(runs, first))
    inside = np.where(_places(first, len(runs)) % 2 == 1, runs, 0)
    area_px[present] = np.where(is_damaged, -1, np.add.reduceat(inside, first))
    return CountsFacts(num_pixels, area_px)


def _numbers(codes: Codes, ends: Ints) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """The numbers of all rows, where each row's begin, and whether a row's text is damaged."""
    row_starts = np.concatenate([[0], ends[:-1]])
    is_last = (codes & 0x20) == 0
    is_start = np.concatenate([[True], is_last[:-1]])
    is_start[row_starts] = True
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=len(codes))
    first = np.searchsorted(starts, row_starts)
    is_damaged = ~is_last[ends - 1] | (np.maximum.reduceat(lengths, first) > MAX_CHARS)
    if codes.max() > 63:  # characters below "0" have wrapped around
        is_damaged |= np.maximum.reduceat(codes, row_starts) > 63
    return _values(codes, starts, lengths), first, is_damaged


def _values(codes: Codes, starts: Ints, lengths: Ints) -> Ints:
    values = (codes[starts] & 0x1F).astype(np.int64)
    for place in range(1, min(int(lengths.max()), MAX_CHARS)):
        longer = np.flatnonzero(lengths > place)
        bits = (codes[starts[longer] + place] & 0x1F).astype(np.int64)
        values[longer] |= bits << (5 * place)
    negative = np.flatnonzero(codes[starts + lengths - 1] & 0x10)
    values[negative] -= 1 << (5 * np.minimum(lengths[negative], MAX_CHARS))
    return values


def _places(starts: Ints, total: int) -> Ints:
    """The place of every element within its stretch; stretches begin at `starts`."""
    lengths = np.diff(np.append(starts, total))
    return np.arange(total) - np.repeat(starts, lengths)


def _runs(numbers: Ints, first: Ints) -> Ints:
    """Undo the differences: the runs two apart form chains that begin at places 1 and 2."""
    runs = numbers.copy()
    places = _places(first, len(numbers))
    for chain_start in (1, 2):
        members = np.flatnonzero((places >= chain_start) & (places % 2 == chain_start % 2))
        if len(members):
            sums = np.cumsum(numbers[members])
            starts = np.flatnonzero(places[members] == chain_start)
            before = sums[starts] - numbers[members][starts]
            runs[members] = sums - np.repeat(before, np.diff(np.append(starts, len(members))))
    return runs
