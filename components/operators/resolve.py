"""Bring the version of the data set that started this run."""

from typing import Any

from components.operators.step import StepOperator
from components.runners.backends import StepRun


class ResolveOperator(StepOperator):
    """Runs `resolve_data` on the version that an asset's event names, if one started the run.

    The event is that of `PublishOperator`: repository, name, commit and S3 server. The params file
    and the run's overrides name the version of other runs. Always on this machine: the repository
    may be any folder of it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "step": "resolve_data", "backend": "local"})
        self.event: dict[str, str] = {}

    def execute(self, context: Any) -> dict[str, int | float]:
        """Bring the data set."""
        self.event = newest_publication(context.get("triggering_asset_events") or {})
        return super().execute(context)

    def step_run(self) -> StepRun:
        """What the backend is asked to run; the event's version wins."""
        run = super().step_run()
        if not self.event:
            return run
        names = {"repository": "repository", "name": "name", "git_commit": "revision"}
        version = {ours: self.event[theirs] for theirs, ours in names.items()}
        # Of our own publication: where its requests may go. Older events do not say.
        if self.event.get("endpoint_url"):
            version["endpoint_url"] = self.event["endpoint_url"]
        settings = {**run.settings, **version, "uri": ""}
        return StepRun(run.step, run.inputs, run.outputs, settings)


def newest_publication(events: Any) -> dict[str, str]:
    """What the newest event of an asset says was published; empty if none started the run."""
    found = [event for asset in events for event in events[asset] if "git_commit" in event.extra]
    newest = max(found, key=lambda event: event.timestamp, default=None)
    return dict(newest.extra) if newest else {}
