from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pixclip.data.config import DataConfig
from pixclip.data.order import EpochOrder, ImageIndex


def make_index(shards: list[list[int]]) -> ImageIndex:
    """An index of images by shard, given by their numbers of regions."""
    counts = [count for shard in shards for count in shard]
    return ImageIndex(
        tuple(f"train/{number:05d}.tar" for number in range(len(shards))),
        np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard) for shard in shards]),
        np.arange(len(counts), dtype=np.uint64),
        np.array(counts, dtype=np.uint16),
    )


SHARDS = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=6), min_size=1, max_size=7)
CONFIGS = st.builds(
    DataConfig,
    seed=st.integers(0, 9),
    shuffle_shards=st.integers(1, 4),
    regions_per_image=st.integers(1, 4),
)


@settings(max_examples=30, deadline=None)
@given(SHARDS, CONFIGS, st.integers(0, 5))
def test_every_region_is_in_an_epoch_once(shards, config, epoch):
    index = make_index(shards)
    images, regions = EpochOrder(index, config, config.regions_per_image).rows(
        epoch, 0, index.num_regions
    )
    expected = {(i, r) for i, count in enumerate(index.num_regions_I) for r in range(count)}
    assert sorted(zip(images.tolist(), regions.tolist(), strict=True)) == sorted(expected)


@settings(max_examples=30, deadline=None)
@given(SHARDS, CONFIGS, st.integers(1, 4))
def test_an_image_has_no_more_regions_in_an_epoch_than_are_wanted(shards, config, most):
    index = make_index(shards)
    order = EpochOrder(index, config, config.regions_per_image, most)
    images, regions = order.rows(0, 0, order.num_rows)
    assert len(set(zip(images.tolist(), regions.tolist(), strict=True))) == order.num_rows
    counts = np.bincount(images, minlength=len(index.num_regions_I))
    assert counts.tolist() == np.minimum(index.num_regions_I, most).tolist()
    half = order.num_rows // 2
    later = order.rows(0, half, order.num_rows)
    assert np.array_equal(np.stack(later), np.stack([images, regions])[:, half:])


def test_every_region_of_a_rich_image_comes_in_some_epoch():
    order = EpochOrder(make_index([[12, 3]]), DataConfig(), per_epoch=4)
    seen = [order.rows(epoch, 0, order.num_rows) for epoch in range(16)]
    rich = [set(regions[images == 0].tolist()) for images, regions in seen]
    assert {len(one) for one in rich} == {4}
    assert set.union(*rich) == set(range(12))


@settings(max_examples=30, deadline=None)
@given(SHARDS, CONFIGS, st.data())
def test_any_part_is_the_part_of_the_whole(shards, config, data):
    index = make_index(shards)
    start = data.draw(st.integers(0, index.num_regions - 1))
    stop = data.draw(st.integers(start + 1, index.num_regions))
    whole = EpochOrder(index, config, config.regions_per_image).rows(3, 0, index.num_regions)
    part = EpochOrder(index, config, config.regions_per_image).rows(3, start, stop)
    for column, expected in zip(part, whole, strict=True):
        assert np.array_equal(column, expected[start:stop])


@settings(max_examples=30, deadline=None)
@given(SHARDS, CONFIGS)
def test_regions_of_an_image_come_in_runs_of_the_wanted_length(shards, config):
    index = make_index(shards)
    images, _ = EpochOrder(index, config, config.regions_per_image).rows(0, 0, index.num_regions)
    changes = np.flatnonzero(np.diff(images, prepend=-1, append=-1))
    runs = [(images[start], stop - start) for start, stop in pairwise(changes.tolist())]
    size = config.regions_per_image
    for image, count in enumerate(index.num_regions_I.tolist()):
        lengths = [length for found, length in runs if found == image]
        # Two runs of one image may fall beside each other.
        assert sum(lengths) == count
        assert max(lengths) >= min(size, count)


@settings(max_examples=30, deadline=None)
@given(SHARDS, CONFIGS)
def test_a_window_has_the_regions_of_its_shards_alone(shards, config):
    index = make_index(shards)
    images, _ = EpochOrder(index, config, config.regions_per_image).rows(0, 0, index.num_regions)
    windows: list[set[int]] = [set()]
    left = 0
    for shard in index.shard_I[images].tolist():
        if left == 0 and len(windows[-1]) == config.shuffle_shards:
            windows.append(set())
        if shard not in windows[-1]:
            windows[-1].add(shard)
            left += sum(shards[shard])
        left -= 1
    seen = [shard for window in windows for shard in window]
    assert sorted(seen) == list(range(len(shards)))


def test_siblings_that_come_together_change_with_the_epoch():
    order = EpochOrder(make_index([[4] * 20]), DataConfig(), per_image=2)
    pairs = []
    for epoch in range(2):
        images, regions = order.rows(epoch, 0, 80)
        found = zip(images[::2].tolist(), regions.reshape(-1, 2).tolist(), strict=True)
        pairs.append({(image, tuple(sorted(pair))) for image, pair in found})
    assert pairs[0] != pairs[1]
