"""Vision transformers of open_clip (https://github.com/mlfoundations/open_clip), except timm's."""

from collections.abc import Mapping
from typing import Any

from pixclip.config import VisionConfig
from pixclip.importers.openai import OTHER_TEXT_TOWER, SCALE_DROP, TEXT_DROPS, clip_tower
from pixclip.importers.rules import Drop, Facts, Format

# Models with `custom_text` in their configuration keep the text tower below `text.`.
CUSTOM_TEXT_DROPS = (
    *(Drop(f"text.{drop.source}", drop.reason) for drop in TEXT_DROPS),
    Drop("text.transformer.*", OTHER_TEXT_TOWER),
    Drop("text.proj.*", OTHER_TEXT_TOWER),
)


def open_clip_facts(settings: Mapping[str, Any], _config: VisionConfig) -> Facts:
    """What `open_clip_config.json` says; without it the activation is not known."""
    model = settings.get("model_cfg")
    if model is None:
        return Facts(layer_norm_eps=1e-5)
    vision = model.get("vision_cfg", {})
    width = vision.get("width")  # towers of timm and ResNets have none
    return Facts(
        activation="quick_gelu" if model.get("quick_gelu", False) else "gelu",
        num_heads=width and width // vision.get("head_width", 64),
        layer_norm_eps=1e-5,
    )


OPEN_CLIP = Format(
    name="open_clip",
    description="open_clip's own vision transformers, e.g. ViT-B-16 of LAION or DataComp",
    kind="clip",
    uses=clip_tower("visual.", "in_proj_"),
    drops=(*TEXT_DROPS, *CUSTOM_TEXT_DROPS, SCALE_DROP),
    facts=open_clip_facts,
    settings_file="open_clip_config.json",
)
