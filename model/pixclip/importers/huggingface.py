"""Hugging Face's CLIP (transformers' CLIPModel and CLIPVisionModelWithProjection)."""

from collections.abc import Mapping
from typing import Any

from pixclip.config import VisionConfig
from pixclip.importers.openai import OTHER_TEXT_TOWER, SCALE_DROP
from pixclip.importers.rules import Drop, Facts, Format, Use

BLOCK, OURS = "vision_model.encoder.layers.#.", "vision.blocks.#."
EMBEDDINGS = "vision_model.embeddings."


def huggingface_facts(settings: Mapping[str, Any], _config: VisionConfig) -> Facts:
    """What `config.json` says; what it leaves out has the default of transformers."""
    if not settings:
        return Facts()
    vision = settings.get("vision_config", settings)
    return Facts(
        activation=vision.get("hidden_act", "quick_gelu"),
        num_heads=vision.get("num_attention_heads", 12),
        layer_norm_eps=vision.get("layer_norm_eps", 1e-5),
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
    settings_file="config.json",
)
