"""Hugging Face's CLIP (transformers' CLIPModel and CLIPVisionModelWithProjection)."""

from pixclip.config import VisionConfig
from pixclip.importers.openai import OTHER_TEXT_TOWER, SCALE_DROP
from pixclip.importers.rules import Descriptions, Drop, Facts, Format, Use, as_stated, section

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
