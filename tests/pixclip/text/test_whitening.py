"""Whitening of a text tower's vectors."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoTokenizer

from pixclip.text.adapt import adapt
from pixclip.text.adapt_job import AdaptJob, Contrast, MaskedTokens, Whiten
from pixclip.text.encoder import WHITENING_NAME, TextEncoder, Whitening, read_text_tower
from pixclip.text.language_model import open_language_model
from tests.language_models import WIDTH, save_language_model, save_text_tower_of, varied_texts


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def tower(base, tmp_path_factory):
    """A tower that is whitened by its captions."""
    folder = tmp_path_factory.mktemp("adapt")
    texts = list(varied_texts(64))
    pairs = {"short_caption": texts[:32], "long_caption": texts[32:]}
    pq.write_table(pa.table(pairs), folder / "pairs.parquet")
    job = AdaptJob(
        base_model=str(base),
        pairs=str(folder / "pairs.parquet"),
        work=str(folder),
        masked_tokens=MaskedTokens(num_steps=0),
        contrast=Contrast(num_steps=0),
        whiten=Whiten(share=1.0, num_captions=1000),
        precision="fp32",
    )
    adapt(job)
    return job.tower


def stretched(number=400, width=8):
    """States around a far mean, of very different spread in each direction."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -1, width)
    return 5 + torch.randn(number, width, generator=generator) * spread


@pytest.mark.parametrize(("share", "power"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_the_mean_goes_and_variances_are_raised_to_what_the_share_leaves(share, power):
    states = stretched()
    whitened = Whitening.fit(states, share)(states)
    torch.testing.assert_close(whitened.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    before = torch.linalg.eigvalsh(F.normalize(states, dim=-1).double().T.cov())
    after = torch.linalg.eigvalsh(whitened.double().T.cov())
    kept = before > before.max() * 1e-3  # the direction of the mean holds next to nothing
    expected = before.max() * (before / before.max()) ** power
    torch.testing.assert_close(after[kept], expected[kept], rtol=1e-3, atol=0)


def test_directions_without_variance_are_raised_no_further_than_the_floor():
    states = torch.cat([stretched(), torch.full((400, 2), 3.0)], dim=1)
    whitening = Whitening.fit(states, 1.0)
    moved = states[:1].clone()
    moved[0, -1] += 0.01
    step = (F.normalize(moved, dim=-1) - F.normalize(states[:1], dim=-1)).norm()
    assert (whitening(moved) - whitening(states[:1])).norm() <= 100.1 * step


def test_a_single_caption_cannot_be_whitened_by():
    with pytest.raises(ValueError, match="at least two captions, got 1"):
        Whitening.fit(torch.ones(1, 4), 1.0)


def test_an_adaptation_whitens_the_tower_by_its_captions(tower, base):
    texts = list(varied_texts(64))
    plain = open_language_model(base, with_head=False)
    config, provenance = read_text_tower(tower)
    assert config.whitened
    assert provenance["adaptation"]["whiten"] == {"share": 1.0, "num_captions": 1000}
    tokenizer = AutoTokenizer.from_pretrained(base)
    raw = TextEncoder(plain, tokenizer, config.changed(whitened=False)).encode(texts)
    found = TextEncoder.open(tower).encode(texts)
    mean_length = F.normalize(raw, dim=-1).mean(0).norm()
    assert mean_length > 0.3
    assert found.mean(0).norm() < 0.05 * found.norm(dim=-1).mean()
    torch.testing.assert_close(found, Whitening.fit(raw, 1.0)(raw), atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whitened_vector_does_not_depend_on_the_other_texts(tower, dtype):
    encoder = TextEncoder.open(tower, dtype=dtype)
    texts = list(varied_texts(40))
    together = encoder.encode(texts)
    assert torch.equal(together, torch.cat([encoder.encode([text]) for text in texts]))
    assert torch.equal(together, together.bfloat16().float())


def test_a_whitened_tower_without_its_map_is_refused(tower, tmp_path):
    folder = shutil.copytree(tower, tmp_path / "tower")
    (folder / WHITENING_NAME).unlink()
    with pytest.raises(ValueError, match="settings say whitened: bring the whole folder"):
        TextEncoder.open(folder)


def test_a_map_of_another_width_is_refused(tower, tmp_path):
    folder = shutil.copytree(tower, tmp_path / "tower")
    tensors = load_file(folder / WHITENING_NAME)
    save_file(tensors | {"mean": tensors["mean"][:-1].clone()}, folder / WHITENING_NAME)
    with pytest.raises(ValueError, match=rf"must hold the tensors .*{WIDTH}"):
        TextEncoder.open(folder)


def test_a_tower_that_does_not_say_whitened_is_not(base, tmp_path):
    tower = save_text_tower_of(base, tmp_path / "tower")
    assert not (tower / WHITENING_NAME).exists()
    config = read_text_tower(tower)[0].changed(whitened=True)
    body = open_language_model(base, with_head=False)
    tokenizer = AutoTokenizer.from_pretrained(base)
    with pytest.raises(ValueError, match="whitened is True"):
        TextEncoder(body, tokenizer, config)
