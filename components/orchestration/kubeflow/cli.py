"""`pixclip pipeline` and `pixclip component`: what Kubeflow is given, and where it runs.

pixclip component compile select --out select.yaml
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from components.core.errors import SettingsError
from components.core.settings import merge, parse_assignments
from components.core.step import load_step
from components.orchestration.kubeflow.compile import (
    PIPELINES,
    compile_component,
    compile_pipeline,
    pipeline_settings,
)
from components.steps import STEPS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
PIPELINE = click.argument("name", type=click.Choice(list(PIPELINES)))
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def params_option() -> Decorator:
    """The option `--params`."""
    files = ", ".join(f"{file} of {name}" for name, file in PIPELINES.items())
    return click.option("--params", type=FILE, help=f"Settings of each step.  [default: {files}]")


def set_option() -> Decorator:
    """The option `--set`."""
    return click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="STEP.KEY=VALUE",
        help="One setting; may be repeated; wins over the file.",
    )


def cluster_option() -> Decorator:
    """The option `--cluster`."""
    return click.option(
        "--cluster",
        type=FILE,
        default=Path("cluster.yaml"),
        show_default=True,
        help="Pools, accelerators, volumes, secrets.",
    )


@click.group("component")
def component() -> None:
    """Compile a step as a Kubeflow component, for a pipeline of your own."""


@component.command("compile")
@click.argument("step", type=click.Choice([name.replace("_", "-") for name in STEPS]))
@click.option(
    "--out",
    default=Path("component.yaml"),
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
)
def compile_component_command(step: str, out: Path) -> None:
    """Write a step as a component that kfp loads without this project.

    It runs in the step's image, whose name PIXCLIP_IMAGE_REPOSITORY and PIXCLIP_IMAGE_TAG decide.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(compile_component(load_step(step.replace("-", "_"))), encoding="utf-8")
    click.echo(f"{step}: {out}")


@click.group("pipeline")
def pipeline() -> None:
    """Compile a Kubeflow pipeline, bring it to a server, run it there or on this machine."""


@pipeline.command("compile")
@PIPELINE
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@params_option()
@set_option()
@cluster_option()
def compile_command(
    name: str, out: Path, params: Path | None, assignments: tuple[str, ...], cluster: Path
) -> None:
    """Write a pipeline as Kubeflow's YAML."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(_compile(params or PIPELINES[name], assignments, cluster), encoding="utf-8")
    click.echo(f"{name}: {out}")


@pipeline.command("upload")
@PIPELINE
@click.option("--host", required=True, help="Address of Kubeflow Pipelines.")
@click.option("--namespace", default="kubeflow", show_default=True)
@click.option(
    "--version",
    default="",
    help="Name of the version; default: the time. A new pipeline's first version gets its name.",
)
@params_option()
@set_option()
@cluster_option()
def upload_command(
    name: str,
    host: str,
    namespace: str,
    version: str,
    params: Path | None,
    assignments: tuple[str, ...],
    cluster: Path,
) -> None:
    """Compile a pipeline and bring it to a server as a new version."""
    import tempfile

    from components.orchestration.kubeflow.server import Host

    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / f"{name}.yaml"
        text = _compile(params or PIPELINES[name], assignments, cluster)
        package.write_text(text, encoding="utf-8")
        version = version or time.strftime("%Y%m%d-%H%M%S")
        version_id = Host(host, namespace).upload(package, name, version)
    click.echo(f"{name}: version {version_id}")


@pipeline.command("run")
@PIPELINE
@click.option("--local", "is_local", is_flag=True, help="On this machine, through kfp.local.")
@click.option("--host", help="Address of Kubeflow Pipelines: its newest version is run.")
@click.option("--namespace", default="kubeflow", show_default=True)
@click.option("--experiment", default="pixclip", show_default=True)
@click.option("--wait/--no-wait", default=True, help="Wait for the end of a run on a server.")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/pipeline"),
    show_default=True,
    help="Where a local run keeps its artifacts.",
)
@params_option()
@set_option()
def run_command(
    name: str,
    is_local: bool,
    host: str | None,
    namespace: str,
    experiment: str,
    wait: bool,
    root: Path,
    params: Path | None,
    assignments: tuple[str, ...],
) -> None:
    """Run a pipeline: --local compiles it and runs it here; --host runs what was uploaded.

    Settings are those of the params file here, and those of the uploaded version there; --params
    and --set change them for this run.
    """
    if is_local == bool(host):
        raise SettingsError("pipeline run: choose --local or --host ADDRESS")
    if is_local:
        _run_here(params or PIPELINES[name], assignments, root)
    else:
        assert host
        _run_there(name, host, namespace, experiment, wait, params, assignments)


def _run_here(params: Path, assignments: tuple[str, ...], root: Path) -> None:
    from rich.console import Console

    from components.orchestration.kubeflow.local import run_local
    from components.orchestration.summary import render_results

    done = run_local(_compile(params, assignments, None), root.absolute(), click.echo)
    Console().print(render_results(done.artifacts))


def _run_there(
    name: str,
    host: str,
    namespace: str,
    experiment: str,
    wait: bool,
    params: Path | None,
    assignments: tuple[str, ...],
) -> None:
    from components.orchestration.kubeflow.server import Host

    overrides = parse_overrides(assignments)
    if params:
        overrides = pipeline_settings(params, overrides)
    server = Host(host, namespace)
    run = server.run(name, overrides, experiment)
    click.echo(f"{name}, version {run.version}: {run.url}")
    if wait:
        server.wait(run.run_id, click.echo)


def _compile(params: Path, assignments: tuple[str, ...], cluster: Path | None) -> str:
    from components.orchestration.kubeflow.cluster import read_cluster

    settings = pipeline_settings(params, parse_overrides(assignments))
    return compile_pipeline(settings, read_cluster(cluster) if cluster else None)


def parse_overrides(assignments: Iterable[str]) -> dict[str, dict[str, object]]:
    """Settings of several steps from texts like `train.num_ranks=2`.

    Raises:
        SettingsError: a text is not `step.key=value`, or its value cannot be read.
    """
    overrides: dict[str, dict[str, object]] = {}
    for assignment in assignments:
        step, separator, setting = assignment.partition(".")
        if not separator or "=" in step:
            raise SettingsError(f"--set takes step.key=value, got '{assignment}'")
        step = step.strip()
        settings_type = load_step(step).settings_type if step in STEPS else None
        value = parse_assignments([setting], settings_type)
        overrides[step] = merge(overrides.get(step, {}), value)
    return overrides
