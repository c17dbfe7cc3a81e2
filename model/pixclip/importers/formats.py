"""The formats of public weights by name: which key is what, and what a source states.

OpenAI's CLIP (https://github.com/openai/CLIP), open_clip
(https://github.com/mlfoundations/open_clip), Hugging Face's CLIP, EVA02-CLIP (arXiv:2303.15389),
the same in timm's names, LLM2CLIP (arXiv:2411.04997), AlphaCLIP (arXiv:2312.03818), and PixCLIP as
released.
"""

from collections.abc import Mapping
from typing import Any

from pixclip.config import CLIP_MEAN, CLIP_STD, VisionConfig
from pixclip.importers.rules import (
    Descriptions,
    Drop,
    Facts,
    Format,
    Use,
    as_stated,
    section,
    transposed,
    without_batch,
)

OTHER_TEXT_TOWER = "CLIP's own text tower; texts are read by a language model here"
SCALE = "the temperature is a setting of the recipe"


def clip_tower(prefix: str, in_proj: str) -> tuple[Use, ...]:
    """OpenAI's names of a vision transformer; `in_proj` is how the joint projection is spelt."""
    block, ours = f"{prefix}transformer.resblocks.#.", "vision.blocks.#."
    return (
        Use(f"{prefix}class_embedding", "vision.class_embedding"),
        Use(f"{prefix}positional_embedding", "vision.position_embedding"),
        Use(f"{prefix}conv1.weight", "vision.patch_embed.weight"),
        Use(f"{prefix}ln_pre.&", "vision.norm_pre.&"),
        Use(f"{block}ln_1.&", f"{ours}norm1.&"),
        Use(f"{block}attn.{in_proj}&", f"{ours}attention.qkv.&"),
        Use(f"{block}attn.out_proj.&", f"{ours}attention.out.&"),
        Use(f"{block}ln_2.&", f"{ours}norm2.&"),
        Use(f"{block}mlp.c_fc.&", f"{ours}mlp.fc1.&"),
        Use(f"{block}mlp.c_proj.&", f"{ours}mlp.fc2.&"),
        Use(f"{prefix}ln_post.&", "vision.norm_post.&"),
        Use(f"{prefix}proj", "vision.projection.weight", transposed),
    )


# CLIP's text tower beside `visual.`; open_clip and EVA-CLIP may put it below `text.`.
TEXT_KEYS = (
    "positional_embedding",
    "text_projection",
    "token_embedding.weight",
    "transformer.resblocks.*",
    "ln_final.&",
)
TEXT_DROPS = tuple(Drop(key, OTHER_TEXT_TOWER) for key in TEXT_KEYS)
SCALE_DROP = Drop("logit_scale", SCALE)


def openai_facts(_descriptions: Descriptions, config: VisionConfig) -> Facts:
    """OpenAI's code fixes these for every vision transformer."""
    return Facts(
        activation="quick_gelu",
        num_heads=config.width // 64,
        layer_norm_eps=1e-5,
        pooling="tok",
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )


OPENAI = Format(
    name="openai",
    description="OpenAI CLIP: the published TorchScript archive, or its state dict",
    kind="clip",
    uses=clip_tower("visual.", "in_proj_"),
    drops=(
        *TEXT_DROPS,
        SCALE_DROP,
        Drop("input_resolution", "the model's size; the shapes say it"),
        Drop("context_length", "the model's size; the shapes say it"),
        Drop("vocab_size", "the model's size; the shapes say it"),
    ),
    facts=openai_facts,
)
DESCRIPTION = "open_clip_config.json"
# Models with `custom_text` in their configuration keep the text tower below `text.`.
CUSTOM_TEXT_DROPS = (
    *(Drop(f"text.{drop.source}", drop.reason) for drop in TEXT_DROPS),
    Drop("text.transformer.*", OTHER_TEXT_TOWER),
    Drop("text.proj.*", OTHER_TEXT_TOWER),
)


