"""Damages files as disks, copies and power failures do: seeded, to be tried in numbers."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

NUM_MUTATIONS = int(os.environ.get("DFSC_TUNE_MUTATIONS", "24"))
"""How many of each file a test tries; a longer run by hand asks for more."""


def mutations(content: bytes, seed: int, num: int = NUM_MUTATIONS) -> Iterator[tuple[str, bytes]]:
    """A name and the damaged content, `num` times; none is the content itself."""
    rng = random.Random(seed)
    kinds = (_cut, _zeroed, _repeated, _swapped, _scattered, _replaced)
    made = 0
    while made < num:
        mutate = kinds[made % len(kinds)]
        damaged = mutate(content, rng)
        if damaged != content:
            yield f"{mutate.__name__[1:]} {made}", damaged
            made += 1


def _span(content: bytes, rng: random.Random) -> tuple[int, int]:
    """Start and end of a piece whose length is as often tiny as large."""
    length = min(int(2 ** rng.uniform(0, 17)), max(len(content) // 2, 1))
    start = rng.randrange(len(content) - length + 1)
    return start, start + length


def _cut(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return rng.choice((content[:start], content[:start] + content[end:]))


def _zeroed(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + bytes(end - start) + content[end:]


def _repeated(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:end] + content[start:]


def _swapped(content: bytes, rng: random.Random) -> bytes:
    (a, b), (c, d) = sorted((_span(content, rng), _span(content, rng)))
    return (
        content if c < b else content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]
    )


def _scattered(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 9)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _replaced(content: bytes, rng: random.Random) -> bytes:
    others = (b"", b"\n", b"null", b"[]", b"{}", b"PK\x05\x06" + bytes(18), bytes(len(content)))
    return rng.choice((*others, rng.randbytes(len(content))))
