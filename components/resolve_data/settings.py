"""The settings of resolve_data."""

from pydantic import Field

from components.kernel.step import StepSettings, runtime


class ResolveDataSettings(StepSettings):
    """Which version of the data set, and where it is kept."""

    repository: str = Field(
        "runs/repository",
        description="folder or URL of the Git repository that keeps the versions under DVC",
    )
    revision: str = Field(
        "HEAD",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
        description="branch, tag or full commit of the version",
    )
    name: str = Field(
        "longgrit",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="name of the data set inside the repository",
    )
    uri: str = Field(
        "",
        description="instead of a repository: folder or s3://bucket/prefix of a data set that is "
        "not under DVC",
    )
    endpoint_url: str = runtime("", "URL of an S3 server that is not AWS's; empty: AWS")
