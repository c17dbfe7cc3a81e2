"""PixCLIP as its authors released it (`iter_8700.pth`): LLM2CLIP and a mask convolution."""

from pixclip.importers.eva_clip import ROPE_DROPS, eva_facts, eva_tower
from pixclip.importers.llm2clip import ADAPTOR_USES
from pixclip.importers.openai import SCALE_DROP
from pixclip.importers.rules import Drop, Format, Use

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
