"""What goes into a describer and what comes out of it.

A describer gets a scene (one image with its regions) and gives, in the order of the regions, a
`Description` or a `Rejection` for each of them. Two exist: `components.describe.embedded`
(rules over what is measured; no model) and `components.describe.endpoints` (language models
behind HTTP).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

from pixclip.masks import Box, Rle


@dataclass(frozen=True)
class Region:
    """One row of the `regions` artifact, decoded; `phrase` and `image_caption` are untrusted."""

    region_id: str
    image_sha256: str
    image_width_px: int
    image_height_px: int
    box_xyxy: Box
    phrase: str
    image_caption: str
    rle: Rle


@dataclass(frozen=True)
class Scene:
    """One upright RGB image with its regions."""

    image_sha256: str
    image: Image.Image
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class Provenance:
    """Who said a text: for a model also with which prompt and on which request."""

    describer: str  # "embedded-rules" or "endpoints"
    model: str
    prompt: str = ""
    prompt_version: str = ""
    request_hash: str = ""


@dataclass(frozen=True)
class Usage:
    """What describing a region took; retries of failed requests are not counted."""

    num_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost_usd: float = 0.0


@dataclass(frozen=True)
class Description:
    """The texts of an accepted region; `provenance` goes by stage ("object", "verify", …)."""

    region_id: str
    object_caption: str
    verdict: str  # "accepted"
    verdict_reason: str
    context_caption: str
    long_caption: str
    short_caption: str
    provenance: Mapping[str, Provenance]
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class Rejection:
    """A region that gets no description: the stage, a short code, and why in words."""

    region_id: str
    stage: str
    reason: str  # short code, counted in the metrics
    detail: str = ""  # the verifier's own reason, or values and advice for a person
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


Outcome = Description | Rejection


@dataclass(frozen=True)
class WordLimits:
    """Numbers of words that a long and a short caption may have."""

    min_long: int
    max_long: int
    min_short: int
    max_short: int
