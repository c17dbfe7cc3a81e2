"""Models small enough for tests, of both kinds, and a text tower with random weights."""

from pathlib import Path

import torch

from pixclip.config import ARCHITECTURES, AdaptorConfig, ModelConfig, TextConfig
from pixclip.model import PixClip

TEXT = TextConfig(embed_dim=16, max_tokens=32)
SMALL = {"image_size_px": 32, "patch_size_px": 8, "width": 32, "num_layers": 2, "num_heads": 2}
VISION = {
    "clip": ARCHITECTURES["clip_vit_b16"].changed(**SMALL, mlp_width=64, embed_dim=24),
    "eva02": ARCHITECTURES["eva02_b16"].changed(**SMALL, mlp_width=48, embed_dim=24),
}


def tiny_model(kind: str = "clip") -> PixClip:
    """A model of random weights, the mask embedding's too."""
    torch.manual_seed(0)
    adaptor = AdaptorConfig(num_layers=1)
    model = PixClip(ModelConfig(vision=VISION[kind], text=TEXT, adaptor=adaptor, name="tiny"))
    for parameter in model.vision.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def save_tiny_text_tower(folder: Path) -> Path:
    """A text tower as `adapt_text` writes it: a Llama of two layers and a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    from pixclip.text.encoder import save_text_tower

    words = {word: number for number, word in enumerate(["<pad>", "<unk>", *"abcdefghij"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    body = LlamaModel(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=TEXT.embed_dim,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            is_causal=False,
        )
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
    folder.mkdir(parents=True, exist_ok=True)
    save_text_tower(folder, body, fast, TEXT, {"made_by": "test"})
    return folder
