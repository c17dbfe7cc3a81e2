"""Make the model that training starts from: `pixclip init-model --text-tower … --parent …`."""

from components.init_model.settings import InitModelSettings
from components.kernel.step import In, Metrics, Out, step


@step(image="train")
def init_model(text_tower: In, parent: Out, settings: InitModelSettings) -> Metrics:
    """Make the model that training starts from, of public weights or at random."""
    raise NotImplementedError
