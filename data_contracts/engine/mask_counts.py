"""Read COCO's compressed mask counts of many rows at once, without decoding any mask.

`pixclip.masks.rle_num_pixels` reads one string; a million of them need arrays. The format: a
number is a little-endian run of 6-bit characters (offset 48) with 5 bits of value each, bit 5
for "goes on" and, in the last character, bit 4 for the sign. From the fourth on, a number is the
difference to the run two places before.

Nearly all numbers have three characters at most: those are put together at every character at once,
in 16 bits, and the few others one by one. Blocks of sound rows need nothing else; a damaged row is
found by its characters or by a negative run, and leaves its block before the sums are made.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pixclip.masks import MAX_NUMBER_CHARS

Codes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
# Of counts at a time: the arrays then stay in the processor's cache, and small enough for malloc to
# keep: larger ones go back to the system after every block, and page faults take a third of it all.
BLOCK_BYTES = 60_000


@dataclass(frozen=True)
class CountsFacts:
    """What counts say, one value a row; -1 where they are missing or damaged."""

    num_pixels: Ints
    area_px: Ints


def read_counts(counts: pa.Array | pa.ChunkedArray) -> CountsFacts:
    """Pixels in all and inside the mask that each row's counts describe."""
    chunks = counts.chunks if isinstance(counts, pa.ChunkedArray) else [counts]
    facts = [_read_chunk(chunk) for chunk in chunks] or [_read_chunk(pa.array([], pa.string()))]
    return CountsFacts(
        np.concatenate([fact.num_pixels for fact in facts]),
        np.concatenate([fact.area_px for fact in facts]),
    )


def _read_chunk(column: pa.Array) -> CountsFacts:
    codes, offsets = _codes(column)
    num_pixels, area_px = (np.full(len(column), -1, dtype=np.int64) for _ in range(2))
    present = np.flatnonzero(np.diff(offsets) > 0)  # missing counts have no characters either
    for rows in _blocks(present, offsets):
        found = _read_block(codes, offsets, rows)
        num_pixels[rows], area_px[rows] = found.num_pixels, found.area_px
    return CountsFacts(num_pixels, area_px)


def _codes(column: pa.Array) -> tuple[Codes, Ints]:
    """The characters of all rows, and where each row's begin and end in them."""
    column = column.cast(pa.large_string())
    if column.null_count:
        column = pc.fill_null(column, "")
    _, offsets, text = column.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64) if offsets else np.zeros(1, dtype=np.int64)
    starts = starts[column.offset : column.offset + len(column) + 1]
    characters = np.frombuffer(text or b"", dtype=np.uint8)
    return characters, starts if len(starts) else np.zeros(1, dtype=np.int64)


def _blocks(rows: Ints, offsets: Ints) -> Iterator[Ints]:
    """Consecutive rows of about `BLOCK_BYTES`; at least one."""
    ends = offsets[rows + 1]
    start = 0
    while start < len(rows):
        limit = offsets[rows[start]] + BLOCK_BYTES
        end = max(start + 1, int(np.searchsorted(ends, limit, side="right")))
        yield rows[start:end]
        start = end


def _read_block(characters: Codes, offsets: Ints, rows: Ints) -> CountsFacts:
    """Of rows that are not empty, with nothing but empty ones between them."""
    first, last = int(offsets[rows[0]]), int(offsets[rows[-1] + 1])
    codes = characters[first:last] - np.uint8(48)
    starts = offsets[rows] - first
    is_damaged = _has_damaged_text(codes, starts)
    if not is_damaged.any():
        return _sums(codes, starts)
    num_pixels, area_px = (np.full(len(rows), -1, dtype=np.int64) for _ in range(2))
    sound = np.flatnonzero(~is_damaged)
    if len(sound):
        ends = np.append(starts[1:], len(codes))
        parts = [codes[starts[row] : ends[row]] for row in sound]
        lengths = np.array([len(part) for part in parts])
        codes = np.concatenate(parts)
        found = _sums(codes, np.cumsum(lengths) - lengths)
        num_pixels[sound], area_px[sound] = found.num_pixels, found.area_px
    return CountsFacts(num_pixels, area_px)


