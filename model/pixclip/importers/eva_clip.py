"""EVA02-CLIP as published in QuanSun/EVA-CLIP (https://arxiv.org/abs/2303.15389)."""

from pixclip.config import CLIP_MEAN, CLIP_STD, VisionConfig
from pixclip.importers.open_clip import CUSTOM_TEXT_DROPS
from pixclip.importers.openai import SCALE_DROP, TEXT_DROPS
from pixclip.importers.rules import Descriptions, Drop, Facts, Format, Use, without_batch

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