def open_clip_facts(descriptions: Descriptions, _config: VisionConfig) -> Facts:
    """What `open_clip_config.json` says; without it little more than the shapes is known."""
    description = descriptions[DESCRIPTION]
    pixels = section(description, "preprocess_cfg")
    mean, std = (as_stated(pixels.get(name)) for name in ("mean", "std"))
    if "model_cfg" not in description:
        return Facts(layer_norm_eps=1e-5, mean=mean, std=std)
    model = section(description, "model_cfg")
    vision = section(model, "vision_cfg")
    return Facts(
        activation="quick_gelu" if model.get("quick_gelu", False) else "gelu",
        num_heads=_num_heads(vision),
        layer_norm_eps=1e-5,
        pooling=vision.get("pool_type", "tok"),
        mean=mean,
        std=std,
    )


def _num_heads(vision: Mapping[str, Any]) -> int | None:
    width, head_width = vision.get("width"), vision.get("head_width", 64)
    if width is None:  # a tower of timm
        return None
    if not all(isinstance(number, int) and number > 0 for number in (width, head_width)):
        raise ValueError(
            f"vision_cfg.width and head_width must be whole numbers, got {width!r}, {head_width!r}"
        )
    return int(width // head_width)


OPEN_CLIP = Format(
    name="open_clip",
    description="open_clip's own vision transformers, e.g. ViT-B-16 of LAION or DataComp",
    kind="clip",
    uses=clip_tower("visual.", "in_proj_"),
    drops=(*TEXT_DROPS, *CUSTOM_TEXT_DROPS, SCALE_DROP),
    facts=open_clip_facts,
    settings_files=(DESCRIPTION,),
)
BLOCK, OURS = "vision_model.encoder.layers.#.", "vision.blocks.#."
EMBEDDINGS = "vision_model.embeddings."
MODEL, PIXELS = "config.json", "preprocessor_config.json"


def huggingface_facts(descriptions: Descriptions, _config: VisionConfig) -> Facts:
    """What the two files say; what `config.json` leaves out has the default of transformers."""
    model, pixels = descriptions[MODEL], descriptions[PIXELS]
    mean, std = (as_stated(pixels.get(name)) for name in ("image_mean", "image_std"))
    if not model:
        return Facts(pooling="tok", mean=mean, std=std)
    vision = section(model, "vision_config") if "vision_config" in model else model
    return Facts(
        activation=vision.get("hidden_act", "quick_gelu"),
        num_heads=vision.get("num_attention_heads", 12),
        layer_norm_eps=vision.get("layer_norm_eps", 1e-5),
        pooling="tok",
        mean=mean,
        std=std,
    )


HUGGINGFACE = Format(
    name="huggingface",
    description="Hugging Face CLIP: folder or file of CLIPModel or CLIPVisionModelWithProjection",
    kind="clip",
    uses=(
        Use(f"{EMBEDDINGS}class_embedding", "vision.class_embedding"),
        Use(f"{EMBEDDINGS}position_embedding.weight", "vision.position_embedding"),
        Use(f"{EMBEDDINGS}patch_embedding.weight", "vision.patch_embed.weight"),
        Use("vision_model.pre_layrnorm.&", "vision.norm_pre.&"),  # sic
        Use(f"{BLOCK}layer_norm1.&", f"{OURS}norm1.&"),
        *(
            Use(f"{BLOCK}self_attn.{name}_proj.&", f"{OURS}attention.qkv.&", part=i, num_parts=3)
            for i, name in enumerate("qkv")
        ),
        Use(f"{BLOCK}self_attn.out_proj.&", f"{OURS}attention.out.&"),
        Use(f"{BLOCK}layer_norm2.&", f"{OURS}norm2.&"),
        Use(f"{BLOCK}mlp.fc1.&", f"{OURS}mlp.fc1.&"),
        Use(f"{BLOCK}mlp.fc2.&", f"{OURS}mlp.fc2.&"),
        Use("vision_model.post_layernorm.&", "vision.norm_post.&"),
        Use("visual_projection.weight", "vision.projection.weight"),
    ),
    drops=(
        Drop(f"{EMBEDDINGS}position_ids", "counts from 0"),
        Drop("text_model.embeddings.position_ids", "counts from 0"),
        Drop("text_model.embeddings.*", OTHER_TEXT_TOWER),
        Drop("text_model.encoder.layers.*", OTHER_TEXT_TOWER),
        Drop("text_model.final_layer_norm.&", OTHER_TEXT_TOWER),
        Drop("text_projection.weight", OTHER_TEXT_TOWER),
        SCALE_DROP,
    ),
    facts=huggingface_facts,
    settings_files=(MODEL, PIXELS),
)
ROPE = "follows from the grid of patches"


def eva_tower(prefix: str) -> tuple[Use, ...]:
    """EVA-CLIP's names; queries and values have their bias inside or beside the projection."""
    block, ours = f"{prefix}blocks.#.", "vision.blocks.#."
    return (
        Use(f"{prefix}cls_token", "vision.class_embedding", without_batch),
        Use(f"{prefix}pos_embed", "vision.position_embedding", without_batch),
        Use(f"{prefix}patch_embed.proj.&", "vision.patch_embed.&"),
        Use(f"{block}norm1.&", f"{ours}norm1.&"),
        Use(f"{block}attn.q_proj.&", f"{ours}attention.q.&"),
        Use(f"{block}attn.q_bias", f"{ours}attention.q.bias"),
        Use(f"{block}attn.k_proj.weight", f"{ours}attention.k.weight"),
        Use(f"{block}attn.v_proj.&", f"{ours}attention.v.&"),
        Use(f"{block}attn.v_bias", f"{ours}attention.v.bias"),
        Use(f"{block}attn.inner_attn_ln.&", f"{ours}attention.norm.&"),
        Use(f"{block}attn.proj.&", f"{ours}attention.out.&"),
        Use(f"{block}norm2.&", f"{ours}norm2.&"),
        Use(f"{block}mlp.w1.&", f"{ours}mlp.w1.&"),
        Use(f"{block}mlp.w2.&", f"{ours}mlp.w2.&"),
        Use(f"{block}mlp.ffn_ln.&", f"{ours}mlp.norm.&"),
        Use(f"{block}mlp.w3.&", f"{ours}mlp.w3.&"),
        Use(f"{prefix}norm.&", "vision.norm_post.&"),
        Use(f"{prefix}head.&", "vision.projection.&"),
    )


ROPE_DROPS = (
    Drop("visual.rope.freqs_cos", ROPE),
    Drop("visual.rope.freqs_sin", ROPE),
    Drop("visual.blocks.#.attn.rope.freqs_cos", ROPE),
    Drop("visual.blocks.#.attn.rope.freqs_sin", ROPE),
)


def eva_facts(_descriptions: Descriptions, config: VisionConfig) -> Facts:
    """EVA02-CLIP's configurations agree in these."""
    return Facts(
        activation="swiglu",
        num_heads=config.width // 64,
        layer_norm_eps=1e-6,
        rope_grid=16,
        pooling="tok",
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )


EVA_CLIP = Format(
    name="eva_clip",
    description="EVA02-CLIP of QuanSun/EVA-CLIP, e.g. EVA02_CLIP_B_psz16_s8B.pt",
    kind="eva02",
    uses=eva_tower("visual."),
    drops=(*ROPE_DROPS, *TEXT_DROPS, *CUSTOM_TEXT_DROPS, SCALE_DROP),
    facts=eva_facts,
)


def timm_tower(prefix: str) -> tuple[Use, ...]:
    """timm's names of an EVA02 vision transformer with sub-LN."""
    block, ours = f"{prefix}blocks.#.", "vision.blocks.#."
    return (
        Use(f"{prefix}cls_token", "vision.class_embedding", without_batch),
        Use(f"{prefix}pos_embed", "vision.position_embedding", without_batch),
        Use(f"{prefix}patch_embed.proj.&", "vision.patch_embed.&"),
        Use(f"{block}norm1.&", f"{ours}norm1.&"),
        Use(f"{block}attn.q_proj.&", f"{ours}attention.q.&"),
        Use(f"{block}attn.k_proj.weight", f"{ours}attention.k.weight"),
        Use(f"{block}attn.v_proj.&", f"{ours}attention.v.&"),
        Use(f"{block}attn.norm.&", f"{ours}attention.norm.&"),
        Use(f"{block}attn.proj.&", f"{ours}attention.out.&"),
        Use(f"{block}norm2.&", f"{ours}norm2.&"),
        Use(f"{block}mlp.fc1_g.&", f"{ours}mlp.w1.&"),
        Use(f"{block}mlp.fc1_x.&", f"{ours}mlp.w2.&"),
        Use(f"{block}mlp.norm.&", f"{ours}mlp.norm.&"),
        Use(f"{block}mlp.fc2.&", f"{ours}mlp.w3.&"),
        Use(f"{prefix}norm.&", "vision.norm_post.&"),
        Use(f"{prefix}head.&", "vision.projection.&"),
    )


def timm_facts(descriptions: Descriptions, _config: VisionConfig) -> Facts:
    """timm's EVA02 CLIP models agree in these; the number of heads is in no tensor."""
    pixels = section(descriptions[DESCRIPTION], "preprocess_cfg")  # of open_clip, if it is there
    return Facts(
        activation="swiglu",
        layer_norm_eps=1e-6,
        rope_grid=16,
        pooling="tok",
        mean=as_stated(pixels.get("mean", CLIP_MEAN)),
        std=as_stated(pixels.get("std", CLIP_STD)),
    )


TIMM = Format(
    name="timm",
    description="EVA02-CLIP in timm's names, alone or in open_clip's state dict",
    kind="eva02",
    uses=(*timm_tower("visual.trunk."), *timm_tower("")),
    drops=(*CUSTOM_TEXT_DROPS, SCALE_DROP),
    facts=timm_facts,
    settings_files=(DESCRIPTION,),
)
NUM_BLOCKS = 4
ADAPTOR = "text.text_adaptor."
# One list of modules there: four blocks, then the norm and the projection.
ADAPTOR_USES = (
    *(
        Use(f"{ADAPTOR}{i}.{theirs}.&", f"adaptor.blocks.{i}.{ours}.&")
        for i in range(NUM_BLOCKS)
        for theirs, ours in (("ln", "norm"), ("fn.0", "fc1"), ("fn.3", "fc2"))
    ),
    Use(f"{ADAPTOR}{NUM_BLOCKS}.&", "adaptor.norm.&"),
    Use(f"{ADAPTOR}{NUM_BLOCKS + 1}.&", "adaptor.projection.&"),
)

LLM2CLIP = Format(
    name="llm2clip",
    description="LLM2CLIP's EVA02 models with their text adaptor, e.g. LLM2CLIP-EVA02-B-16.pt",
    kind="eva02",
    uses=(*eva_tower("visual."), *ADAPTOR_USES),
    drops=(*ROPE_DROPS, SCALE_DROP),
    facts=eva_facts,
    has_adaptor=True,
)
ALPHACLIP = Format(
    name="alphaclip",
    description="AlphaCLIP's state dict of the vision tower, e.g. clip_b16_grit20m_fultune_2xe.pth",
    kind="clip",
    uses=(*clip_tower("", "in_proj."), Use("conv1_alpha.weight", "vision.mask_embed.weight")),
    drops=(),
    facts=openai_facts,
    has_mask=True,
)
RELEASED = Format(
    name="pixclip",
    description="PixCLIP's own release, iter_8700.pth: EVA02-B/16 with a biased mask convolution",
    kind="eva02",
    uses=(
        *eva_tower("visual."),
        Use("visual.alpha_patch_embed.proj.&", "vision.mask_embed.&"),
        *ADAPTOR_USES,
    ),
    drops=(
        *ROPE_DROPS,
        SCALE_DROP,
        Drop("l2v.*", "the language model, which is an artifact of its own"),
    ),
    facts=eva_facts,
    has_mask=True,
    has_adaptor=True,
    mask_bias=True,
)
FORMATS: dict[str, Format] = {
    format_.name: format_
    for format_ in (
        OPENAI,
        OPEN_CLIP,
        HUGGINGFACE,
        EVA_CLIP,
        TIMM,
        LLM2CLIP,
        ALPHACLIP,
        RELEASED,
    )
}


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        ValueError: no such format; names those that exist.
    """
    if name not in FORMATS:
        raise ValueError(f"no format '{name}' of weights; known are {', '.join(FORMATS)}")
    return FORMATS[name]
