"""Our own weights written down in the keys of each public format, by hand.

The importers' tables are not used: a mistake there must not repeat itself here.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def openai(ours: Weights, prefix: str = "visual.", in_proj: str = "in_proj_") -> Weights:
    """OpenAI CLIP's, and with other arguments AlphaCLIP's, vision tower."""
    public = {
        f"{prefix}class_embedding": ours["vision.class_embedding"],
        f"{prefix}positional_embedding": ours["vision.position_embedding"],
        f"{prefix}conv1.weight": ours["vision.patch_embed.weight"],
        f"{prefix}proj": ours["vision.projection.weight"].T.contiguous(),
    }
    for ending in ("weight", "bias"):
        public[f"{prefix}ln_pre.{ending}"] = ours[f"vision.norm_pre.{ending}"]
        public[f"{prefix}ln_post.{ending}"] = ours[f"vision.norm_post.{ending}"]
        for i in block_numbers(ours):
            block, our_block = f"{prefix}transformer.resblocks.{i}", f"vision.blocks.{i}"
            for theirs, name in (
                ("ln_1.", "norm1"),
                (f"attn.{in_proj}", "attention.qkv"),
                ("attn.out_proj.", "attention.out"),
                ("ln_2.", "norm2"),
                ("mlp.c_fc.", "mlp.fc1"),
                ("mlp.c_proj.", "mlp.fc2"),
            ):
                public[f"{block}.{theirs}{ending}"] = ours[f"{our_block}.{name}.{ending}"]
    return public


def clip_text_tower(prefix: str = "") -> Weights:
    """The keys of CLIP's own text tower, and the temperature."""
    block = f"{prefix}transformer.resblocks.0."
    return {
        f"{prefix}positional_embedding": torch.zeros(77, 4),
        f"{prefix}text_projection": torch.zeros(4, 4),
        f"{prefix}token_embedding.weight": torch.zeros(9, 4),
        f"{block}ln_1.weight": torch.zeros(4),
        f"{block}attn.in_proj_weight": torch.zeros(12, 4),
        f"{block}mlp.c_fc.bias": torch.zeros(16),
        f"{prefix}ln_final.weight": torch.zeros(4),
        f"{prefix}ln_final.bias": torch.zeros(4),
        "logit_scale": torch.tensor(4.6),
    }


def openai_text(ours: Weights, prefix: str = "") -> Weights:
    """OpenAI CLIP's own text tower, beside `visual.` or below `text.`."""
    public = {
        f"{prefix}positional_embedding": ours["text.position_embedding"],
        f"{prefix}token_embedding.weight": ours["text.token_embedding.weight"],
        f"{prefix}text_projection": ours["text.projection.weight"].T.contiguous(),
        "logit_scale": torch.tensor(4.6),
    }
    for ending in ("weight", "bias"):
        public[f"{prefix}ln_final.{ending}"] = ours[f"text.norm_post.{ending}"]
        for i in block_numbers(ours, "text"):
            block, our_block = f"{prefix}transformer.resblocks.{i}", f"text.blocks.{i}"
            for theirs, name in (
                ("ln_1.", "norm1"),
                ("attn.in_proj_", "attention.qkv"),
                ("attn.out_proj.", "attention.out"),
                ("ln_2.", "norm2"),
                ("mlp.c_fc.", "mlp.fc1"),
                ("mlp.c_proj.", "mlp.fc2"),
            ):
                public[f"{block}.{theirs}{ending}"] = ours[f"{our_block}.{name}.{ending}"]
    return public


def in_two_tables(table: Tensor) -> tuple[Tensor, Tensor]:
    """Position tables of Long-CLIP: rows that do not count are filled with something else."""
    first, further = torch.full_like(table, 9.0), torch.full_like(table, -9.0)
    first[:20], further[20:] = table[:20], table[20:]
    return first, further


def longclip(ours: Weights) -> Weights:
    """Long-CLIP's state dict, both towers."""
    text = openai_text(ours)
    first, further = in_two_tables(text["positional_embedding"])
    tables = {"positional_embedding": first, "positional_embedding_res": further}
    return openai(ours) | text | tables


