"""The step `embed_text`: every distinct caption once, resumable, in bounded memory."""

import errno
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from components.core.errors import InputError
from components.core.run import run_step
from components.core.step import load_step
from components.training.embed_text.parts import SortedCaptions, embed_part, sort_captions
from components.training.embed_text.rank import EmbedJob, open_tower, whole_parts
from pixclip.checkpoint import save_checkpoint
from pixclip.text.embeddings import TextEmbeddings, caption_hash, require_same_tower, write_part
from pixclip.text.encoder import TextEncoder
from tests.language_models import save_language_model, save_text_tower_of
from tests.packed import make_longgrit
from tests.pixclip.data.world import draw_scene, write_longgrit
from tests.pixclip.evaluation.models import tiny_model

STEP = load_step("embed_text")
ROOT = Path(__file__).parents[3]


def embed_job(tower: Path, work: Path, device: str = "auto") -> EmbedJob:
    """A job of one part on a tower whose digest is 0123."""
    return EmbedJob(
        text_tower=str(tower),
        digest="0123",
        captions=str(work),
        num_parts=1,
        work=str(work),
        precision="auto",
        device=device,
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    torch.set_num_threads(1)
    base = save_language_model(folder / "base")
    tower = save_text_tower_of(base, folder / "text_tower", max_tokens=24)
    return {"dataset": make_longgrit(folder / "longgrit"), "text_tower": tower}


def _texts(dataset):
    texts = set()
    for row in pq.read_table(dataset / "manifest.parquet").to_pylist():
        texts |= {row["long_caption"], row["short_caption"]}
        with tarfile.open(dataset / row["shard"]) as tar:
            texts.add(json.load(tar.extractfile(f"{row['key']}.json"))["caption"])
    return sorted(texts)


def test_every_long_short_and_image_caption_has_the_vector_the_tower_gives(inputs, tmp_path):
    receipt = run_step(
        STEP, inputs, {"text_embeddings": tmp_path / "embeddings"}, {"captions_per_part": 20}
    )
    texts = _texts(inputs["dataset"])
    embeddings = TextEmbeddings.open(tmp_path / "embeddings")
    assert len(embeddings) == len(texts) == receipt.metrics["num_captions"]
    assert len(list((tmp_path / "embeddings").glob("*.safetensors"))) > 2
    encoder = TextEncoder.open(inputs["text_tower"])
    found = embeddings.lookup([caption_hash(text) for text in texts])
    assert torch.equal(found, encoder.encode(texts))
    tokens = encoder.tokenize(texts)
    assert receipt.metrics["num_tokens"] == sum(len(caption.ids) for caption in tokens)
    assert receipt.metrics["num_truncated"] == sum(caption.is_truncated for caption in tokens) > 0


def test_wrong_captions_of_a_data_set_are_embedded_too(inputs, tmp_path):
    scenes = [draw_scene(number, 2) for number in range(3)]
    tower, settings = inputs["text_tower"], STEP.settings_type()

    def embedded(name):
        dataset, target = write_longgrit(tmp_path / name, scenes), tmp_path / f"{name}-vectors"
        STEP.function(dataset=dataset, text_tower=tower, text_embeddings=target, settings=settings)
        return TextEmbeddings.open(target)

    plain = embedded("plain")
    scenes[1].rows[0]["hard_negatives"] = ["a wrong caption", "another"]
    told = embedded("told")
    assert len(told) == len(plain) + 2 == 3 * 2 * 2 + 3 + 2
    found = told.lookup([caption_hash("a wrong caption")])
    assert torch.equal(found, TextEncoder.open(tower).encode(["a wrong caption"]))


def test_the_embeddings_say_which_text_tower_made_them(inputs, tmp_path):
    run_step(STEP, inputs, {"text_embeddings": tmp_path / "embeddings"}, {})
    save_checkpoint(tmp_path / "model", tiny_model(1), text_tower=inputs["text_tower"])
    require_same_tower(tmp_path / "embeddings", tmp_path / "model")


@pytest.mark.parametrize("name", ["00000.safetensors", "index.parquet", "text_tower.json"])
def test_a_flipped_bit_of_published_vectors_is_told_by_the_next_step(inputs, tmp_path, name):
    folder = tmp_path / "embeddings"
    run_step(STEP, inputs, {"text_embeddings": folder}, {})
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    save_checkpoint(tmp_path / "parent", tiny_model(1), text_tower=inputs["text_tower"])
    with pytest.raises(InputError, match=rf"{name} holds other bytes.*step embed_text"):
        run_step(
            load_step("train"),
            {
                "dataset": inputs["dataset"],
                "text_embeddings": folder,
                "parent": tmp_path / "parent",
            },
            {"checkpoint": tmp_path / "checkpoint", "curves": tmp_path / "curves.csv"},
            {},
        )


class Killed:
    """Counts the captions that go through the language model, and kills the run after some."""

    def __init__(self, monkeypatch, after: int = 10**9) -> None:
        self.seen: list[int] = []
        plain = TextEncoder.encode_tokens

        def encode(encoder, captions, on_pass=None):
            if sum(self.seen) >= after:
                raise KeyboardInterrupt
            self.seen.append(len(captions))
            return plain(encoder, captions, on_pass)

        monkeypatch.setattr(TextEncoder, "encode_tokens", encode)


def start_and_kill(inputs, outputs, settings, monkeypatch, after=30) -> int:
    with monkeypatch.context() as patched:
        killed = Killed(patched, after)
        with pytest.raises(KeyboardInterrupt):
            run_step(STEP, inputs, outputs, settings)
    return sum(killed.seen)


def test_a_killed_run_embeds_no_caption_twice(inputs, tmp_path, monkeypatch):
    outputs, settings = {"text_embeddings": tmp_path / "embeddings"}, {"captions_per_part": 20}
    done = start_and_kill(inputs, outputs, settings, monkeypatch)
    going_on = Killed(monkeypatch)
    run_step(STEP, inputs, outputs, settings)
    texts = _texts(inputs["dataset"])
    assert done >= 30
    assert (
        done + sum(going_on.seen) == len(texts) == len(TextEmbeddings.open(tmp_path / "embeddings"))
    )


def test_vectors_serve_under_other_settings_and_give_the_bytes_of_an_undisturbed_run(
    inputs, tmp_path, monkeypatch
):
    outputs = {"text_embeddings": tmp_path / "embeddings"}
    done = start_and_kill(inputs, outputs, {"captions_per_part": 20}, monkeypatch)
    going_on = Killed(monkeypatch)
    run_step(STEP, inputs, outputs, {"captions_per_part": 35})
    assert done + sum(going_on.seen) == len(_texts(inputs["dataset"]))
    whole = {"text_embeddings": tmp_path / "whole"}
    run_step(STEP, inputs, whole, {"captions_per_part": 35})
    names = {path.name for path in (tmp_path / "whole").iterdir()} - {"_receipt.json"}
    assert len(names) > 3
    for name in names:
        one, other = (tmp_path / folder / name for folder in ("embeddings", "whole"))
        assert one.read_bytes() == other.read_bytes(), name


def test_vectors_of_another_tower_or_number_format_do_not_serve(inputs, tmp_path, monkeypatch):
    outputs = {"text_embeddings": tmp_path / "embeddings"}
    start_and_kill(inputs, outputs, {"captions_per_part": 20}, monkeypatch)
    base = save_language_model(tmp_path / "base", dtype=torch.bfloat16)
    other = save_text_tower_of(base, tmp_path / "other_tower", max_tokens=16)
    for changed, settings in (
        ({**inputs, "text_tower": other}, {"captions_per_part": 20}),
        (inputs, {"captions_per_part": 20, "precision": "bf16"}),
    ):
        with monkeypatch.context() as patched:
            anew = Killed(patched)
            run_step(STEP, changed, outputs, settings)
        assert sum(anew.seen) == len(_texts(inputs["dataset"]))


@pytest.mark.parametrize("suffix", ["safetensors", "parquet", "json"])
def test_damaged_vectors_of_a_killed_run_are_made_again(
    inputs, tmp_path, monkeypatch, caplog, suffix
):
    outputs, settings = {"text_embeddings": tmp_path / "embeddings"}, {"captions_per_part": 20}
    start_and_kill(inputs, outputs, settings, monkeypatch)
    (first, *_) = sorted(tmp_path.glob(f".embeddings.draft-*/_work/vectors/*/*.{suffix}"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    run_step(STEP, inputs, outputs, settings)
    assert "is damaged and is made again" in caplog.text
    texts = _texts(inputs["dataset"])
    found = TextEmbeddings.open(tmp_path / "embeddings").lookup([caption_hash(t) for t in texts])
    assert torch.equal(found, TextEncoder.open(inputs["text_tower"]).encode(texts))


def in_shard(**changes):
    """Change the description of the first sample of a shard."""

    def change(dataset: Path) -> None:
        shard = sorted(dataset.rglob("*.tar"))[0]
        with tarfile.open(shard) as tar:
            members = [(member, tar.extractfile(member).read()) for member in tar]
        shard.unlink()
        with tarfile.open(shard, "w") as tar:
            for member, content in members:
                if member.name.endswith(".json") and changes:
                    content = json.dumps(json.loads(content) | changes).encode()
                    changes.clear()
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    return change


def in_manifest(column, value):
    """Change a field of the first region."""

    def change(dataset: Path) -> None:
        table = pq.read_table(dataset / "manifest.parquet")
        values = [value, *table[column].to_pylist()[1:]]
        place = table.schema.get_field_index(column)
        field = pa.field(column, pa.string())
        pq.write_table(
            table.set_column(place, field, pa.array(values, pa.string())),
            dataset / "manifest.parquet",
        )

    return change


def cut(dataset: Path) -> None:
    shard = sorted(dataset.rglob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:3000])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_shard(caption=None), r"shard .*00000\.tar, sample .*caption must be a text, got None"),
        (in_shard(caption="\ud800 half"), r"00000\.tar, sample .*without half characters"),
        (in_shard(regions=7), r"00000\.tar, sample .*regions must be a list"),
        (cut, r"00000\.tar is no tar or is damaged: it ends"),
        (in_manifest("long_caption", None), "the region .* has no long_caption"),
        (in_manifest("short_caption", "  "), "the region .* has no short_caption"),
        (in_manifest("shard", "../../etc/passwd"), "leads out of the data set"),
        (in_manifest("shard", None), "the region .* has no shard"),
        (lambda folder: (folder / "manifest.parquet").write_bytes(b"PAR1"), "manifest.parquet"),
    ],
)
def test_captions_that_cannot_be_embedded_are_told_with_their_place(
    inputs, tmp_path, change, message
):
    shutil.copytree(inputs["dataset"], tmp_path / "longgrit")
    (tmp_path / "longgrit" / "_receipt.json").unlink()
    change(tmp_path / "longgrit")
    with pytest.raises(InputError, match=message):
        sort_captions(tmp_path / "work", tmp_path / "longgrit", 1000)


