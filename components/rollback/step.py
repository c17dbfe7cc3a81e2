"""Make the previous champion the champion again: `pixclip rollback --promotion …`."""

from components.kernel.step import Metrics, Out, step
from components.rollback.settings import RollbackSettings


@step(image="train")
def rollback(promotion: Out, settings: RollbackSettings) -> Metrics:
    """Make the previous champion the champion again."""
    raise NotImplementedError
