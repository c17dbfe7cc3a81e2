"""Shards are those of the webdataset package, byte for byte, and same samples give same bytes."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import InputError
from components.core.shards import read_member, write_shard

KEYS = st.text("aé/7 ", min_size=1, max_size=200)  # also such as need an extended header
SAMPLES = st.lists(
    st.fixed_dictionaries(
        {"__key__": KEYS, "jpg": st.binary(max_size=2000), "json": st.dictionaries(KEYS, KEYS)},
        optional={"1.png": st.binary(max_size=600)},
    ),
    max_size=12,
)


def by_webdataset(path: Path, samples: list[dict[str, Any]]) -> bytes:
    from webdataset import TarWriter

    with TarWriter(str(path), encoder=False, mtime=0, user="root", group="root") as writer:
        for sample in samples:
            text = json.dumps(sample["json"], sort_keys=True, ensure_ascii=False)
            writer.write({**sample, "json": text.encode()})
    return path.read_bytes()


@settings(deadline=None, max_examples=30)  # the first one imports webdataset
@given(SAMPLES)
def test_a_shard_has_the_bytes_that_webdataset_writes(samples: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as folder:
        shard = Path(folder) / "new" / "00000.tar"
        write_shard(shard, samples)
        assert shard.read_bytes() == by_webdataset(Path(folder) / "theirs.tar", samples)
        assert [path.name for path in shard.parent.iterdir()] == ["00000.tar"]


def test_a_member_is_read_from_the_middle_of_a_shard(tmp_path: Path) -> None:
    samples = [{"__key__": str(n), "jpg": bytes([n]) * n, "json": {"n": n}} for n in range(9)]
    write_shard(tmp_path / "00000.tar", samples)
    assert read_member(tmp_path / "00000.tar", "7.jpg") == b"\x07" * 7
    with pytest.raises(InputError, match=r"no member 9\.jpg"):
        read_member(tmp_path / "00000.tar", "9.jpg")
    with pytest.raises(InputError, match="is missing"):
        read_member(tmp_path / "00001.tar", "7.jpg")
