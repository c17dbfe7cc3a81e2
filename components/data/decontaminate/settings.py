"""Settings of `decontaminate`."""

from pydantic import Field

from components.core.step import runtime, source, threshold
from components.data.formats.sources import PartSources


class DecontaminateSettings(PartSources):
    """Whose test images must not be trained on, and what counts as the same image."""

    evaluation_images: str = source(
        "",
        "further evaluation images, e.g. of a retrieval benchmark: every image in a folder, an "
        "archive, or either in S3",
    )
    max_phash_distance: int = Field(
        6,
        description="largest distance of two images' 64-bit perceptual hashes, in bits, at which "
        "they count as the same; re-encoded and resized copies differ in up to 4. A training image "
        "too many is a smaller loss than a test that was learnt, so it is more than "
        "deduplicate.max_phash_distance",
        ge=0,
        le=10,
    )
    max_missing_share: float = threshold(
        0.1,
        "share of evaluation images that may be missing or unreadable (a twentieth of Birdsnap's "
        "links are dead): against them nothing is compared",
        ge=0,
        le=1,
    )
    max_leaked_share: float = threshold(
        0.2,
        "share of regions that may be leakage; more speak of an evaluation set that was named by "
        "mistake, e.g. the training images themselves",
        ge=0,
        le=1,
    )
    cache_folder: str = runtime(
        "",
        "folder that keeps the hashes of evaluation images for other runs; empty: the unfinished "
        "work of this one, in which a killed run finds them again",
    )
