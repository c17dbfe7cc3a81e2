"""Register the checkpoint in the MLflow registry as the candidate: `pixclip register --checkpoint … --evaluation …`."""

from components.kernel.step import In, Metrics, Out, step
from components.register.settings import RegisterSettings


@step(image="train")
def register(
    checkpoint: In, evaluation: In, registration: Out, settings: RegisterSettings
) -> Metrics:
    """Register the checkpoint in the MLflow registry as the candidate."""
    raise NotImplementedError
