"""The step `describe_parts`: rows of parts and whole images in, verified captions out (FG-Part).

The engine of `describe` with other stages (PA-CLIP, section 3.2): a part is described by itself,
by the prompt of its super-class, and verified; the region that is the whole image gets a long and a
short caption, which become the image's.
"""

from typing import TYPE_CHECKING

from components.core.step import In, Metrics, Out, Work, step
from components.data.describe.outcomes import DescriptionWriter
from components.data.describe.run import Places, describe_regions, require_accepted_share
from components.data.describe.settings import DescribePartsSettings

if TYPE_CHECKING:
    from components.data.describe.flow import RegionFlow


@step(image="annotate", version=2, gate=require_accepted_share, work=Work.PORTABLE)
def describe_parts(
    regions: In,
    images: In,
    captions: Out,
    quarantine: Out,
    ledger: Out,
    settings: DescribePartsSettings,
) -> Metrics:
    """Describe every part and every whole image, and verify what is said.

    In: regions with masks, and their images. Out: each region with an object caption, its place, a
    long and a short caption, and who said and verified them; by measured rules (describer:
    embedded), or by two models behind the endpoints of the stages below. Rejected regions go to
    the quarantine with the verifier's reason. Every answer is kept: a killed run goes on without
    asking it again.
    """
    from components.data.describe.embedded import EmbeddedPartDescriber

    def find_flow() -> "type[RegionFlow]":
        from components.data.describe.part_flow import PartFlow

        return PartFlow

    places = Places(regions, images, ledger)
    writer = DescriptionWriter(captions, quarantine, settings.step)
    describer = EmbeddedPartDescriber(settings.word_limits)
    return describe_regions(places, writer, settings, describer, find_flow)
