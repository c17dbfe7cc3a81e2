"""The names of the container images in which steps run, one per folder of `images/`."""

import os

# kfp's Docker runner pulls whatever is not there under exactly this name and tag. A name of the
# reserved domain example.test can only be built here, never be fetched from a stranger.
DEFAULT_REPOSITORY, DEFAULT_TAG = "example.test", "dev"


def image(name: str) -> str:
    """The full name of an image, e.g. `example.test/pixclip-data:dev`.

    A cluster sets `PIXCLIP_IMAGE_REPOSITORY` and `PIXCLIP_IMAGE_TAG` before components are
    compiled.
    """
    repository = os.environ.get("PIXCLIP_IMAGE_REPOSITORY", DEFAULT_REPOSITORY)
    tag = os.environ.get("PIXCLIP_IMAGE_TAG", DEFAULT_TAG)
    return f"{repository}/pixclip-{name}:{tag}"
