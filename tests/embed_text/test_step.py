"""The step `embed_text`: every distinct caption once, resumable, in bounded memory."""

import errno
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from components.embed_text import parts
from components.embed_text.captions import SortedCaptions
from components.embed_text.settings import EmbedTextSettings
from components.embed_text.tower import open_tower
from components.kernel.errors import InputError
from components.kernel.run import run_step
from components.kernel.step import load_step
from pixclip.checkpoint import save_checkpoint
from pixclip.text.embeddings import TextEmbeddings, caption_hash
from pixclip.text.encoder import TextEncoder
from pixclip.text.tower_digest import require_same_tower
from tests.language_models import save_language_model, save_text_tower_of
from tests.packed import make_longgrit
from tests.pixclip.evaluation.models import tiny_model

STEP = load_step("embed_text")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    torch.set_num_threads(1)
    base = save_language_model(folder / "base")
    tower = save_text_tower_of(base, folder / "text_tower", max_tokens=24)
    return {"longgrit": make_longgrit(folder / "longgrit"), "text_tower": tower}


def _texts(longgrit):
    texts = set()
    for row in pq.read_table(longgrit / "manifest.parquet").to_pylist():
        texts |= {row["long_caption"], row["short_caption"]}
        with tarfile.open(longgrit / row["shard"]) as tar:
            texts.add(json.load(tar.extractfile(f"{row['key']}.json"))["caption"])
    return sorted(texts)


def test_every_long_short_and_image_caption_has_the_vector_the_tower_gives(inputs, tmp_path):
    receipt = run_step(
        STEP, inputs, {"text_embeddings": tmp_path / "embeddings"}, {"captions_per_part": 20}
    )
    texts = _texts(inputs["longgrit"])
    embeddings = TextEmbeddings.open(tmp_path / "embeddings")
    assert len(embeddings) == len(texts) == receipt.metrics["num_captions"]
    assert len(list((tmp_path / "embeddings").glob("*.safetensors"))) > 2
    encoder = TextEncoder.open(inputs["text_tower"])
    found = embeddings.lookup([caption_hash(text) for text in texts])
    assert torch.equal(found, encoder.encode(texts))
    tokens = encoder.tokenize(texts)
    assert receipt.metrics["num_tokens"] == sum(len(caption.ids) for caption in tokens)
    assert receipt.metrics["num_truncated"] == sum(caption.is_truncated for caption in tokens) > 0


def test_the_embeddings_say_which_text_tower_made_them(inputs, tmp_path):
    run_step(STEP, inputs, {"text_embeddings": tmp_path / "embeddings"}, {})
    save_checkpoint(tmp_path / "model", tiny_model(1), text_tower=inputs["text_tower"])
    require_same_tower(tmp_path / "embeddings", tmp_path / "model")


def test_a_killed_run_embeds_no_part_twice(inputs, tmp_path, monkeypatch):
    written = []
    plain = parts.write_part

    def write(folder, number, vectors):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(number)
        plain(folder, number, vectors)

    outputs, settings = {"text_embeddings": tmp_path / "embeddings"}, {"captions_per_part": 20}
    monkeypatch.setattr(parts, "write_part", write)
    with pytest.raises(KeyboardInterrupt):
        run_step(STEP, inputs, outputs, settings)
    monkeypatch.setattr(parts, "write_part", lambda *a: (written.append(a[1]), plain(*a)))
    run_step(STEP, inputs, outputs, settings)
    assert written == sorted(set(written))
    assert len(TextEmbeddings.open(tmp_path / "embeddings")) == len(_texts(inputs["longgrit"]))


def test_captions_are_the_same_whatever_the_number_of_parts(inputs, tmp_path):
    found = []
    for size in (5, 1000):
        captions = SortedCaptions(tmp_path / str(size), inputs["longgrit"], size)
        captions.sort()
        found.append([item for n in range(captions.num_parts) for item in captions.part(n).items()])
    assert found[0] == found[1] == sorted(found[0])
    assert {text for _, text in found[0]} == set(_texts(inputs["longgrit"]))


def test_a_disk_that_is_full_at_the_end_of_sorting_leaves_no_false_end(
    inputs, tmp_path, monkeypatch
):
    def full_disk(path: Path, text: str, **_options: str) -> None:
        path.open("w").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    captions = SortedCaptions(tmp_path / "captions", inputs["longgrit"], 20)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full_disk)
        with pytest.raises(OSError, match="No space left"):
            captions.sort()
    captions.sort()
    assert captions.num_texts >= len(_texts(inputs["longgrit"]))


def test_a_run_that_goes_on_on_another_device_keeps_its_precision(inputs, tmp_path, caplog):
    tower, settings, texts = inputs["text_tower"], EmbedTextSettings(), ["a red car"]
    for first, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        (tmp_path / "precision").write_text(first)
        found = open_tower(tower, settings, tmp_path).encode(texts)
        assert torch.equal(found, TextEncoder.open(tower, dtype=dtype).encode(texts))
        assert ("goes on in bf16" in caplog.text) == (first == "bf16")


def test_the_first_attempt_decides_the_precision_of_a_run(inputs, tmp_path):
    open_tower(inputs["text_tower"], EmbedTextSettings(device="cpu"), tmp_path)
    assert (tmp_path / "precision").read_text() == "fp32"


def test_a_folder_that_is_no_text_tower_is_refused(inputs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"text_tower cannot be opened.*no text tower"):
        run_step(
            STEP,
            {**inputs, "text_tower": tmp_path / "empty"},
            {"text_embeddings": tmp_path / "embeddings"},
            {},
        )


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"caption_hash": "no hash"}, "caption_hash_well_formed"),
        ({"row": 10**6}, "vector_is_there"),
        ({"norm": float("nan")}, "vector_not_zero"),
        ({"num_tokens": 0}, "has_a_token"),
    ],
)
def test_the_contract_sees_a_damaged_index(change, rule, tmp_path):
    from data_contracts.engine import check_table
    from data_contracts.text_embeddings import SCHEMA

    parts.write_part(tmp_path, 0, torch.ones(2, 4))
    rows = [
        {
            "caption_hash": caption_hash(str(row)),
            "part": 0,
            "row": row,
            "num_tokens": 3,
            "is_truncated": False,
            "norm": 2.0,
        }
        for row in range(2)
    ]
    index = tmp_path / "index.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), index)
    assert not check_table("text_embeddings", tmp_path).failures
    rows[1] |= change
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), index)
    failures = [str(failure) for failure in check_table("text_embeddings", tmp_path).failures]
    assert any(rule in failure for failure in failures), failures
