"""The command line `pixclip <step>`, made from the steps' signatures.

pixclip --help
pixclip select --grit data/grit --records data/records --quarantine data/quarantine.parquet
"""

import difflib
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from components.core.errors import PipelineError, SettingsError
from components.core.params import params_files
from components.core.process import begin, quieten_libraries
from components.core.receipts import Receipt
from components.core.run import run_step
from components.core.settings import merge, parse_assignments, read_params
from components.core.step import ARTIFACTS, Step, load_step
from components.orchestration.kubeflow.cli import component, pipeline
from components.reasons import reasons
from components.steps import STEPS

log = logging.getLogger(__name__)
Definitions = list[tuple[str, str]]


class StepCommand(click.Command):
    """A step as a command; its help also lists the settings."""

    def __init__(self, step: Step) -> None:
        super().__init__(
            name=step.name.replace("_", "-"),
            params=[*_path_options(step), *_own_options(step), *_settings_options()],
            callback=_runner(step),
            help=step.function.__doc__,
            short_help=step.summary,
        )
        self.step = step

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and below them every setting with type, default and meaning."""
        super().format_options(ctx, formatter)
        definitions = _setting_lines(self.step.settings_type)
        if definitions:
            with formatter.section(f"Settings (--set, or section '{self.step.name}' of --params)"):
                formatter.write_dl(definitions)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a whole command, to begin with."""
        with formatter.section("Example"):
            formatter.write(_example(self.step))


class StepGroup(click.Group):
    """All steps, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The steps in the order of the pipeline, then the other commands."""
        return [*(name.replace("_", "-") for name in STEPS), *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        name = cmd_name.replace("-", "_")
        if name in STEPS:
            return StepCommand(load_step(name))
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called; for a misspelt one the error names the likely command."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not close:
                raise
            ctx.fail(f"No such command '{args[0]}'; did you mean '{close[0]}'?")


@click.group(cls=StepGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pixclip")
@click.option("--verbose", "-v", is_flag=True, help="Say more of what happens.")
def cli(verbose: bool) -> None:
    """Build fine-grained vision-language data: every step from files to files.

    A step reads artifacts, checks their contracts, writes its outputs under a temporary name and
    publishes them by rename. A finished step is not repeated; a killed one goes on.
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    quieten_libraries()


cli.add_command(component)
cli.add_command(pipeline)
cli.add_command(reasons)


@cli.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
def summary(run: Path) -> None:
    """Print what became of every region of a run folder, and what a model learnt from them."""
    from rich.console import Console

    from components.orchestration.summary import (
        find_dataset,
        find_results,
        render,
        render_results,
        summarise,
    )

    console, results = Console(), find_results(run)
    if find_dataset(run) or not results:
        console.print(render(summarise(run)))
    if results:
        console.print(render_results(results))


@cli.command()
@click.argument("address")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="A folder that is not there yet.  [default: models/<name>-<number>]",
)
@click.option("--tracking-uri", default="", help="Address of MLflow; see the settings of register.")
def fetch(address: str, into: Path | None, tracking_uri: str) -> None:
    """Bring a registered model, e.g. models:/pixclip@champion, as a folder pixclip.load opens."""
    from components.registry.models import fetch as bring

    click.echo(bring(address, into, tracking_uri))


def main() -> None:
    """Entry point: errors raised on purpose are printed in one line, without a traceback."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    try:
        begin()
        cli(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        sys.exit("stopped; run the same command again to go on")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (PipelineError, OSError) as error:
        # An error of the system names its file: no permission, no space, no folder there.
        log.debug("where it happened:", exc_info=True)
        click.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(2 if isinstance(error, SettingsError) else 1)


def _path_options(step: Step) -> list[click.Parameter]:
    return [
        click.Option(
            [f"--{name.replace('_', '-')}"],
            required=not ARTIFACTS[name].default_path,
            default=_default_path(name),
            show_default=ARTIFACTS[name].default_path or False,
            type=click.Path(path_type=Path),
            metavar="PATH",
            help=f"[{role}] {ARTIFACTS[name].description}",
        )
        for role, names in (("input", step.inputs), ("output", step.outputs))
        for name in names
    ]


# Settings of the pipelines that `make demo-parts` runs; all others are those of `make demo`.
PARTS_PARAMS = ("fgpart.yaml", "paclip.yaml")


def _example(step: Step) -> str:
    """A whole command on what a demo leaves: that of the pipeline that has this step."""
    files = params_files(Path("params"), step.name)
    files.sort(key=lambda file: file.name in PARTS_PARAMS)
    is_of_parts = bool(files) and files[0].name in PARTS_PARAMS
    run, dataset = ("runs/parts", "fgpart") if is_of_parts else ("runs/demo", "longgrit")
    places = {
        "dataset": dataset,
        "longgrit": dataset,
        "checked": dataset,
        "quarantines": "quarantine",
    }
    paths = [f"--{name.replace('_', '-')} {run}/{places.get(name, name)}" for name in step.inputs]
    for name in step.outputs:
        if not ARTIFACTS[name].default_path:
            paths.append(f"--{name.replace('_', '-')} runs/mine/{name}{ARTIFACTS[name].ending}")
    params = [f"--params {file}" for file in files[:1]]
    words = [f"pixclip {step.name.replace('_', '-')}", *paths, *params]
    words += [
        f"--set {name}={field.examples[0]}"
        for name, field in step.settings_type.model_fields.items()
        if field.examples
    ]
    return "  " + " \\\n      ".join(words) + "\n"


def _default_path(name: str) -> Callable[[], Path] | None:
    form = ARTIFACTS[name].default_path
    if not form:
        return None
    return lambda: Path(form.format(now=f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S.%fZ}"))


def _own_options(step: Step) -> list[click.Parameter]:
    return [
        click.Option([f"--{name}"], help=step.settings_type.model_fields[name].description)
        for name in step.settings_by_hand
    ]


def _settings_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--params"],
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="YAML file with a section for each step.",
        ),
        click.Option(
            ["--set", "assignments"],
            multiple=True,
            metavar="KEY=VALUE",
            help="One setting; may be repeated; wins over --params. A text is taken as typed; "
            "lists are YAML: [a, b].",
        ),
    ]


def _runner(step: Step) -> Callable[..., Receipt]:
    def run(params: Path | None, assignments: tuple[str, ...], **given: Any) -> Receipt:
        settings = read_params(params, step.name) if params else {}
        own = {name: given[name] for name in step.settings_by_hand if given[name]}
        receipt = run_step(
            step,
            inputs={name: given[name] for name in step.inputs},
            outputs={name: given[name] for name in step.outputs},
            settings=merge(
                merge(settings, own), parse_assignments(assignments, step.settings_type)
            ),
        )
        click.echo(yaml.safe_dump({step.name: dict(receipt.metrics)}, sort_keys=False).rstrip())
        return receipt

    return run


def _setting_lines(
    settings: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None
) -> Definitions:
    lines: Definitions = []
    for name, field in settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if defaults is not None:
            default = getattr(defaults, name)
        if isinstance(default, BaseModel):
            lines += _setting_lines(type(default), f"{prefix}{name}.", default)
            continue
        shown = "required" if default is PydanticUndefined else f"default {default!r}"
        lines.append((f"{prefix}{name}", f"{field.description or ''} ({shown})"))
    return lines


if __name__ == "__main__":
    main()
