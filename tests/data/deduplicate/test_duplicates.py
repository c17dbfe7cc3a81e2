import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.deduplicate.manifests import ImageIndex, kept_images

NEAR_BY = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 3, 7, 15, 31, 2**63, 2**63 + 1])


def index_of(rows):
    """Rows are (content, hash, is_benchmark); equal content has equal bytes."""
    sha256 = b"".join(int(content).to_bytes(32, "big") for content, _, _ in rows)
    return ImageIndex(
        np.frombuffer(sha256, dtype="V32"),
        np.array([phash for _, phash, _ in rows], dtype=np.uint64),
        np.array([is_benchmark for *_, is_benchmark in rows], dtype=bool),
    )


def kept(rows, max_distance=2):
    return kept_images(index_of(rows), max_distance).tolist()


FAR = 0xFFFF


def test_the_first_of_equal_images_stays():
    assert kept([(1, 0, False), (2, FAR, False), (1, 0, False), (1, 0, False)]) == [0, 1, 0, 0]


def test_the_first_of_near_images_stays():
    assert kept([(1, 0b0011, False), (2, 0b0000, False), (3, 0b0111, False)]) == [0, 0, 0]


def test_images_beyond_the_distance_both_stay():
    assert kept([(1, 0b000, False), (2, 0b111, False)]) == [0, 1]


def test_what_is_dropped_takes_nothing_with_it():
    """0 and 15 are no neighbours; only 3, between them, goes."""
    assert kept([(1, 0, False), (2, 3, False), (3, 15, False)]) == [0, 0, 2]


def test_a_benchmark_image_stays_although_its_twin_came_first():
    assert kept([(1, 0, False), (1, 0, True), (2, 1, False)]) == [1, 1, 1]


def test_among_benchmark_images_the_first_stays():
    assert kept([(1, 0, True), (2, 1, True)]) == [0, 0]


def test_minus_one_looks_at_bytes_only():
    assert kept([(1, 0, False), (2, 0, False), (1, 0, False)], max_distance=-1) == [0, 1, 0]


def test_zero_takes_equal_hashes_only():
    assert kept([(1, 0, False), (2, 1, False), (3, 0, False)], max_distance=0) == [0, 1, 0]


def test_no_images_are_no_problem():
    assert kept([]) == []


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NEAR_BY, st.booleans()), max_size=40), st.integers(0, 5))
def test_what_stays_is_apart_and_what_goes_is_near_what_stays(images, max_distance):
    rows = [(phash, phash, is_benchmark) for phash, is_benchmark in images]
    result = kept(rows, max_distance)
    stays = [position for position, stand_in in enumerate(result) if position == stand_in]
    for position, stand_in in enumerate(result):
        assert result[stand_in] == stand_in
        assert (images[position][0] ^ images[stand_in][0]).bit_count() <= max_distance
        assert images[stand_in][1] or not images[position][1], "a benchmark image went"
    for first in stays:
        for second in stays:
            apart = (images[first][0] ^ images[second][0]).bit_count() > max_distance
            assert apart or first == second


@settings(max_examples=50, deadline=None)
@given(st.lists(NEAR_BY, max_size=30), st.integers(0, 5))
def test_the_result_is_that_of_looking_at_one_image_after_the_other(hashes, max_distance):
    stays: list[int] = []
    expected = []
    for position, value in enumerate(hashes):
        near = [old for old in stays if (hashes[old] ^ value).bit_count() <= max_distance]
        if not near:
            stays.append(position)
        expected.append(near[0] if near else position)
    assert kept([(value, value, False) for value in hashes], max_distance) == expected
