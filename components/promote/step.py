"""Make the candidate the champion: `pixclip promote --registration … --promotion …`."""

from components.kernel.step import In, Metrics, Out, step
from components.promote.settings import PromoteSettings


@step(image="train")
def promote(registration: In, promotion: Out, settings: PromoteSettings) -> Metrics:
    """Make the candidate the champion, if it passes the policy."""
    raise NotImplementedError
