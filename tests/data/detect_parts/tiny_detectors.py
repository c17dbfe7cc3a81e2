"""Detectors of random weights, of the published ones' classes, saved as a hub's folder is."""

from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    Owlv2TextConfig,
    Owlv2VisionConfig,
    SwinConfig,
)

WORDS = ("nose", "engine", "wing", "##let", "wheel", "hub", "grille", "logo")
# The ids of BERT's uncased vocabulary at which Grounding DINO splits its text.
SPECIAL = {
    0: "[PAD]",
    100: "[UNK]",
    101: "[CLS]",
    102: "[SEP]",
    103: "[MASK]",
    1012: ".",
    1029: "?",
}
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def save_grounding_dino(folder: Path) -> None:
    words = [SPECIAL.get(place, f"[unused{place}]") for place in range(1030)] + [*WORDS]
    backbone = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_indices=[2, 3, 4],
    )
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=BertConfig(vocab_size=len(words), **SIZES),
        d_model=32,
        num_queries=20,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    )
    torch.manual_seed(1)
    model = GroundingDinoForObjectDetection(config)
    with torch.no_grad():  # fresh weights say nearly the same everywhere
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    BertTokenizer(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 96}
    GroundingDinoImageProcessorPil(size=size).save_pretrained(folder)


def save_owlv2(folder: Path) -> None:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = ["!", *letters, *(f"{letter}</w>" for letter in letters)]
    vocab = {token: place for place, token in enumerate([*tokens, "<start>", "<end>"])}
    text = Owlv2TextConfig(
        vocab_size=len(vocab),
        max_position_embeddings=16,
        bos_token_id=vocab["<start>"],
        eos_token_id=vocab["<end>"],
        pad_token_id=0,
        **SIZES,
    )
    vision = Owlv2VisionConfig(image_size=48, patch_size=16, **SIZES)
    config = Owlv2Config(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16
    )
    torch.manual_seed(1)
    model = Owlv2ForObjectDetection(config)
    with torch.no_grad():  # those of so small a model are all 0 or 1, and boxes without area
        for layer in (model.box_head.dense2, model.class_head.logit_scale):
            layer.weight.mul_(0.05)
    model.save_pretrained(folder)
    CLIPTokenizer(
        vocab=vocab,
        merges=[],
        unk_token="<end>",
        bos_token="<start>",
        eos_token="<end>",
        pad_token="!",
        model_max_length=16,
    ).save_pretrained(folder)
    Owlv2ImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(folder)


SAVE = {"gdino": save_grounding_dino, "owlv2": save_owlv2}
