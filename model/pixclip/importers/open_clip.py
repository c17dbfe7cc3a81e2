"""Vision transformers of open_clip (https://github.com/mlfoundations/open_clip), except timm's."""

from collections.abc import Mapping
from typing import Any

from pixclip.config import VisionConfig
from pixclip.importers.openai import OTHER_TEXT_TOWER, SCALE_DROP, TEXT_DROPS, clip_tower
from pixclip.importers.rules import Descriptions, Drop, Facts, Format, as_stated, section

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
