"""AlphaCLIP (https://arxiv.org/abs/2312.03818): the vision tower alone, with a mask convolution."""

from pixclip.importers.openai import clip_tower, openai_facts
from pixclip.importers.rules import Format, Use

ALPHACLIP = Format(
    name="alphaclip",
    description="AlphaCLIP's state dict of the vision tower, e.g. clip_b16_grit20m_fultune_2xe.pth",
    kind="clip",
    uses=(*clip_tower("", "in_proj."), Use("conv1_alpha.weight", "vision.mask_embed.weight")),
    drops=(),
    facts=openai_facts,
    has_mask=True,
)
