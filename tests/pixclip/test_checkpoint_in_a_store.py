"""A checkpoint in a store is fetched once, checked, and fetched again where the copy is damaged."""

import fsspec
import pytest
import torch

import pixclip
from pixclip.checkpoint import CheckpointError

TEXTS = ["a b c", "d e f g h i j"]


@pytest.fixture
def store(folder, tmp_path, monkeypatch):
    """The checkpoint in a store that fsspec reads, and an empty cache."""
    monkeypatch.setenv("PIXCLIP_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/models/first", recursive=True)
    yield memory
    memory.rm("/models", recursive=True)


def test_a_checkpoint_in_a_store_is_fetched_once(store, folder, tmp_path):
    loaded = pixclip.load("memory://models/first")
    assert torch.equal(loaded.encode_text(TEXTS), pixclip.load(folder).encode_text(TEXTS))
    (kept,) = (tmp_path / "cache").iterdir()
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    pixclip.load("memory://models/first")
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*")} == before


@pytest.mark.parametrize(
    "name", ["model.safetensors", "checksums.json", "text_tower/tokenizer.json"]
)
def test_a_damaged_copy_is_fetched_again(store, folder, tmp_path, name):
    expected = pixclip.load("memory://models/first").encode_text(TEXTS)
    (kept,) = (tmp_path / "cache").iterdir()
    (kept / name).write_bytes(b"damaged")
    assert torch.equal(pixclip.load("memory://models/first").encode_text(TEXTS), expected)
    assert list((tmp_path / "cache").iterdir()) == [kept]
    assert (kept / name).read_bytes() == (folder / name).read_bytes()


def test_a_damaged_copy_stays_where_the_store_is_damaged_too(store, tmp_path):
    pixclip.load("memory://models/first")
    (kept,) = (tmp_path / "cache").iterdir()
    (kept / "notes.json").write_bytes(b"{}")
    store.pipe_file("/models/first/notes.json", b"{}")
    with pytest.raises(CheckpointError, match=r"notes\.json is damaged"):
        pixclip.load("memory://models/first")
    assert list((tmp_path / "cache").iterdir()) == [kept]


def test_a_store_without_a_checkpoint_or_with_a_damaged_one_leaves_no_copy(store, tmp_path):
    with pytest.raises(CheckpointError, match="memory://models/none is no checkpoint"):
        pixclip.load("memory://models/none")
    store.pipe_file("/models/first/notes.json", b"{}")
    with pytest.raises(CheckpointError, match=r"notes\.json is damaged"):
        pixclip.load("memory://models/first")
    assert not list((tmp_path / "cache").iterdir())
