"""Clusters of look-alikes: processor seconds and peak memory, and those of the plain way.

    python benchmarks/near_duplicates.py [--sizes 10000 20000 100000] [--peer-limit 10000]

The plain way cuts all 64 bits into bands once, compares every pair in every bucket, holds the
pairs, and joins them one by one. It is run up to `--peer-limit` hashes of the crowded kinds.
Each line is a process of its own; the answers must be the same.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from pixclip.near_duplicates import (
    Hashes,
    Indices,
    band_masks,
    first_of_near_duplicates,
    has_near_duplicate_elsewhere,
    near_duplicate_clusters,
)

DISTANCE = 4
OURS, PLAIN = "clusters", "clusters, plain way"


def random_hashes(num: int, generator: np.random.Generator) -> Hashes:
    """Hashes that share nothing."""
    return generator.integers(0, 2**64, num, dtype=np.uint64)


def hashes_around_one(num: int, generator: np.random.Generator) -> Hashes:
    """All within four bits of one hash: what images of nearly one colour have."""
    flips = np.uint64(1) << generator.integers(0, 64, (DISTANCE, 2 * num), dtype=np.uint64)
    return generator.permutation(np.unique(np.bitwise_xor.reduce(flips)))[:num]


def hashes_of_few_bits(num: int, generator: np.random.Generator) -> Hashes:
    """Distinct values of 17 bits: each has hundreds or thousands of others within four bits."""
    return generator.choice(1 << 17, num, replace=False).astype(np.uint64)


def hashes_sharing_bits(num: int, generator: np.random.Generator) -> Hashes:
    """A tenth shares half of its bits without being alike, the others share nothing."""
    hashes = random_hashes(num, generator)
    hashes[::10] &= np.uint64(2**32 - 1)
    return hashes


def plain_clusters(hashes: Hashes, max_distance: int) -> Indices:
    """The peer: as this project did it before buckets were cut again."""
    kept = 1 if len(hashes) < 10_000 else 2
    found = [np.empty((0, 2), dtype=np.int64)]
    for mask in band_masks(range(64), max_distance, kept):
        order = np.argsort(hashes & mask, kind="stable")
        keys, values = (hashes & mask)[order], hashes[order]
        starts = np.arange(len(order))
        for lag in range(1, len(order)):
            starts = starts[starts + lag < len(order)]
            starts = starts[keys[starts] == keys[starts + lag]]
            if not len(starts):
                break
            near = np.bitwise_count(values[starts] ^ values[starts + lag]) <= max_distance
            pairs = np.stack([order[starts[near]], order[starts[near] + lag]], axis=1)
            found.append(np.sort(pairs, axis=1))
    parent = list(range(len(hashes)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for left, right in np.unique(np.concatenate(found), axis=0).tolist():
        left, right = root(left), root(right)
        parent[max(left, right)] = min(left, right)
    return np.array([root(index) for index in range(len(hashes))])


def labelled(hashes: Hashes, max_distance: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Look-alikes under another label, of three that are spread at random."""
    labels = np.random.default_rng(1).integers(0, 3, len(hashes))
    return has_near_duplicate_elsewhere(hashes, labels, max_distance)


KINDS = (hashes_around_one, hashes_of_few_bits, hashes_sharing_bits, random_hashes)
WAYS: dict[str, Callable[[Hashes, int], np.ndarray[tuple[int], np.dtype[np.generic]]]] = {
    OURS: near_duplicate_clusters,
    PLAIN: plain_clusters,
    "first of look-alikes": first_of_near_duplicates,
    "look-alikes elsewhere": labelled,
}


def measure(kind: str, way: str, num: int) -> dict[str, float | str]:
    """Processor seconds and the growth of peak memory, in this process."""
    make = next(make for make in KINDS if make.__name__ == kind)
    hashes = make(num, np.random.default_rng(0))
    WAYS[way](hashes[:1000], DISTANCE)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    answer = WAYS[way](hashes, DISTANCE)
    return {
        "cpu_s": round(time.process_time() - started, 2),
        "mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024),
        "answer": hashlib.sha256(answer.tobytes()).hexdigest(),
    }


def main() -> None:
    """Print a line for each kind of hashes, number and way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 20_000, 100_000])
    parser.add_argument("--peer-limit", type=int, default=10_000)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, way, num = options.one
        sys.stdout.write(json.dumps(measure(kind, way, int(num))))
        return
    sys.stdout.write(f"{'hashes':>9} {'kind':22}{'way':24}{'CPU s':>9}{'MiB':>7}\n")
    for num in options.sizes:
        for make in KINDS:
            compare_ways(num, make.__name__, options.peer_limit)


def compare_ways(num: int, kind: str, peer_limit: int) -> None:
    """Run every way that can do it; the two ways to clusters must agree."""
    answers = {}
    for way in WAYS:
        if way == PLAIN and num > peer_limit and kind != random_hashes.__name__:
            continue
        command = [sys.executable, __file__, "--one", kind, way, str(num)]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        answers[way] = told["answer"]
        line = f"{num:>9,} {kind:22}{way:24}{told['cpu_s']:>9.2f}{told['mib']:>7}\n"
        sys.stdout.write(line)
        sys.stdout.flush()
    assert answers.get(PLAIN, answers[OURS]) == answers[OURS], (num, kind)


if __name__ == "__main__":
    main()
