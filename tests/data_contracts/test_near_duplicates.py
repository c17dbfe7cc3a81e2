"""Look-alikes across labels, against comparing everything with everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts import near_duplicates
from data_contracts.near_duplicates import near_in_other_label

HASHES = st.lists(
    st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=8)), min_size=1, max_size=24
)


@given(items=HASHES, distance=st.integers(0, 8))
@settings(max_examples=100, deadline=None)
def test_the_bands_find_what_comparing_all_pairs_finds(
    items: list[tuple[int, set[int]]], distance: int
) -> None:
    hashes = np.array([sum(1 << bit for bit in bits) for _, bits in items], dtype=np.uint64)
    labels = np.array([label for label, _ in items])
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance
    expected = (near & (labels[:, None] != labels[None])).any(axis=1)
    assert near_in_other_label(hashes, labels, distance).tolist() == expected.tolist()


def test_small_batches_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.arange(300, dtype=np.uint64)
    labels = np.arange(300) % 2
    whole = near_in_other_label(hashes, labels, 2)
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 7)
    assert near_in_other_label(hashes, labels, 2).tolist() == whole.tolist()
    assert whole.all()