def huggingface_text(ours: Weights) -> Weights:
    """The text tower of transformers' CLIPModel."""
    embeddings = "text_model.embeddings"
    public = {
        f"{embeddings}.token_embedding.weight": ours["text.token_embedding.weight"],
        f"{embeddings}.position_embedding.weight": ours["text.position_embedding"],
        f"{embeddings}.position_ids": torch.arange(77)[None],
        "text_projection.weight": ours["text.projection.weight"],
    }
    for ending in ("weight", "bias"):
        public[f"text_model.final_layer_norm.{ending}"] = ours[f"text.norm_post.{ending}"]
        for i in block_numbers(ours, "text"):
            block, our_block = f"text_model.encoder.layers.{i}", f"text.blocks.{i}"
            joint = ours[f"{our_block}.attention.qkv.{ending}"]
            for name, part in zip("qkv", joint.chunk(3), strict=True):
                public[f"{block}.self_attn.{name}_proj.{ending}"] = part.contiguous()
            for theirs, name in (
                ("layer_norm1", "norm1"),
                ("self_attn.out_proj", "attention.out"),
                ("layer_norm2", "norm2"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ):
                public[f"{block}.{theirs}.{ending}"] = ours[f"{our_block}.{name}.{ending}"]
    return public


def fgclip(ours: Weights, text: Weights, *, is_long: bool) -> Weights:
    """FG-CLIP v1: two ways of reading texts; the other one is filled with something else."""
    table = "text_model.embeddings.position_embedding"
    first, further = in_two_tables(text[f"{table}.weight"])
    other = torch.full_like(text["text_projection.weight"], 7.0)
    public = huggingface_tower(ours) | text
    for name in ("logit_scale", "logit_scale_finegraind", "logit_scale_hardneg"):
        public[name] = torch.tensor(4.6)
    public[f"{table}_ori.weight"], public[f"{table}_res.weight"] = first, further
    public["text_filip_projection.weight"] = other
    if is_long:
        public[f"{table}.weight"] = first
        public["text_filip_projection.weight"] = text["text_projection.weight"]
        public["text_projection.weight"] = other
    return public


def alphaclip(ours: Weights) -> Weights:
    """AlphaCLIP's vision tower with its mask convolution."""
    mask = {"conv1_alpha.weight": ours["vision.mask_embed.weight"]}
    return openai(ours, prefix="", in_proj="in_proj.") | mask


def huggingface(ours: Weights) -> Weights:
    """transformers' CLIPModel, with a text tower that makes no sense."""
    return huggingface_tower(ours) | {
        "text_model.embeddings.token_embedding.weight": torch.zeros(9, 4),
        "text_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(16, 4),
        "text_model.final_layer_norm.bias": torch.zeros(4),
        "text_projection.weight": torch.zeros(4, 4),
        "logit_scale": torch.tensor(4.6),
    }


def huggingface_tower(ours: Weights) -> Weights:
    """The vision tower of transformers' CLIPModel."""
    embeddings = "vision_model.embeddings"
    public = {
        f"{embeddings}.class_embedding": ours["vision.class_embedding"],
        f"{embeddings}.position_embedding.weight": ours["vision.position_embedding"],
        f"{embeddings}.position_ids": torch.arange(17)[None],
        f"{embeddings}.patch_embedding.weight": ours["vision.patch_embed.weight"],
        "visual_projection.weight": ours["vision.projection.weight"],
    }
    for ending in ("weight", "bias"):
        public[f"vision_model.pre_layrnorm.{ending}"] = ours[f"vision.norm_pre.{ending}"]
        public[f"vision_model.post_layernorm.{ending}"] = ours[f"vision.norm_post.{ending}"]
        for i in block_numbers(ours):
            block, our_block = f"vision_model.encoder.layers.{i}", f"vision.blocks.{i}"
            joint = ours[f"{our_block}.attention.qkv.{ending}"]
            for name, part in zip("qkv", joint.chunk(3), strict=True):
                public[f"{block}.self_attn.{name}_proj.{ending}"] = part.contiguous()
            for theirs, name in (
                ("layer_norm1", "norm1"),
                ("self_attn.out_proj", "attention.out"),
                ("layer_norm2", "norm2"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ):
                public[f"{block}.{theirs}.{ending}"] = ours[f"{our_block}.{name}.{ending}"]
    return public


EVA_NAMES = {
    "norm1": "norm1",
    "attention.q": "attn.q_proj",
    "attention.k": "attn.k_proj",
    "attention.v": "attn.v_proj",
    "attention.norm": "attn.inner_attn_ln",
    "attention.out": "attn.proj",
    "norm2": "norm2",
    "mlp.w1": "mlp.w1",
    "mlp.w2": "mlp.w2",
    "mlp.norm": "mlp.ffn_ln",
    "mlp.w3": "mlp.w3",
}
TIMM_NAMES = EVA_NAMES | {
    "attention.norm": "attn.norm",
    "mlp.w1": "mlp.fc1_g",
    "mlp.w2": "mlp.fc1_x",
    "mlp.norm": "mlp.norm",
    "mlp.w3": "mlp.fc2",
}


def eva02(ours: Weights, prefix: str, names: dict[str, str]) -> Weights:
    """An EVA02 tower with one of the two sets of names."""
    public = {
        f"{prefix}cls_token": ours["vision.class_embedding"][None, None],
        f"{prefix}pos_embed": ours["vision.position_embedding"][None],
    }
    for ending in ("weight", "bias"):
        public[f"{prefix}patch_embed.proj.{ending}"] = ours[f"vision.patch_embed.{ending}"]
        public[f"{prefix}norm.{ending}"] = ours[f"vision.norm_post.{ending}"]
        public[f"{prefix}head.{ending}"] = ours[f"vision.projection.{ending}"]
        for i in block_numbers(ours):
            for name, theirs in names.items():
                if (name, ending) != ("attention.k", "bias"):
                    tensor = ours[f"vision.blocks.{i}.{name}.{ending}"]
                    public[f"{prefix}blocks.{i}.{theirs}.{ending}"] = tensor
    return public


def timm(ours: Weights, text: Weights | None = None) -> Weights:
    """open_clip's EVA02-B-16: timm's tower, CLIP's text tower below `text.`."""
    return eva02(ours, "visual.trunk.", TIMM_NAMES) | (text or clip_text_tower("text."))


def llm2clip(ours: Weights) -> Weights:
    """LLM2CLIP's `.pt`: biases inside the projections, the adaptor as one list of modules."""
    public = eva02(ours, "visual.", EVA_NAMES)
    for ending in ("weight", "bias"):
        for i in range(4):
            block, our_block = f"text.text_adaptor.{i}", f"adaptor.blocks.{i}"
            public[f"{block}.ln.{ending}"] = ours[f"{our_block}.norm.{ending}"]
            public[f"{block}.fn.0.{ending}"] = ours[f"{our_block}.fc1.{ending}"]
            public[f"{block}.fn.3.{ending}"] = ours[f"{our_block}.fc2.{ending}"]
        public[f"text.text_adaptor.4.{ending}"] = ours[f"adaptor.norm.{ending}"]
        public[f"text.text_adaptor.5.{ending}"] = ours[f"adaptor.projection.{ending}"]
    return public | rope_tables(ours) | {"logit_scale": torch.tensor(4.6)}


def eva_clip(ours: Weights, text: Weights | None = None) -> Weights:
    """EVA-CLIP's own `.pt`: biases of queries and values beside their projections."""
    public = eva02(ours, "visual.", EVA_NAMES)
    renamed = {
        key.replace("q_proj.bias", "q_bias").replace("v_proj.bias", "v_bias"): tensor
        for key, tensor in public.items()
    }
    return renamed | rope_tables(ours) | (text or clip_text_tower("text."))


def released(ours: Weights) -> Weights:
    """PixCLIP's `iter_8700.pth`."""
    mask = {
        f"visual.alpha_patch_embed.proj.{ending}": ours[f"vision.mask_embed.{ending}"]
        for ending in ("weight", "bias")
    }
    return llm2clip(ours) | mask


def rope_tables(ours: Weights) -> Weights:
    """The tables of cosines and sines that EVA-CLIP saves with every block."""
    owners = ["visual.rope", *(f"visual.blocks.{i}.attn.rope" for i in block_numbers(ours))]
    return {
        f"{owner}.freqs_{kind}": torch.zeros(16, 64) for owner in owners for kind in ("cos", "sin")
    }


def block_numbers(ours: Weights, tower: str = "vision") -> Iterator[int]:
    """The numbers of a tower's blocks."""
    start = f"{tower}.blocks."
    return iter(sorted({int(key.split(".")[2]) for key in ours if key.startswith(start)}))
