"""Publish the data set and tell Airflow's asset what was published."""

import json
from typing import Any

from components.operators.step import StepOperator


class PublishOperator(StepOperator):
    """Runs `publish`; every outlet asset's event carries the DVC revision, counts and contracts.

    Always on this machine: the data repository outlives the run, and Git, DVC and the committer's
    identity are here and not in an image.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "step": "publish", "backend": "local"})

    def execute(self, context: Any) -> dict[str, int | float]:
        """Publish, and give the assets their facts."""
        metrics = super().execute(context)
        path = self.path(self.outputs["publication"]) / "publication.json"
        publication = json.loads(path.read_text(encoding="utf-8"))
        for asset in self.outlets:
            context["outlet_events"][asset].extra = publication
        return metrics
