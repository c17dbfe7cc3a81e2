"""The store of cached text embeddings."""

import hashlib
import pickle
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from pixclip.text.embeddings import MissingCaption, TextEmbeddings, caption_hash, write_part
from tests.mutations import mutated

TEXTS = [f"caption number {n}" for n in range(50)]


@pytest.fixture
def store(tmp_path):
    """Fifty captions over two parts; the vector of caption n is full of n."""
    keys = sorted((caption_hash(text), n) for n, text in enumerate(TEXTS))
    rows = []
    for part, chosen in enumerate((keys[:20], keys[20:])):
        vectors = torch.tensor([[float(n)] * 4 for _, n in chosen])
        write_part(tmp_path, part, vectors)
        rows += [
            {"caption_hash": key, "part": part, "row": row} for row, (key, _) in enumerate(chosen)
        ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "index.parquet")
    return tmp_path


def test_the_hash_is_that_of_the_nfc_text():
    assert caption_hash("cafe\u0301") == hashlib.sha256("caf\u00e9".encode()).hexdigest()


def test_half_a_character_has_no_hash():
    with pytest.raises(ValueError, match="half a character; repair it"):
        caption_hash("a \ud800")


@pytest.mark.parametrize("embed_dim", [None, 4])
def test_a_store_without_vectors_is_refused(store, embed_dim):
    pq.write_table(pq.read_table(store / "index.parquet")[:0], store / "index.parquet")
    with pytest.raises(ValueError, match=r"holds no vector at all.*embed-text"):
        TextEmbeddings.open(store, embed_dim)


def test_vectors_are_found_in_the_order_asked_also_twice(store):
    embeddings = TextEmbeddings.open(store)
    wanted = [7, 49, 0, 7, 23]
    found = embeddings.lookup([caption_hash(TEXTS[n]) for n in wanted])
    assert found.dtype == torch.float32
    assert found.tolist() == [[float(n)] * 4 for n in wanted]
    assert len(embeddings) == 50
    assert embeddings.dim == 4


def test_a_missing_caption_is_named_with_what_to_do(store):
    missing = caption_hash("never embedded")
    with pytest.raises(MissingCaption, match=rf"1 of 2 captions.*{missing}.*embed-text` again"):
        TextEmbeddings.open(store).lookup([caption_hash(TEXTS[0]), missing])


def test_a_store_goes_to_other_processes_as_its_folder(store):
    packed = pickle.dumps(TextEmbeddings.open(store))
    assert len(packed) < 1000
    assert len(pickle.loads(packed)) == 50


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"index.parquet is missing.*embed-text"):
        TextEmbeddings.open(tmp_path)


def test_an_index_that_points_past_a_part_is_refused(store):
    write_part(store, 1, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="past the end of a part"):
        TextEmbeddings.open(store)


@pytest.mark.parametrize("column", ["part", "row"])
def test_an_index_that_points_before_a_part_is_refused(store, column):
    rows = pq.read_table(store / "index.parquet").to_pylist()
    rows[3][column] = -1
    pq.write_table(pa.Table.from_pylist(rows), store / "index.parquet")
    with pytest.raises(ValueError, match="before its start"):
        TextEmbeddings.open(store)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(30, 1), torch.zeros(30), torch.zeros(30, 4, 4), torch.zeros(30, 4).to(torch.int8)],
    ids=["another width", "no width", "too many axes", "whole numbers"],
)
def test_a_part_that_is_no_table_like_the_others_is_refused(store, tensor):
    save_file({"embeddings": tensor}, store / "00001.safetensors")
    with pytest.raises(ValueError, match="no tables of numbers of one width"):
        TextEmbeddings.open(store)


def test_a_damaged_part_is_refused(store):
    (store / "00001.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        TextEmbeddings.open(store)


def test_an_index_out_of_order_is_refused(store):
    table = pq.read_table(store / "index.parquet")
    pq.write_table(table.take(list(reversed(range(50)))), store / "index.parquet")
    with pytest.raises(ValueError, match="order"):
        TextEmbeddings.open(store)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"caption_hash": "zz" * 32}, "a hash is no SHA-256"),
        ({"caption_hash": "ab"}, "a hash is no SHA-256"),
        ({"caption_hash": None}, "cannot be read"),
        ({"part": 2**31 - 1}, "names 2147483648 parts"),
        ({"part": 7}, r"00002\.safetensors cannot be read"),
        ({"part": -1}, "before its start"),
        ({"row": 10**6}, "past the end of a part"),
    ],
)
def test_an_index_that_makes_no_sense_is_refused_with_what_to_do(store, row, message):
    rows = pq.read_table(store / "index.parquet").to_pylist()
    rows[-1] |= row
    pq.write_table(pa.Table.from_pylist(rows), store / "index.parquet")
    with pytest.raises(ValueError, match=message) as told:
        TextEmbeddings.open(store)
    assert "remove the folder and run `pixclip embed-text` again" in str(told.value)


def test_damage_in_any_file_of_a_store_is_told_by_its_folder_or_found_as_a_missing_caption(store):
    """Bits flipped, parts lost and repeated: 300 stores."""
    draw, outcomes = random.Random(0), set()
    whole = {path: path.read_bytes() for path in sorted(store.iterdir())}
    for turn in range(300):
        path = list(whole)[turn % len(whole)]
        path.write_bytes(mutated(whole[path], draw))
        try:
            TextEmbeddings.open(store).lookup([caption_hash(text) for text in TEXTS])
            outcomes.add("opened")
        except (ValueError, MissingCaption) as error:
            outcomes.add("refused" if str(store) in str(error) else f"{path.name}: {error}")
        path.write_bytes(whole[path])
    assert outcomes == {"opened", "refused"}
