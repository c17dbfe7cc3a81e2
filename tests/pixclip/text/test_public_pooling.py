"""Captions pooled as by LLM2CLIP's public code: the end marker counts, the prefix does not."""

import pytest
import torch
from tokenizers import AddedToken
from torch.nn import functional as F
from transformers import AutoTokenizer, LlamaConfig, LlamaModel

from pixclip.config import TextConfig
from pixclip.text.encoder import TextEncoder, save_text_tower
from tests.language_models import CAPTIONS, WIDTH, train_tokenizer

# Llama-3's markers around a caption; its tokenizer puts a start of text before all.
PREFIX, SUFFIX = "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"
MARKERS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


@pytest.fixture(scope="module")
def llama():
    """A small random Llama that reads both ways, and a tokenizer with Llama-3's markers."""
    tokenizer = train_tokenizer(start_token=MARKERS[0])
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(marker, special=True) for marker in MARKERS]}
    )
    torch.manual_seed(0)
    body = LlamaModel(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
            is_causal=False,
        )
    )
    return body.eval(), tokenizer


@torch.no_grad()
def public_vectors(body, tokenizer, captions) -> torch.Tensor:
    """LLM2Vec's rule without an instruction: padded on the left, the last tokens of each row.

    As many as caption and end marker have when they are tokenized without special tokens.
    """
    rows = [tokenizer(PREFIX + caption.strip() + SUFFIX)["input_ids"] for caption in captions]
    counted = [
        len(tokenizer(caption.strip() + SUFFIX, add_special_tokens=False)["input_ids"])
        for caption in captions
    ]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    is_token = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
    is_seen = is_token[:, None, None, :].expand(-1, 1, longest, -1)
    states = body(input_ids=ids, attention_mask=is_seen, use_cache=False).last_hidden_state
    return torch.stack(
        [row[-number:].mean(dim=0) for row, number in zip(states, counted, strict=True)]
    )


def encoder(llama, **text) -> TextEncoder:
    body, tokenizer = llama
    config = TextConfig(embed_dim=WIDTH, prefix=PREFIX, suffix=SUFFIX, **text)
    return TextEncoder(body, tokenizer, config)


def test_vectors_are_those_of_the_public_rule_where_the_end_marker_counts(llama):
    wanted = public_vectors(*llama, CAPTIONS)
    ours = encoder(llama, pooling="caption_and_end").encode(CAPTIONS)
    assert F.cosine_similarity(ours, wanted).min() >= 0.9999
    without = encoder(llama).encode(CAPTIONS)
    assert F.cosine_similarity(without, wanted).min() < 0.999


def test_the_pooling_travels_with_the_tower(llama, tmp_path):
    body, tokenizer = llama
    config = TextConfig(
        embed_dim=WIDTH, prefix=PREFIX, suffix=SUFFIX, pooling="caption_and_end", max_tokens=64
    )
    save_text_tower(tmp_path / "tower", body, tokenizer, config, {})
    opened = TextEncoder.open(tmp_path / "tower")
    assert opened.config == config
    assert AutoTokenizer.from_pretrained(tmp_path / "tower").convert_tokens_to_ids(SUFFIX)
    wanted = TextEncoder(body, tokenizer, config).encode(CAPTIONS)
    torch.testing.assert_close(opened.encode(CAPTIONS), wanted)


def test_a_caption_that_is_cut_keeps_its_end_marker_among_what_is_pooled(llama):
    body, tokenizer = llama
    short = encoder(llama, pooling="caption_and_end", max_tokens=12)
    (caption,) = short.tokenize([CAPTIONS[1]])
    assert caption.is_truncated
    kept = tokenizer.decode(list(caption.ids[caption.start : caption.stop]))
    wanted = public_vectors(body, tokenizer, [kept])
    assert F.cosine_similarity(short.encode([CAPTIONS[1]]), wanted).item() >= 0.9999
