"""The step `make_hard_negatives`: captions in, the same with wrong captions beside them.

The engine of `describe` with other stages. FG-CLIP (arXiv:2505.05071) learns from ten such captions
a region.
"""

from typing import TYPE_CHECKING

from components.core.step import In, Metrics, Out, Work, step
from components.data.describe.hard_negatives.settings import (
    HardNegativeSettings,
    require_contrasted_share,
)
from components.data.describe.hard_negatives.writer import ContrastWriter
from components.data.describe.run import Places, describe_regions

if TYPE_CHECKING:
    from components.data.describe.flow import RegionFlow


@step(image="annotate", version=2, gate=require_contrasted_share, work=Work.PORTABLE)
def make_hard_negatives(
    captions: In, images: In, contrasted: Out, ledger: Out, settings: HardNegativeSettings
) -> Metrics:
    """Make wrong captions of every region that differ from the right one in one attribute.

    A language model changes the short caption, rules check that one attribute changed, and a second
    model, which is shown the region, that the new caption is wrong. What is not so is left out with
    its reason, in `_left_out.jsonl`; every region stays. Every answer is kept: a killed run goes on
    without asking it again.
    """
    from components.data.describe.hard_negatives.embedded import EmbeddedContraster

    def find_flow() -> "type[RegionFlow]":
        from components.data.describe.hard_negatives.flow import ContrastFlow

        return ContrastFlow

    places = Places(captions, images, ledger)
    writer = ContrastWriter(contrasted, captions, settings.step)
    return describe_regions(places, writer, settings, EmbeddedContraster(settings), find_flow)
