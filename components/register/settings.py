"""The settings of `register`."""

from pydantic import Field

from components.kernel.step import StepSettings, runtime
from components.tracking.names import NAME_PATTERN


class RegisterSettings(StepSettings):
    """Under which name, and what is known of the model's origin."""

    model: str = Field("pixclip", pattern=NAME_PATTERN, description="name in the registry")
    recipe: str = Field(
        "", description="recipe of the training; empty: as the checkpoint's receipt says"
    )
    stage: str = Field(
        "", description="last stage of the training; empty: as the checkpoint's receipt says"
    )
    data_revision: str = Field(
        "",
        description="DVC revision of the data: the commit of its repository; empty: as the "
        "evaluation says",
    )
    is_sample: bool = Field(
        True, description="trained on the composed sample; the model card says what that means"
    )
    tracking_uri: str = Field(
        "",
        description="address of MLflow; empty: MLFLOW_TRACKING_URI, or a file below runs/mlflow",
    )
    git_commit: str = runtime(
        "", "commit of this code; empty: PIXCLIP_GIT_COMMIT, or the checkout's"
    )
    image_digest: str = runtime(
        "", "digest of the container image; empty: PIXCLIP_IMAGE_DIGEST, or none"
    )
    experiment: str = runtime("pixclip", "MLflow experiment that keeps the run", min_length=1)
