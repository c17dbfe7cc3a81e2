"""The step `describe`: region rows in, verified captions out."""

from typing import TYPE_CHECKING

from components.core.step import In, Metrics, Out, Work, step
from components.data.describe.outcomes import DescriptionWriter
from components.data.describe.run import Places, describe_regions, require_accepted_share
from components.data.describe.settings import DescribeSettings

if TYPE_CHECKING:
    from components.data.describe.flow import RegionFlow


@step(image="annotate", version=3, gate=require_accepted_share, work=Work.PORTABLE)
def describe(
    regions: In,
    images: In,
    captions: Out,
    quarantine: Out,
    ledger: Out,
    settings: DescribeSettings,
) -> Metrics:
    """Describe every region in stages and verify it.

    Object caption, verification against the image, context caption, long and short caption, and a
    last check that the merge kept object and location. Rejected regions go to the quarantine with
    the verifier's reason. Every answer is kept: a killed run goes on without asking it again.
    """
    from components.data.describe.embedded import EmbeddedDescriber

    def find_flow() -> "type[RegionFlow]":
        from components.data.describe.flow import ObjectFlow

        return ObjectFlow

    places = Places(regions, images, ledger)
    writer = DescriptionWriter(captions, quarantine, settings.step)
    describer = EmbeddedDescriber(settings.word_limits)
    return describe_regions(places, writer, settings, describer, find_flow)