def _has_damaged_text(codes: Codes, starts: Ints) -> Bools:
    """Whether a row has strange characters, ends within a number or has one that is too long."""
    is_damaged: Bools = codes[np.append(starts[1:], len(codes)) - 1] >= 32
    if codes.max() > 63:  # characters below "0" have wrapped around
        is_damaged |= np.maximum.reduceat(codes, starts) > 63
    goes_on = codes >= 32
    is_run = goes_on[MAX_NUMBER_CHARS - 1 :]  # and one more character follows
    for place in range(1, MAX_NUMBER_CHARS):
        is_run = is_run & goes_on[MAX_NUMBER_CHARS - 1 - place : -place]
    if is_run.any():
        first = np.flatnonzero(is_run)
        rows = [
            np.searchsorted(starts, places, side="right") - 1
            for places in (first, first + MAX_NUMBER_CHARS - 1)
        ]
        is_damaged[rows[0][rows[0] == rows[1]]] = True
    return is_damaged


def _sums(codes: Codes, starts: Ints) -> CountsFacts:
    """Pixels and area of rows whose text is whole; -1 where a run is negative."""
    ends = np.flatnonzero(codes < 32)  # the last character of each number
    numbers = _numbers(codes, ends)
    first = np.searchsorted(ends, starts)  # where each row's numbers begin
    num_pixels = numbers[first]
    area_px = np.zeros(len(starts), dtype=np.int64)
    is_negative = num_pixels < 0
    # Runs two apart are sums of a chain; a row's places 1, 3, 5 … are inside the mask.
    for parity in (0, 1):
        sums = np.cumsum(numbers[parity::2])
        begins = (first + 1 - parity) // 2
        lengths = np.diff(begins, append=len(sums))
        rows = np.flatnonzero(lengths)
        begin, is_inside = begins[rows], first[rows] % 2 != parity
        # Place 0 is no part of a chain, but the chain of 2, 4, 6 … goes on from its sum.
        before = np.where(is_inside & (begin == 0), 0, sums[begin - is_inside])
        runs = np.add.reduceat(sums, begin) - before * lengths[rows]
        num_pixels[rows] += runs
        area_px[rows] += np.where(is_inside, runs, 0)
        is_negative[rows] |= np.minimum.reduceat(sums, begin) < before
    return CountsFacts(np.where(is_negative, -1, num_pixels), np.where(is_negative, -1, area_px))


def _numbers(codes: Codes, ends: Ints) -> Ints:
    """The numbers of all rows whose texts are whole; `ends` are the places of last characters."""
    digits = (codes & np.uint8(31)).view(np.int8).astype(np.int16)
    goes_on = codes >> np.uint8(5)
    is_more = -goes_on.view(np.int8).astype(np.int16)  # all bits where it goes on
    values = (digits ^ 16) - 16  # bit 4 is the sign
    is_part = is_more[:-1]
    for place in (1, 2):  # the character so many places before, where it is of the same number
        upper = values[place:]
        upper += (upper * 31 + digits[:-place]) & is_part
        is_part = is_part[1:] & is_more[: -place - 1]
    # As wide as their sums: NumPy is four times slower where it must widen as it adds.
    numbers = values[ends].astype(np.int64)
    on = goes_on.view(np.bool_)
    long = np.flatnonzero(on[:-3] & on[1:-2] & on[2:-1] & ~on[3:]) + 3
    numbers[np.searchsorted(ends, long)] = _long_numbers(codes, long)
    return numbers


def _long_numbers(codes: Codes, ends: Ints) -> npt.NDArray[np.int32]:
    """The numbers that end at these places, of any length that is allowed."""
    values = (codes[ends].astype(np.int32) ^ 16) - 16
    is_part = np.ones(len(ends), dtype=bool)
    for place in range(1, MAX_NUMBER_CHARS):
        # Before the first character comes the very last one, which no other follows.
        part = codes[ends - place].astype(np.int32)
        is_part &= part >= 32
        values = np.where(is_part, values * 32 + (part & 31), values)
    return values
