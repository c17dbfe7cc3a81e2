"""LLM2CLIP's EVA02 models (https://arxiv.org/abs/2411.04997): tower and text adaptor, `.pt`."""

from pixclip.importers.eva_clip import ROPE_DROPS, eva_facts, eva_tower
from pixclip.importers.openai import SCALE_DROP
from pixclip.importers.rules import Format, Use

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
