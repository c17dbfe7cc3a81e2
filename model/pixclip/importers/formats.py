"""The formats of public weights by name: which key is what, and what a source states.

Here OpenAI's CLIP (https://github.com/openai/CLIP), open_clip
(https://github.com/mlfoundations/open_clip), Hugging Face's CLIP, AlphaCLIP (arXiv:2312.03818),
Long-CLIP (arXiv:2403.15378) and FG-CLIP (arXiv:2505.05071); those of EVA02 in `eva_formats`.
"""

from collections.abc import Mapping
from typing import Any

from pixclip.config import CLIP_MEAN, CLIP_STD, ClipTextConfig, ModelConfig
from pixclip.importers.eva_formats import EVA_CLIP, LLM2CLIP, RELEASED, TIMM
from pixclip.importers.rules import (
    DESCRIPTION,
    SCALE,
    SCALE_DROP,
    Descriptions,
    Drop,
    Facts,
    Format,
    TextFacts,
    Use,
    as_stated,
    section,
    transposed,
    unlike,
)
from pixclip.importers.text_rules import (
    EMBEDDINGS as TEXT_EMBEDDINGS,
)
from pixclip.importers.text_rules import (
    OTHER_TEXT_DROPS,
    huggingface_text,
    longclip_text,
    openai_text,
    usual_text,
)


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


def openai_facts(_descriptions: Descriptions, config: ModelConfig) -> Facts:
    """OpenAI's code fixes these for every vision transformer."""
    return Facts(
        activation="quick_gelu",
        num_heads=config.vision.width // 64,
        layer_norm_eps=1e-5,
        image_size_px=config.vision.image_size_px,
        pooling="tok",
        mean=CLIP_MEAN,
        std=CLIP_STD,
        text=usual_text(config, "quick_gelu"),
    )


SIZE_DROPS = tuple(
    Drop(name, "the model's size; the shapes say it")
    for name in ("input_resolution", "context_length", "vocab_size")
)

OPENAI = Format(
    name="openai",
    description="OpenAI CLIP: the published TorchScript archive, or its state dict",
    kind="clip",
    uses=clip_tower("visual.", "in_proj_"),
    text_uses=openai_text(),
    drops=(SCALE_DROP, *SIZE_DROPS),
    facts=openai_facts,
    marks=("input_resolution",),
)
LONGCLIP = Format(
    name="longclip",
    description="Long-CLIP's state dict, e.g. longclip-B.pt: texts of 248 tokens",
    kind="clip",
    uses=clip_tower("visual.", "in_proj_"),
    text_uses=longclip_text(),
    drops=(SCALE_DROP, *SIZE_DROPS),
    facts=openai_facts,
    marks=("positional_embedding_res",),
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

# Settings of open_clip by which a tower would be another than ours.
PLAIN_VISION = {
    "no_ln_pre": False,
    "final_ln_after_pool": False,
    "attentional_pool": False,
    "pos_embed_type": "learnable",
    "ls_init_value": None,
}
PLAIN_TEXT = {
    "no_causal_mask": False,
    "embed_cls": False,
    "hf_model_name": None,
    "proj_type": "linear",
    "proj_bias": False,
    "ls_init_value": None,
}
END_POOLS = ("argmax", "eos")  # both are the first end marker of a text


def open_clip_facts(descriptions: Descriptions, config: ModelConfig) -> Facts:
    """What `open_clip_config.json` says; without it little more than the shapes is known."""
    description = descriptions[DESCRIPTION]
    pixels = section(description, "preprocess_cfg")
    mean, std = (as_stated(pixels.get(name)) for name in ("mean", "std"))
    end_token_id = usual_text(config, None).end_token_id
    if "model_cfg" not in description:
        text = TextFacts(layer_norm_eps=1e-5, end_token_id=end_token_id)
        return Facts(layer_norm_eps=1e-5, mean=mean, std=std, text=text)
    model = section(description, "model_cfg")
    vision, text_cfg = section(model, "vision_cfg"), section(model, "text_cfg")
    pool = text_cfg.get("pool_type", "argmax")
    text_misfits = unlike("text_cfg", text_cfg, PLAIN_TEXT)
    if pool not in END_POOLS:
        text_misfits.append(f"text_cfg.pool_type={pool!r:.80}, only {END_POOLS} are known here")
    return Facts(
        activation=_activation(model, vision),
        num_heads=_num_heads(vision),
        layer_norm_eps=section(vision, "norm_kwargs").get("eps", 1e-5),
        image_size_px=_side(vision.get("image_size", config.vision.image_size_px)),
        pooling=vision.get("pool_type", "tok"),
        mean=mean,
        std=std,
        text=TextFacts(
            activation=_activation(model, text_cfg),
            num_heads=text_cfg.get("heads", 8),
            layer_norm_eps=section(text_cfg, "norm_kwargs").get("eps", 1e-5),
            end_token_id=text_cfg.get("eos_id", end_token_id) if pool == "eos" else end_token_id,
        ),
        misfits=tuple(unlike("vision_cfg", vision, PLAIN_VISION)),
        text_misfits=tuple(text_misfits),
    )


def _activation(model: Mapping[str, Any], tower: Mapping[str, Any]) -> str:
    """quick_gelu, gelu, or gelu with the arguments that make it another."""
    if model.get("quick_gelu", False):
        return "quick_gelu"
    arguments = section(tower, "act_kwargs")
    unusual = {name: value for name, value in arguments.items() if value not in ("none", None)}
    return f"gelu with {unusual}" if unusual else "gelu"


def _side(size: Any) -> Any:
    """The side of a square; anything else as it is."""
    return size[0] if isinstance(size, list) and len(size) == 2 and size[0] == size[1] else size


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
    text_uses=(*openai_text(), *openai_text("text.")),
    drops=(*OTHER_TEXT_DROPS, SCALE_DROP),
    facts=open_clip_facts,
    settings_files=(DESCRIPTION,),
)
BLOCK, OURS = "vision_model.encoder.layers.#.", "vision.blocks.#."
EMBEDDINGS = "vision_model.embeddings."
MODEL, PIXELS = "config.json", "preprocessor_config.json"


