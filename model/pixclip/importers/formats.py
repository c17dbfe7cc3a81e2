"""The formats by name."""

from pixclip.importers.alphaclip import ALPHACLIP
from pixclip.importers.eva_clip import EVA_CLIP
from pixclip.importers.huggingface import HUGGINGFACE
from pixclip.importers.llm2clip import LLM2CLIP
from pixclip.importers.open_clip import OPEN_CLIP
from pixclip.importers.openai import OPENAI
from pixclip.importers.released import RELEASED
from pixclip.importers.rules import Format
from pixclip.importers.timm import TIMM

FORMATS: dict[str, Format] = {
    format_.name: format_
    for format_ in (
        OPENAI,
        OPEN_CLIP,
        HUGGINGFACE,
        EVA_CLIP,
        TIMM,
        LLM2CLIP,
        ALPHACLIP,
        RELEASED,
    )
}


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        ValueError: no such format; tells which there are.
    """
    if name not in FORMATS:
        raise ValueError(f"no format '{name}' of weights; known are {', '.join(FORMATS)}")
    return FORMATS[name]
