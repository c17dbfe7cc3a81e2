"""EVA02-CLIP in timm's names, as open_clip's EVA02-B-16 has it below `visual.trunk.`."""

from pixclip.config import CLIP_MEAN, CLIP_STD, VisionConfig
from pixclip.importers.open_clip import CUSTOM_TEXT_DROPS, DESCRIPTION
from pixclip.importers.openai import SCALE_DROP
from pixclip.importers.rules import (
    Descriptions,
    Facts,
    Format,
    Use,
    as_stated,
    section,
    without_batch,
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