def huggingface_facts(descriptions: Descriptions, config: ModelConfig) -> Facts:
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
        image_size_px=vision.get("image_size", config.vision.image_size_px),
        pooling="tok",
        mean=mean,
        std=std,
        text=_huggingface_text_facts(section(model, "text_config"), config),
    )


def _huggingface_text_facts(text: Mapping[str, Any], config: ModelConfig) -> TextFacts:
    """transformers takes the largest id of a text for its end where the end is said to be 2."""
    end = text.get("eos_token_id", 49_407)
    if end == 2 and isinstance(config.text, ClipTextConfig):
        end = config.text.vocab_size - 1
    return TextFacts(
        activation=text.get("hidden_act", "quick_gelu"),
        num_heads=text.get("num_attention_heads", 8),
        layer_norm_eps=text.get("layer_norm_eps", 1e-5),
        end_token_id=end,
    )


HUGGINGFACE_TOWER = (
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
)
POSITION_IDS = (
    Drop(f"{EMBEDDINGS}position_ids", "counts from 0"),
    Drop(f"{TEXT_EMBEDDINGS}position_ids", "counts from 0"),
)

HUGGINGFACE = Format(
    name="huggingface",
    description="Hugging Face CLIP: folder or file of CLIPModel or CLIPVisionModelWithProjection",
    kind="clip",
    uses=HUGGINGFACE_TOWER,
    text_uses=huggingface_text(),
    drops=(*POSITION_IDS, SCALE_DROP),
    facts=huggingface_facts,
    settings_files=(MODEL, PIXELS),
)


def _fgclip(name: str, what: str, text_uses: tuple[Use, ...], others: dict[str, str]) -> Format:
    return Format(
        name=name,
        description=f"FG-CLIP v1: {what}",
        kind="clip",
        uses=HUGGINGFACE_TOWER,
        text_uses=text_uses,
        drops=(
            *POSITION_IDS,
            SCALE_DROP,
            Drop("logit_scale_finegraind", SCALE),  # sic
            Drop("logit_scale_hardneg", SCALE),
            *(Drop(f"{key}.weight", reason) for key, reason in others.items()),
        ),
        facts=huggingface_facts,
        settings_files=(MODEL, PIXELS),
    )


SHORT = "of FG-CLIP's reading of short texts; format fgclip_short takes it"
LONG = "of FG-CLIP's reading of long texts; format fgclip takes it"
TABLE = f"{TEXT_EMBEDDINGS}position_embedding"
FGCLIP = _fgclip(
    "fgclip",
    "its reading of long texts, 248 tokens",
    huggingface_text("text_filip_projection", has_two_tables=True),
    {TABLE: SHORT, "text_projection": SHORT},
)
FGCLIP_SHORT = _fgclip(
    "fgclip_short",
    "its reading of short texts and of boxes, 77 tokens",
    huggingface_text(),
    {f"{TABLE}_ori": LONG, f"{TABLE}_res": LONG, "text_filip_projection": LONG},
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
        LONGCLIP,
        FGCLIP,
        FGCLIP_SHORT,
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
