"""Which image goes to which split: by the source's mark, else by a seeded hash of the image."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.core.digests import sha256_text
from components.core.errors import GateError
from components.data.pack.images import (
    DIGEST_BYTES,
    Digests,
    ImageTable,
    Indices,
    digests_of,
    hex_of,
)
from pixclip.data.layout import BENCHMARK, SPLITS, TRAIN, VAL
from pixclip.near_duplicates import near_duplicate_clusters


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How undecided images are divided."""

    seed: int
    val_share: float
    benchmark_regions: int
    benchmark_max_share: float
    near_duplicate_distance: int


def assign_splits(images: ImageTable, rule: SplitRule) -> npt.NDArray[np.int8]:
    """The split of every image, as its place in `SPLITS`; images that look alike share one.

    An image whose look-alike is marked for the benchmark joins it. If the source marks no
    benchmark, whole clusters of undecided images are drawn for it.

    Raises:
        GateError: a training image looks like one of the benchmark.
    """
    # The smallest image id of a cluster leads it: images are in the order of their ids.
    leaders = near_duplicate_clusters(images.phash, rule.near_duplicate_distance)
    is_train, is_benchmark = (images.marked == split.encode() for split in (TRAIN, BENCHMARK))
    has_train, has_benchmark = np.zeros((2, len(images)), dtype=bool)  # of a leader's cluster
    has_train[leaders[is_train]] = has_benchmark[leaders[is_benchmark]] = True
    _require_separate_benchmark(int((is_train & has_benchmark[leaders]).sum()))
    is_leader = leaders == np.arange(len(images))
    if not is_benchmark.any():
        undecided = np.flatnonzero(is_leader & ~has_train)
        sizes = np.zeros(len(images), dtype=np.int64)
        np.add.at(sizes, leaders, images.num_regions)
        drawn = _draw_benchmark(images.digests[undecided], sizes[undecided], rule)
        has_benchmark[undecided[drawn]] = True
    splits = np.where(has_benchmark, SPLITS.index(BENCHMARK), SPLITS.index(TRAIN)).astype(np.int8)
    others = np.flatnonzero(is_leader & ~has_benchmark)
    splits[others[_is_val(images.digests[others], rule)]] = SPLITS.index(VAL)
    return splits[leaders]


def shuffle_rank(seed: int, purpose: str, sha256: str) -> str:
    """A key that sorts images into an order which looks random and is always the same."""
    return sha256_text(f"{purpose}:{seed}:{sha256}")


def shuffle_ranks(seed: int, purpose: str, digests: Digests) -> Digests:
    """The keys of many images, as bytes, which sort like the texts."""
    return digests_of(
        shuffle_rank(seed, purpose, name)
        for start in range(0, len(digests), 4096)
        for name in hex_of(digests[start : start + 4096])
    )


def _require_separate_benchmark(num_leaks: int) -> None:
    if num_leaks:
        raise GateError(
            f"pack: {num_leaks} training image(s) look like images of the benchmark",
            Counter({"train_image_looks_like_benchmark": num_leaks}),
            "Run deduplicate with a distance of at least pack.near_duplicate_distance",
        )


def _draw_benchmark(leaders: Digests, sizes: Indices, rule: SplitRule) -> Indices:
    """The places of the clusters that are drawn, of sizes in regions."""
    budget = min(rule.benchmark_regions, int(rule.benchmark_max_share * int(sizes.sum())))
    drawn = []
    for place in np.argsort(shuffle_ranks(rule.seed, BENCHMARK, leaders)):
        if sizes[place] <= budget:
            drawn.append(place)
            budget -= int(sizes[place])
    return np.array(drawn, dtype=np.int64)


def _is_val(leaders: Digests, rule: SplitRule) -> npt.NDArray[np.bool_]:
    ranks = shuffle_ranks(rule.seed, VAL, leaders)
    first_bits = ranks.view(">u8").reshape(-1, DIGEST_BYTES // 8)[:, 0] >> np.uint64(16)
    return np.asarray(first_bits / 2**48 < rule.val_share)
