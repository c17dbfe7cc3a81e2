"""The settings that name part-annotated sources, one a format, and how a source is opened."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.core.digests import file_sha256
from components.core.step import StepSettings, runtime, source
from components.data.formats.aircraft import Aircraft
from components.data.formats.birdsnap import Birdsnap
from components.data.formats.cars import Cars
from components.data.formats.coco_parts import CocoParts
from components.data.formats.cub import Cub, NaBirds
from components.data.formats.files import Files, open_files
from components.data.formats.parts import PartFormat, PartImage
from components.data.formats.values import LeftOut

FORMATS: tuple[PartFormat, ...] = (
    Cub(),
    NaBirds(),
    Birdsnap(),
    Aircraft(),
    Cars(),
    CocoParts(),
)
PLACES = "a folder, an archive of it (.tgz, .tar, .zip), or either in S3"


class PartSources(StepSettings):
    """Published data sets, each as its authors laid it out; empty ones are left out."""

    cub: str = source("", f"CUB-200-2011: {PLACES}", examples=["/data/CUB_200_2011"])
    nabirds: str = source("", f"NABirds: {PLACES}")
    birdsnap: str = source("", f"Birdsnap 1.1 with the photographs that were fetched: {PLACES}")
    aircraft: str = source("", f"FGVC-Aircraft 2013b: {PLACES}")
    cars: str = source("", f"Stanford Cars: {PLACES}")
    coco: str = source("", f"a COCO file whose annotations are parts, with its images: {PLACES}")
    endpoint_url: str = runtime("", "address of the S3 store; empty for AWS")

    def named(self) -> dict[PartFormat, str]:
        """The formats of which a source is named, with its address."""
        named = {kind: str(getattr(self, kind.name)) for kind in FORMATS}
        return {kind: address for kind, address in named.items() if address}


@dataclass(frozen=True)
class OpenedSource:
    """The files of a source, and all that its tables say."""

    name: str
    files: Files
    images: list[PartImage]
    left_out: LeftOut


def open_sources(settings: PartSources, folder: Path, url_folder: str) -> Iterator[OpenedSource]:
    """Read the named sources, one after the other.

    `folder` takes unpacked archives and links to folders; `url_folder` is its path from the root of
    `file:///` addresses.

    Raises:
        InputError: a source is not there, or not laid out as its format is.
    """
    for kind, address in settings.named().items():
        place = place_name(kind.name, address)
        files = open_files(address, settings.endpoint_url, folder / place, f"{url_folder}/{place}")
        left_out = LeftOut()
        yield OpenedSource(kind.name, files, kind.read(files, left_out), left_out)


def place_name(name: str, address: str) -> str:
    """Of an archive here it depends on the content: what was unpacked of another is not read."""
    path = Path(address)
    return f"{name}-{file_sha256(path)[:12]}" if path.is_file() else name