def test_a_caption_without_a_token_is_told(inputs, tmp_path):
    encoder = TextEncoder.open(inputs["text_tower"])
    with pytest.raises(InputError, match="cannot be embedded: text 0 is empty"):
        embed_part(encoder, {caption_hash(""): ""}, tmp_path / "made", lambda _: None)


def test_captions_are_the_same_whatever_the_number_of_parts(inputs, tmp_path):
    found = []
    for size in (5, 1000):
        captions = sort_captions(tmp_path / str(size), inputs["dataset"], size)
        found.append([item for n in range(captions.num_parts) for item in captions.part(n).items()])
    assert found[0] == found[1] == sorted(found[0])
    assert {text for _, text in found[0]} == set(_texts(inputs["dataset"]))


def test_a_disk_that_is_full_at_the_end_of_sorting_leaves_no_false_end(
    inputs, tmp_path, monkeypatch
):
    def full_disk(path: Path, text: str, **_options: str) -> None:
        path.open("w").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full_disk)
        with pytest.raises(OSError, match="No space left"):
            sort_captions(tmp_path / "work", inputs["dataset"], 20)
    captions = sort_captions(tmp_path / "work", inputs["dataset"], 20)
    assert captions.num_texts >= len(_texts(inputs["dataset"]))


def test_a_run_that_goes_on_on_another_device_keeps_its_precision(inputs, tmp_path, caplog):
    tower, texts = inputs["text_tower"], ["a red car"]
    for first, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        (tmp_path / "precision-0123").write_text(first)
        encoder, folder = open_tower(embed_job(tower, tmp_path))
        assert folder.name == f"0123-{first}"
        found = encoder.encode(texts)
        assert torch.equal(found, TextEncoder.open(tower, dtype=dtype).encode(texts))
        assert ("goes on in bf16" in caplog.text) == (first == "bf16")


