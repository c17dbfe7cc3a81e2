import hashlib
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest

from components.core.errors import GateError
from components.data.pack import plan as pack_splits
from components.data.pack.images import ImageTable, digests_of
from components.data.pack.plan import SplitRule
from pixclip.data.layout import SPLITS

RULE = SplitRule(
    seed=0, val_share=0.2, benchmark_regions=20, benchmark_max_share=0.5, near_duplicate_distance=4
)


@dataclass(frozen=True)
class ImageEntry:
    sha256: str
    phash: int
    marked: str
    num_regions: int


def assign_splits(entries, rule):
    """Image id -> split."""
    entries = sorted(entries, key=lambda entry: entry.sha256)
    table = ImageTable(
        digests_of(entry.sha256 for entry in entries),
        np.array([entry.phash for entry in entries], dtype=np.uint64),
        np.array([entry.marked.encode() for entry in entries], dtype="S9"),
        np.array([entry.num_regions for entry in entries]),
    )
    splits = pack_splits.assign_splits(table, rule).tolist()
    return {entry.sha256: SPLITS[split] for entry, split in zip(entries, splits, strict=True)}


def entry(name: str, marked: str = "", *, phash: int | None = None, num_regions: int = 3):
    digest = hashlib.sha256(name.encode()).hexdigest()
    return ImageEntry(digest, int(digest[:16], 16) if phash is None else phash, marked, num_regions)


def regions_in(splits, entries, split):
    return sum(e.num_regions for e in entries if splits[e.sha256] == split)


def test_the_sources_own_benchmark_is_kept_and_nothing_is_drawn_beside_it():
    entries = [entry("a", "benchmark"), *(entry(f"u{i}") for i in range(50))]
    splits = assign_splits(entries, RULE)
    assert [key for key, split in splits.items() if split == "benchmark"] == [entries[0].sha256]


def test_undecided_and_training_images_give_the_stated_share_to_val():
    entries = [entry(f"i{i}", "train" if i % 2 else "") for i in range(2000)]
    splits = list(assign_splits(entries, replace(RULE, benchmark_regions=0)).values())
    assert splits.count("val") / len(splits) == pytest.approx(0.2, abs=0.03)
    assert "benchmark" not in splits


def test_a_benchmark_of_the_wanted_size_is_drawn_from_undecided_images_only():
    marked = [entry(f"t{i}", "train") for i in range(30)]
    entries = [*marked, *(entry(f"u{i}", num_regions=1 + i % 3) for i in range(30))]
    splits = assign_splits(entries, RULE)
    assert regions_in(splits, entries, "benchmark") == 20
    assert all(splits[e.sha256] != "benchmark" for e in marked)


def test_a_small_source_keeps_most_of_its_regions_for_training():
    entries = [entry(f"u{i}", num_regions=1) for i in range(30)]
    splits = assign_splits(entries, replace(RULE, benchmark_max_share=0.1))
    assert regions_in(splits, entries, "benchmark") == 3


@pytest.mark.parametrize("seed", range(5))
def test_images_that_look_alike_share_a_split(seed):
    far_apart = [random.Random(seed * 60 + i).getrandbits(64) for i in range(60)]
    entries = [entry(f"{h}-{twin}", phash=h ^ twin) for h in far_apart for twin in range(2)]
    splits = assign_splits(entries, replace(RULE, seed=seed))
    for first, second in zip(entries[::2], entries[1::2], strict=True):
        assert splits[first.sha256] == splits[second.sha256]
    assert len(set(splits.values())) == 3


def test_an_undecided_look_alike_of_the_benchmark_joins_it():
    entries = [entry("a", "benchmark", phash=0), entry("b", phash=1), entry("c", phash=2**60 - 1)]
    splits = assign_splits(entries, RULE)
    assert splits[entries[1].sha256] == "benchmark"
    assert splits[entries[2].sha256] != "benchmark"


def test_a_training_image_that_looks_like_the_benchmark_is_refused():
    entries = [entry("a", "benchmark", phash=0), entry("b", "train", phash=0b1111)]
    with pytest.raises(GateError, match=r"1 training image.*deduplicate"):
        assign_splits(entries, RULE)


def test_the_order_of_the_images_does_not_matter_but_the_seed_does():
    twins = [entry(f"twin {i}", phash=random.Random(i % 10).getrandbits(64)) for i in range(30)]
    entries = [*twins, *(entry(f"u{i}") for i in range(100))]
    shuffled = random.Random(1).sample(entries, len(entries))
    assert assign_splits(entries, RULE) == assign_splits(shuffled, RULE)
    assert assign_splits(entries, RULE) != assign_splits(entries, replace(RULE, seed=1))
