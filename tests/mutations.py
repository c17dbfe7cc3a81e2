"""Damage and malice for files of any kind."""

import random

PIECES = (
    b"",
    b"\0",
    b"\xff" * 8,
    b"99999999999999999999",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[" * 2000,
    b"{}",
    b'"\\ud800"',
    b"true",
)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content with a bit flipped, a number or piece replaced, a part lost or repeated."""
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        start = draw.randrange(len(damaged) + 1)
        stop = min(len(damaged), start + draw.choice((1, 1, 2, 8, 64)))
        kind = draw.randrange(5)
        if kind == 0 and start < len(damaged):
            damaged[start] ^= 1 << draw.randrange(8)
        elif kind == 1:
            damaged[start:stop] = draw.choice(PIECES)
        elif kind == 2:
            del damaged[start:stop]
        elif kind == 3:
            damaged[start:start] = damaged[start:stop] * draw.choice((1, 3))
        else:
            numbers = [at for at, byte in enumerate(damaged) if 48 <= byte < 58]
            at = draw.choice(numbers) if numbers else 0
            damaged[at : at + 1] = draw.choice(PIECES)
    if draw.random() < 0.1:
        del damaged[draw.randrange(len(damaged) + 1) :]
    return bytes(damaged)
