"""What an adaptation is made of: masked tokens, the order of pairs, retrieval, adapters."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer

from pixclip.config import TextConfig
from pixclip.text.adapt import (
    adapt,
    load_adapters,
    merge_adapters,
    put_adapters_on,
    save_adapters,
    short_to_long_recall,
)
from pixclip.text.adapt_job import AdaptJob, Contrast, Lora, MaskedTokens
from pixclip.text.encoder import TextEncoder
from pixclip.text.language_model import open_language_model, read_both_ways
from pixclip.text.tokens import CaptionTokenizer
from pixclip.training.job import read_steps
from pixclip.training.llm2vec import (
    NOT_ASKED,
    CaptionContrast,
    HiddenTokens,
    MaskedPrediction,
    Pairs,
    Tokens,
    mask_id_of,
    mask_tokens,
    pad,
    set_attention_dropout,
)
from tests.language_models import CAPTIONS, WIDTH, save_language_model

MASK, VOCABULARY = 7, 1000


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("base") / "model")


def test_hidden_tokens_are_masked_random_or_kept_in_berts_shares():
    torch.manual_seed(0)
    ids = torch.randint(10, VOCABULARY, (200, 100))
    is_caption = torch.zeros_like(ids, dtype=torch.bool)
    is_caption[:, :60] = True
    tokens = Tokens(ids, torch.ones_like(is_caption), is_caption)
    hidden, labels = mask_tokens(tokens, 0.2, MASK, VOCABULARY, torch.Generator().manual_seed(0))
    is_chosen = labels != NOT_ASKED
    assert not is_chosen[:, 60:].any(), "markers are not hidden"
    assert not is_chosen[:, 0].any(), "nothing is before the first token to predict it from"
    assert is_chosen[:, 1:60].double().mean().item() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(labels[is_chosen], ids[is_chosen])
    assert torch.equal(hidden.ids_BN[~is_chosen], ids[~is_chosen])
    chosen, original = hidden.ids_BN[is_chosen], ids[is_chosen]
    assert (chosen == MASK).double().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (chosen == original).double().mean().item() == pytest.approx(0.1, abs=0.03)


def test_a_hidden_token_is_predicted_from_the_state_before_it(base):
    causal = open_language_model(base, with_head=True)
    tokens = pad(_tokenize(base, CAPTIONS[:3]))
    hidden, labels = mask_tokens(tokens, 0.5, 5, 300, torch.Generator().manual_seed(1))
    states = read_both_ways(causal.base_model, hidden.ids_BN, hidden.is_token_BN)
    losses = []
    for row, place in (labels != NOT_ASKED).nonzero().tolist():
        logits = states[row, place - 1] @ causal.lm_head.weight.T
        losses.append(-logits.log_softmax(-1)[labels[row, place]])
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(
        MaskedPrediction(causal)(HiddenTokens(hidden, labels, 0))["total"], expected
    )


def test_a_batch_without_a_hidden_token_has_no_loss(base):
    tokens = pad(_tokenize(base, CAPTIONS[:1]))
    labels = torch.full_like(tokens.ids_BN, NOT_ASKED)
    objective = MaskedPrediction(open_language_model(base, with_head=True))
    assert objective(HiddenTokens(tokens, labels, 0))["total"].item() == 0


def test_training_pools_as_the_encoder_does(base):
    causal = open_language_model(base, with_head=True)
    config = TextConfig(embed_dim=WIDTH, prefix="a dog ")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenize = CaptionTokenizer(tokenizer, config)
    batch = pad(tokenize(CAPTIONS))
    pooled = CaptionContrast(causal, 20.0).pooled(batch)
    encoded = TextEncoder(causal.base_model, tokenizer, config).encode(CAPTIONS)
    torch.testing.assert_close(pooled.bfloat16().float(), encoded, atol=2e-2, rtol=1e-2)


def test_a_tokenizer_without_the_mask_token_is_refused(base):
    with pytest.raises(ValueError, match=r"no token '<no such>'.*hide_behind"):
        mask_id_of(AutoTokenizer.from_pretrained(base), "<no such>")


def test_every_pair_comes_once_before_any_comes_again(tmp_path):
    rows = [{"short_caption": str(n), "long_caption": f"long {n}"} for n in range(10)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    pairs = Pairs(tmp_path / "pairs.parquet")
    drawn = [row for step in range(5) for row in pairs.rows(step, 4, [0, 1])]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == [(str(n), f"long {n}") for n in range(10)]
    assert drawn[:10] != drawn[10:]
    assert pairs.rows(3, 4, [0, 1]) == drawn[12:16]


class ByFirstLetter(TextEncoder):
    """Texts with the same first letter have the same vector."""

    def __init__(self):
        pass

    def encode(self, texts):
        return torch.stack([torch.eye(26)[ord(text[0]) - ord("a")] for text in texts])


def test_recall_counts_any_long_caption_of_a_shared_short_one():
    recall = short_to_long_recall(
        ByFirstLetter(), ["cat", "cat", "dog", "eel"], ["xylophone", "cat long", "dog", "fish"]
    )
    assert recall["r1"] == pytest.approx(2 / 3)  # eel finds no fish


def test_simcse_without_any_dropout_is_refused():
    files = {"base_model": "a", "pairs": "b", "work": "c"}
    simcse, still = Contrast(kind="simcse"), Lora(dropout=0.0)
    with pytest.raises(ValueError, match=r"both views are equal: set contrast.attention_dropout"):
        AdaptJob(**files, contrast=simcse, lora=still)
    AdaptJob(**files, contrast=simcse.changed(attention_dropout=0.3), lora=still)
    AdaptJob(**files, contrast=simcse.changed(num_steps=0), lora=still)
    AdaptJob(**files, contrast=Contrast(), lora=still)


def test_dropout_of_adapters_tells_views_apart_once_the_adapters_have_learned(base):
    model = open_language_model(base, with_head=True)
    adapted = put_adapters_on(model, Lora(dropout=0.5)).train()
    pooled, tokens = CaptionContrast(model, 20.0).pooled, pad(_tokenize(base, CAPTIONS[:2]))
    left, right = pooled(tokens), pooled(tokens)
    assert torch.equal(left, right), "adapters begin at zero"
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    left, right = pooled(tokens), pooled(tokens)
    assert not torch.allclose(left, right)


def test_a_model_without_attention_dropout_to_set_is_refused():
    set_attention_dropout(torch.nn.Linear(1, 1), 0.0)
    with pytest.raises(ValueError, match="Linear has no attention dropout"):
        set_attention_dropout(torch.nn.Linear(1, 1), 0.3)


@pytest.mark.filterwarnings("error::FutureWarning")
def test_adapters_are_put_on_without_a_warning_that_nobody_can_act_on(base):
    put_adapters_on(open_language_model(base, with_head=True), Lora(rank=2))


def test_states_of_an_earlier_version_are_not_used_and_told(base, tmp_path, caplog):
    pairs = [{"short_caption": "a dog", "long_caption": "a small dog"}]
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "pairs.parquet")
    (tmp_path / "states-contrast" / "step-00000001").mkdir(parents=True)
    adapt(
        AdaptJob(
            base_model=str(base),
            pairs=str(tmp_path / "pairs.parquet"),
            work=str(tmp_path),
            masked_tokens=MaskedTokens(num_steps=0),
            contrast=Contrast(num_steps=1, batch_size=2),
            precision="fp32",
        )
    )
    assert "states-contrast are states of an earlier version" in caplog.text
    assert [step["step"] for step in read_steps(tmp_path / "contrast")] == [1]


def test_a_tower_that_says_the_same_of_all_finds_nothing():
    shorts, longs = [f"a{n}" for n in range(20)], [f"a long {n}" for n in range(20)]
    assert short_to_long_recall(ByFirstLetter(), shorts, longs)["r10"] == 0


def test_adapters_change_nothing_at_first_and_survive_saving_and_merging(base, tmp_path):
    model = open_language_model(base, with_head=True)
    tokens = pad(_tokenize(base, CAPTIONS[:2]))
    plain = read_both_ways(model.base_model, tokens.ids_BN, tokens.is_token_BN)
    adapted = put_adapters_on(model, Lora(rank=2, alpha=4)).eval()
    assert torch.equal(read_both_ways(model.base_model, tokens.ids_BN, tokens.is_token_BN), plain)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    changed = read_both_ways(model.base_model, tokens.ids_BN, tokens.is_token_BN)
    assert not torch.allclose(changed, plain)
    save_adapters(adapted, tmp_path / "adapters.safetensors")
    again = put_adapters_on(open_language_model(base, with_head=True), Lora(rank=2, alpha=4))
    load_adapters(again, tmp_path / "adapters.safetensors")
    merged = merge_adapters(again)
    found = read_both_ways(merged.base_model, tokens.ids_BN, tokens.is_token_BN)
    torch.testing.assert_close(found, changed, atol=1e-4, rtol=1e-4)


def _tokenize(base, texts):
    return CaptionTokenizer(AutoTokenizer.from_pretrained(base), TextConfig(embed_dim=WIDTH))(texts)
