"""Weights of OpenAI's CLIP (https://github.com/openai/CLIP), TorchScript archive or state dict."""

from pixclip.config import CLIP_MEAN, CLIP_STD, VisionConfig
from pixclip.importers.rules import Descriptions, Drop, Facts, Format, Use, transposed

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