def test_the_first_attempt_decides_the_precision_of_a_run(inputs, tmp_path):
    open_tower(embed_job(inputs["text_tower"], tmp_path, device="cpu"))
    assert (tmp_path / "precision-0123").read_text() == "fp32"


def test_every_part_of_the_captions_is_read_once(inputs, tmp_path, monkeypatch):
    read, plain = [], SortedCaptions.part

    def part(captions: SortedCaptions, number: int) -> dict[str, str]:
        read.append(number)
        return plain(captions, number)

    monkeypatch.setattr(SortedCaptions, "part", part)
    settings = {"captions_per_part": 20}
    run_step(STEP, inputs, {"text_embeddings": tmp_path / "embeddings"}, settings)
    assert read == list(range(len(read)))
    assert len(read) > 2


def test_a_part_that_no_rank_has_embedded_is_told(inputs, tmp_path):
    job = embed_job(inputs["text_tower"], tmp_path).model_copy(update={"precision": "fp32"})
    with pytest.raises(InputError, match=r"part 0 in .* was not written whole; run it"):
        whole_parts(job)


@pytest.mark.slow
def test_two_ranks_embed_what_one_does_byte_by_byte(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'model'}")
    metrics, files = [], []
    for num_ranks in (1, 2):
        outputs = {"text_embeddings": tmp_path / str(num_ranks)}
        settings = {"captions_per_part": 20, "num_ranks": num_ranks, "device": "cpu"}
        receipt = run_step(STEP, inputs, outputs, settings)
        metrics.append({n: v for n, v in receipt.metrics.items() if n != "captions_per_s"})
        files.append(receipt.files)
    assert metrics[0] == metrics[1]
    assert files[0] == files[1]


def test_the_reason_of_a_rank_is_the_step_s(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'model'}")
    (tmp_path / "empty").mkdir()
    outputs = {"text_embeddings": tmp_path / "embeddings"}
    with pytest.raises(InputError, match=r"text_tower cannot be opened.*no text tower"):
        run_step(STEP, {**inputs, "text_tower": tmp_path / "empty"}, outputs, {"num_ranks": 2})


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
    from data_contracts.engine.check import check_table
    from data_contracts.text_embeddings import SCHEMA

    write_part(tmp_path, 0, torch.ones(2, 4))
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
