"""Settings of `import_finehard`."""

from pydantic import Field

from components.core.step import StepSettings, runtime, source, threshold


class ImportFineHardSettings(StepSettings):
    """Where annotations and images are, and what of them can be used."""

    annotations: str = source(
        "",
        "FineHARD's jsonfiles: one JSON file (.json, .jsonl, either with .gz), or the folder, "
        "archive (.tgz, .tar, .zip) or s3://bucket/prefix that holds them",
        examples=["/data/FineHARD/jsonfiles"],
    )
    images: str = source(
        "",
        "folder, archive or s3://bucket/prefix that f_path starts from; in a folder, "
        "coyo_image_0/00069.tar (as img2dataset writes shards) stands for coyo_image_0/00069/",
        examples=["/data/grit-12m"],
    )
    path_prefixes: tuple[str, ...] = Field(
        ("grit-20m/data-12m/", "data/grit-12m/", "data/down-grit-12m/"),
        description="beginnings of f_path that are no folders below the images: they are left out",
    )
    images_per_group: int = Field(1000, ge=1, description="entries in a group, a tar and a table")
    max_bytes: int = Field(20_000_000, ge=1, description="largest file of an image, in bytes")
    max_pixels: int = Field(50_000_000, ge=1, le=50_000_000, description="largest image, in pixels")
    min_side_px: int = Field(100, ge=1, description="smallest short side of an image, in pixels")
    min_box_side_px: float = Field(
        8.0, ge=1, description="smallest short side of a box in its image, in pixels"
    )
    num_negatives: int = Field(
        10, ge=1, description="hard negatives that a region has whose flag_short_neg is 1"
    )
    max_missing_share: float = threshold(
        0.7, "share of images that may be missing: of FineHARD's links half may be dead", ge=0, le=1
    )
    max_lost_share: float = threshold(
        0.1, "share of the regions of images that are there that may be lost", ge=0, le=1
    )
    endpoint_url: str = runtime("", "address of the S3 store; empty for AWS")
    num_threads: int = runtime(0, "threads that read images; 0 means one a core", ge=0)
