"""EVA02-CLIP (arXiv:2303.15389) in its names and timm's, LLM2CLIP (arXiv:2411.04997), PixCLIP."""

from pixclip.config import CLIP_MEAN, CLIP_STD, ModelConfig
from pixclip.importers.rules import (
    DESCRIPTION,
    SCALE_DROP,
    Descriptions,
    Drop,
    Facts,
    Format,
    Use,
    as_stated,
    section,
    without_batch,
)
from pixclip.importers.text_rules import OTHER_TEXT_DROPS, openai_text, usual_text

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


def eva_facts(_descriptions: Descriptions, config: ModelConfig) -> Facts:
    """EVA02-CLIP's configurations agree in these."""
    vision = config.vision
    return Facts(
        activation="swiglu",
        num_heads=vision.width // 64,
        image_size_px=vision.image_size_px,
        layer_norm_eps=1e-6,
        rope_grid=16,
        pooling="tok",
        mean=CLIP_MEAN,
        std=CLIP_STD,
        text=usual_text(config, "gelu"),
    )


EVA_CLIP = Format(
    name="eva_clip",
    description="EVA02-CLIP of QuanSun/EVA-CLIP, e.g. EVA02_CLIP_B_psz16_s8B.pt",
    kind="eva02",
    uses=eva_tower("visual."),
    text_uses=(*openai_text(), *openai_text("text.")),
    drops=(*ROPE_DROPS, *OTHER_TEXT_DROPS, SCALE_DROP),
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


def timm_facts(descriptions: Descriptions, config: ModelConfig) -> Facts:
    """timm's EVA02 CLIP models agree in these; the number of heads is in no tensor."""
    pixels = section(descriptions[DESCRIPTION], "preprocess_cfg")  # of open_clip, if it is there
    return Facts(
        activation="swiglu",
        layer_norm_eps=1e-6,
        rope_grid=16,
        pooling="tok",
        mean=as_stated(pixels.get("mean", CLIP_MEAN)),
        std=as_stated(pixels.get("std", CLIP_STD)),
        text=usual_text(config, "gelu"),
    )


TIMM = Format(
    name="timm",
    description="EVA02-CLIP in timm's names, alone or in open_clip's state dict",
    kind="eva02",
    uses=(*timm_tower("visual.trunk."), *timm_tower("")),
    text_uses=openai_text("text."),
    drops=(*OTHER_TEXT_DROPS, SCALE_DROP),
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
