"""The settings of `rollback`."""

from pydantic import Field

from components.kernel.step import StepSettings
from components.tracking.names import NAME_PATTERN


class RollbackSettings(StepSettings):
    """Which model goes back, to what, and why."""

    model: str = Field("pixclip", pattern=NAME_PATTERN, description="name in the registry")
    version: str = Field(
        "",
        pattern=r"^([1-9][0-9]{0,8})?$",
        description="number of an earlier champion; empty: the one that `previous` points to",
    )
    reason: str = Field(
        "rolled back by hand", min_length=1, description="why, for the promotion log and the tag"
    )
    tracking_uri: str = Field(
        "",
        description="address of MLflow; empty: MLFLOW_TRACKING_URI, or a file below runs/mlflow",
    )
