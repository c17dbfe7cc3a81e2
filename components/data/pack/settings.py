"""The settings of pack, and what card and page say of each source of images."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from components.core.step import StepSettings
from components.data.pack.plan import SplitRule


class PackSettings(StepSettings):
    """How the data set is divided, cut into shards and shown."""

    seed: int = Field(0, ge=0, description="decides splits and order of the images")
    images_per_shard: int = Field(1000, ge=1, description="images in one tar")
    val_share: float = Field(
        0.05, ge=0, lt=1, description="share of the images not in the benchmark that becomes `val`"
    )
    benchmark_regions: int = Field(
        2000, ge=0, description="regions drawn for the benchmark if the source marks none"
    )
    benchmark_max_share: float = Field(
        0.1, ge=0, le=1, description="largest share of the undecided regions that may be drawn"
    )
    near_duplicate_distance: int = Field(
        4, ge=0, le=32, description="bits (of 64) in which perceptual hashes of look-alikes differ"
    )
    dataset: Literal["longgrit", "fgpart", "finehard"] = Field(
        "longgrit", description="what is packed; decides what card and page call it"
    )
    source: Literal["sample", "grit", "own", "parts", "finehard"] = Field(
        "sample", description="where the images come from; decides what the card says of licences"
    )
    licence_note: str = Field("", description="a sentence for the card's section on licences")
    report_images: int = Field(18, ge=0, le=60, description="images shown in full on report.html")
    report_rejected: int = Field(24, ge=0, le=60, description="rejected regions on report.html")

    def split_rule(self) -> SplitRule:
        """The settings that divide the images."""
        return SplitRule(
            seed=self.seed,
            val_share=self.val_share,
            benchmark_regions=self.benchmark_regions,
            benchmark_max_share=self.benchmark_max_share,
            near_duplicate_distance=self.near_duplicate_distance,
        )


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
    "parts": Source(
        "published data sets of objects with parts",
        "photographs",
        "The images are those of the training splits of the data sets that `import_parts` was "
        "given (CUB-200-2011, Birdsnap, NABirds, FGVC-Aircraft, Stanford Cars, or COCO files). "
        "None of them has boxes of parts that people drew: where a box comes from is in each "
        "region's `box_source` (`points`: a rule around the annotated point, which is `point_xy`; "
        "`detector:…`: a model; `published`: the source's file).",
        "Images and annotations are under the terms of each data set, most of which allow research "
        "alone; the captions may be no freer.",
    ),
    "finehard": Source(
        "FineHARD",
        "photographs from the web",
        "The images were downloaded from the addresses of FineHARD "
        "(https://huggingface.co/datasets/qihoo360/FineHARD), which are GRIT's and so COYO-700M's. "
        "Captions, boxes and wrong captions are as its authors publish them: by language models "
        "and an open-vocabulary detector, not by people, and nothing here verified them.",
        "FineHARD's annotations are published under Apache-2.0. The images belong to their authors "
        "and are under their own terms.",
    ),
}


@dataclass(frozen=True)
class DatasetWords:
    """A data set in words, and the steps that can lose regions of it."""

    title: str
    each_region: str  # what every region has, after "Each region has"
    making: str
    funnel: tuple[str, ...]
    is_checked: bool = True  # whether the captions were verified against the images


DATASETS = {
    "longgrit": DatasetWords(
        "LongGRIT",
        "a mask, an object caption that was verified against the image, a context caption",
        "A region's object caption is written from its pixels and verified; a context caption says "
        "where it is among the others; both are merged into the long caption, shortened into the "
        "short one, and the merge is checked. Every region says in `provenance` who spoke at each "
        "stage.",
        ("select", "ingest", "deduplicate", "segment", "describe"),
    ),
    "fgpart": DatasetWords(
        "FG-Part",
        "a box and a mask, a caption of the part that was verified against the image, its place on "
        "the object",
        "A region is a part of an object, or the image as a whole, whose captions are the sample's "
        "`long_caption` and `short_caption` too. A part's caption is written from its crop by the "
        "prompt of its super-class (`subset`) and verified; so are the whole image's captions. "
        "Images that equal or look like an image of a configured test split were left out. Every "
        "region says in `provenance` who spoke at each stage, and in `box_source` where its box is "
        "from (`image`: it is the whole image).",
        ("select", "ingest", "deduplicate", "segment", "describe_parts"),
    ),
    "finehard": DatasetWords(
        "FineHARD",
        "a box, a short and a long caption, and ten wrong captions of many",
        "A region is a box of FineHARD, or the image as a whole, whose captions are the sample's "
        "`long_caption` and `short_caption` too. A region's mask is its box, `short_caption` its "
        "`short_expr`, `long_caption` its `long_expr`, and `hard_negatives` its `short_expr_negs` "
        "where `flag_short_neg` says that there are any. `box_source` is `image` of the whole "
        "image and `finehard` of a box.",
        ("import_finehard", "decontaminate"),
        is_checked=False,
    ),
}
