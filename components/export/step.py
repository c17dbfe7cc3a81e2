"""Export the data set for others' tools: `pixclip export --longgrit … --exports …`."""

from pydantic import Field

from components.kernel.step import In, Metrics, Out, StepSettings, step


class ExportSettings(StepSettings):
    """How the exports are cut into files."""

    images_per_file: int = Field(
        4000, ge=1, description="images in one Parquet file of the Hugging Face export"
    )


@step(image="data")
def export(longgrit: In, exports: Out, settings: ExportSettings) -> Metrics:
    """Write the data set as COCO JSON (`coco/`) and Hugging Face Parquet (`huggingface/`)."""
    from components.export.coco import write_coco
    from components.export.huggingface import write_huggingface

    num_images = write_coco(longgrit, exports / "coco")
    num_files = write_huggingface(
        longgrit, exports / "huggingface", num_images, settings.images_per_file
    )
    return {"num_images": sum(num_images.values()), "num_parquet_files": num_files}
