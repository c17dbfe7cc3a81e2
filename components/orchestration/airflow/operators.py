"""Run a step as an Airflow task: `StepOperator(step="select", inputs={…}, outputs={…})`.

Operators of its kind run the chosen source, resolve and publish the data set with its asset;
`PageLink` is the button that opens a task's page.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from components.core.errors import ContractViolation, GateError, InputError, SettingsError
from components.orchestration.home import at_home, project_home
from components.orchestration.local import StepRun, open_backend

log = logging.getLogger(__name__)

# The same input and settings fail the same way again: a retry would only cost time.
FINAL_ERRORS = (ContractViolation, GateError, InputError, SettingsError)


class StepOperator(BaseOperator):
    """Runs the Kubeflow component of a step on artifacts below a run folder.

    Paths are relative to the run folder; `{group}` in them is the group over which the task is
    mapped. Settings come from the step's section of the params file, from `settings` (empty texts
    count as not given), and from the run's `overrides`, the later winning. The metrics are the
    task's XCom.

    Contract violations, gates, bad settings and missing inputs fail at once; anything else is
    retried, and a retry goes on where the killed attempt stopped.

    Args:
        page: path of a web page that the step writes; it becomes a link at the task.
    """

    template_fields: Sequence[str] = (
        "step", "inputs", "outputs", "settings", "group", "page",
        "run_folder", "params_file", "overrides", "backend",
    )  # fmt: skip
    template_fields_renderers = {"inputs": "json", "outputs": "json", "settings": "json"}  # noqa: RUF012
    ui_color = "#dceefb"

    def __init__(
        self,
        *,
        step: str,
        outputs: Mapping[str, str],
        inputs: Mapping[str, str] | None = None,
        settings: Mapping[str, object] | None = None,
        group: str = "",
        page: str = "",
        run_folder: str = "{{ params.run_folder }}",
        params_file: str = "{{ params.params_file }}",
        overrides: str = "{{ params.overrides | tojson }}",
        backend: str = "{{ params.backend }}",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.step, self.group, self.page = step, group, page
        self.inputs, self.outputs = dict(inputs or {}), dict(outputs)
        self.settings = dict(settings or {})
        self.run_folder, self.params_file = run_folder, params_file
        self.overrides, self.backend = overrides, backend
        if page:
            self.operator_extra_links = (PageLink(),)

    def execute(self, context: Any) -> dict[str, int | float]:
        """Run the step; the result is the task's XCom."""
        try:
            metrics = open_backend(self.backend).run(self.step_run())
        except FINAL_ERRORS as error:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        log.info("%s: %s", self.step, json.dumps(metrics, sort_keys=True))
        if self.page:
            log.info("open %s", self.path(self.page))
        return metrics

    def step_run(self) -> StepRun:
        """What the backend is asked to run."""
        # Airflow has put the templates' values into the fields by now.
        from components.orchestration.plan import step_settings

        overrides = json.loads(self.overrides)
        own = {name: value for name, value in self.settings.items() if value != ""}
        return StepRun(
            step=self.step,
            inputs={name: self.path(path) for name, path in self.inputs.items()},
            outputs={name: self.path(path) for name, path in self.outputs.items()},
            settings=step_settings(self.step, at_home(self.params_file), overrides, own),
        )

    def path(self, path: str) -> Path:
        """A path of this task's run folder and group."""
        return at_home(self.run_folder) / path.format(group=self.group)


class WantedOperator(StepOperator):
    """Runs a step if a parameter of the run, of truth values, says so; else the task is skipped."""

    template_fields: Sequence[str] = (*StepOperator.template_fields, "wanted")

    def __init__(self, *, parameter: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wanted = f"{{{{ params.{parameter} | tojson }}}}"

    def execute(self, context: Any) -> dict[str, int | float]:
        """Run the step, if it is wanted."""
        if not json.loads(self.wanted):
            raise AirflowSkipException(f"this run does not want {self.step}")
        return super().execute(context)


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
        settings = {**run.settings, **version_settings(self.event)}
        return StepRun(run.step, run.inputs, run.outputs, settings)


def version_settings(event: Mapping[str, str]) -> dict[str, str]:
    """The settings of `resolve_data` for the very version that an event names; none of none."""
    if not event:
        return {}
    names = {"repository": "repository", "name": "name", "git_commit": "revision"}
    version = {ours: event[theirs] for theirs, ours in names.items()}
    # Of our own publication: where its requests may go. Older events do not say.
    if event.get("endpoint_url"):
        version["endpoint_url"] = event["endpoint_url"]
    return {**version, "uri": ""}


def newest_publication(events: Any) -> dict[str, str]:
    """What the newest event of an asset says was published; empty if none started the run."""
    found = [event for asset in events for event in events[asset] if "git_commit" in event.extra]
    newest = max(found, key=lambda event: event.timestamp, default=None)
    return dict(newest.extra) if newest else {}


class SourceOperator(StepOperator):
    """Runs one of several source steps; `addresses` holds the settings of each.

    Those named in `quarantined` write a quarantine too.
    """

    template_fields: Sequence[str] = (*StepOperator.template_fields, "addresses")
    template_fields_renderers = {  # noqa: RUF012
        **StepOperator.template_fields_renderers,
        "addresses": "json",
    }

    def __init__(
        self,
        *,
        addresses: Mapping[str, Mapping[str, str]],
        quarantined: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.addresses = {step: dict(settings) for step, settings in addresses.items()}
        self.quarantined = tuple(quarantined)

    def step_run(self) -> StepRun:
        """What the backend is asked to run: the chosen source with its own addresses."""
        self.settings = {**self.addresses.get(self.step, {})}
        if self.step in self.quarantined:
            self.outputs["quarantine"] = f"quarantine/{self.step}.parquet"
        return super().step_run()


# Where `plugins/pages.py` serves the pages of `runs/`.
PAGES_PREFIX = "/pages"
RUNS_FOLDER = "runs"


class PageLink(BaseOperatorLink):
    """Opens the report or the Data Docs of a run."""

    @property
    def name(self) -> str:
        """The text of the button."""
        return "Open page"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page's address under this server, or its file if the server cannot show it."""
        page = operator.path(operator.page)
        runs = project_home() / RUNS_FOLDER
        if page.is_relative_to(runs):
            return f"{PAGES_PREFIX}/{page.relative_to(runs)}"
        return str(page.as_uri())
