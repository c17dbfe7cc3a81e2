"""What the card and the page say of where the images come from, and under which licence."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A source of images in words."""

    name: str
    pictures: str  # what one calls its images
    nature: str  # what they are and are not
    licence: str


SOURCES = {
    "sample": Source(
        "composed sample",
        "composed scenes",
        "The images are composed scenes: photographs of single objects pasted on photographic "
        "backgrounds by `pixclip sample-grit`. They look pasted and are not natural photographs: "
        "numbers measured on them say little about photographs of the world.",
        "Objects and backgrounds are photographs from Debian packages (`tuxpaint-stamps-default`, "
        "`mate-backgrounds` and others); each package's `copyright` file names the authors and "
        "the free licences of its files.",
    ),
    "grit": Source(
        "GRIT",
        "photographs from the web",
        "The images were downloaded from the addresses of GRIT-20M "
        "(https://huggingface.co/datasets/zzliang/GRIT), itself drawn from COYO-700M and LAION-2B.",
        "GRIT's metadata are under the MS-PL. The images belong to their authors and are under "
        "their own terms; each sample keeps its address in `url`.",
    ),
    "own": Source(
        "own images",
        "photographs",
        "The images and boxes come from the operator's own folder and COCO annotation file.",
        "The images are under the terms of their owner.",
    ),
}
