"""`pixclip pipeline` and `pixclip component`: what Kubeflow is given, and where it runs.

pixclip component compile select --out select.yaml
"""

import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.core.errors import InputError, SettingsError
from components.core.settings import merge, parse_assignments
from components.core.step import load_step
from components.orchestration.kubeflow.compile import (
    compile_component,
    compile_pipeline,
    pipeline_settings,
)
from components.orchestration.kubeflow.pipelines import PIPELINES
from components.steps import STEPS

if TYPE_CHECKING:
    from components.orchestration.kubeflow.client import Client, Plan
    from components.orchestration.kubeflow.runs import Run

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
PIPELINE = click.argument("name", type=click.Choice(list(PIPELINES)))
POLL_S = 10.0
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def params_option() -> Decorator:
    """The option `--params`."""
    files = ", ".join(f"{one.params_file} of {name}" for name, one in PIPELINES.items())
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


# How a server is reached; the same values as those of Airflow's connection.
SERVER_OPTIONS = [
    click.option(
        "--host",
        default="",
        envvar="PIXCLIP_KUBEFLOW",
        show_envvar=True,
        help="Address of Kubeflow Pipelines.",
    ),
    click.option("--namespace", default="", help="The user's, where several share the server."),
    click.option("--token-file", default="", help="File with a bearer token."),
    click.option("--ca-file", default="", help="Certificates that the server's is checked with."),
]


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options `--host`, `--namespace`, `--token-file` and `--ca-file`."""
    for option in reversed(SERVER_OPTIONS):
        command = option(command)
    return command


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
    out.write_text(_compile(name, params, assignments, cluster), encoding="utf-8")
    click.echo(f"{name}: {out}")


@pipeline.command("upload")
@PIPELINE
@server_options
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
    version: str,
    params: Path | None,
    assignments: tuple[str, ...],
    cluster: Path,
    **server: str,
) -> None:
    """Compile a pipeline and bring it to a server as a new version."""
    from components.orchestration.kubeflow.server import upload

    text = _compile(name, params, assignments, cluster)
    version = version or time.strftime("%Y%m%d-%H%M%S")
    with _client(server) as client:
        made = client.run(upload(client.server, text, name, version))
    click.echo(f"{name}: version {made.version_id}")


@pipeline.command("run")
@PIPELINE
@click.option("--local", "is_local", is_flag=True, help="On this machine, through kfp.local.")
@server_options
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
    experiment: str,
    wait: bool,
    root: Path,
    params: Path | None,
    assignments: tuple[str, ...],
    **server: str,
) -> None:
    """Run a pipeline: --local compiles it and runs it here; else what was uploaded to --host runs.

    Settings are those of the params file here, and those of the uploaded version there; --params
    and --set change them for this run.
    """
    if is_local:
        _run_here(name, params, assignments, root)
    else:
        overrides = parse_overrides(assignments)
        if params:
            overrides = pipeline_settings(PIPELINES[name], overrides, params_file=params)
        _run_there(name, server, experiment, wait, overrides)


def _run_here(name: str, params: Path | None, assignments: tuple[str, ...], root: Path) -> None:
    from rich.console import Console

    from components.orchestration.kubeflow.local import run_local
    from components.orchestration.summary import render_results

    done = run_local(_compile(name, params, assignments, None), root.absolute(), click.echo)
    Console().print(render_results(done.artifacts))


def _run_there(
    name: str,
    server: dict[str, str],
    experiment: str,
    wait: bool,
    overrides: dict[str, dict[str, object]],
) -> None:
    from components.orchestration.kubeflow.runs import Identity, ProcessStore
    from components.orchestration.kubeflow.server import pinned_arguments, requester

    with _client(server) as client:
        arguments = partial(pinned_arguments, overrides=overrides)
        request = requester(client.server, name, arguments, experiment=experiment)
        runs = _runs(server)
        # Every call of this command wants a run of its own.
        identity = Identity(str(uuid.uuid4()), name)
        run = client.run(runs.ensure(identity, request, ProcessStore()))
        click.echo(f"{name}: {client.server.run_url(run['run_id'])}")
        if wait:
            _wait(client, run["run_id"], server)


def _wait(client: "Client", run_id: str, server: dict[str, str]) -> None:
    from components.orchestration.kubeflow.client import KubeflowError
    from components.orchestration.kubeflow.runs import GOOD, state_of
    from components.orchestration.kubeflow.tasks import failure

    run = client.run(_runs(server).watch(run_id))
    if state_of(run) not in GOOD:
        raise KubeflowError(client.run(failure(run)))


@pipeline.command("status")
@PIPELINE
@server_options
@click.option("--run", "run_id", default="", help="Id of a run.  [default: the newest]")
def status_command(name: str, run_id: str, **server: str) -> None:
    """Show a run: its state, that of its tasks, its address."""
    from components.orchestration.kubeflow.runs import state_of
    from components.orchestration.kubeflow.tasks import states

    with _client(server) as client:
        run = client.run(_run(client, name, run_id))
        click.echo(f"{run['display_name']}: {state_of(run)}")
        for task, state in states(run).items():
            click.echo(f"  {task:<24} {state}")
        click.echo(client.server.run_url(run["run_id"]))


@pipeline.command("cancel")
@PIPELINE
@server_options
@click.option("--run", "run_id", default="", help="Id of a run.  [default: the newest]")
@click.option(
    "--jobs-in",
    default="",
    metavar="NAMESPACE",
    help="Delete the run's TrainJobs there, through KUBECONFIG; their ranks save first.",
)
def cancel_command(name: str, run_id: str, jobs_in: str, **server: str) -> None:
    """Stop a run; one that has ended is left as it is.

    TrainJobs that it leaves behind are deleted by the next run that trains, or now by --jobs-in.
    """
    from components.orchestration.kubeflow.runs import state_of

    with _client(server) as client:
        run = client.run(_run(client, name, run_id))
        client.run(_runs(server).stop(run["run_id"]))
        run = client.run(_run(client, name, run["run_id"]))
        click.echo(f"{run['display_name']}: {state_of(run)}")
    if jobs_in:
        from components.core.nodes import cancel_run

        for job in cancel_run(run["run_id"], jobs_in):
            click.echo(f"  deleted TrainJob {job}")


@pipeline.command("logs")
@PIPELINE
@server_options
@click.option("--run", "run_id", default="", help="Id of a run.  [default: the newest]")
@click.option("--task", default="", help="Name of a task.  [default: all]")
@click.option("--lines", "num_lines", default=50, show_default=True, help="Of each task's end.")
def logs_command(name: str, run_id: str, task: str, num_lines: int, **server: str) -> None:
    """Show the end of the logs of a run's tasks, as long as their pods are there."""
    from components.orchestration.kubeflow.tasks import logs

    with _client(server) as client:
        run = client.run(_run(client, name, run_id))
        found = client.run(logs(run, task, num_lines))
    if not found:
        of_task = f" of a task '{task}'" if task else ""
        raise InputError(
            f"run {run['run_id']} has no log{of_task}: its pods may be gone; its artifacts keep "
            "the logs under executor-logs"
        )
    for one, text in found.items():
        click.echo(f"==> {one} <==\n{text}")


@pipeline.command("retry")
@PIPELINE
@server_options
@click.option("--run", "run_id", default="", help="Id of a run.  [default: the newest]")
@click.option("--wait/--no-wait", default=True, help="Wait for the end of the run.")
def retry_command(name: str, run_id: str, wait: bool, **server: str) -> None:
    """Let a failed run go on: the tasks that failed run again, under the same run."""
    from components.orchestration.kubeflow.client import post

    def retry(run_id: str) -> "Plan[None]":
        yield post(f"/runs/{run_id}:retry")

    with _client(server) as client:
        run = client.run(_run(client, name, run_id))
        client.run(retry(run["run_id"]))
        click.echo(f"{run['display_name']}: {client.server.run_url(run['run_id'])}")
        if wait:
            _wait(client, run["run_id"], server)


def _client(server: dict[str, str]) -> "Client":
    from components.orchestration.kubeflow.client import Client, Server

    if not server["host"]:
        raise SettingsError("name the server: --host ADDRESS, or PIXCLIP_KUBEFLOW")
    fields = {name: value for name, value in server.items() if name != "host"}
    return Client(Server(server["host"].rstrip("/"), **fields))


def _runs(server: dict[str, str]) -> Any:
    from components.orchestration.kubeflow.runs import Runs, Timing

    return Runs(Timing(poll_s=POLL_S), server["namespace"], click.echo)


def _run(client: "Client", pipeline_name: str, run_id: str) -> "Plan[Run]":
    """A run by its id, or the pipeline's newest one."""
    from components.orchestration.kubeflow.client import get, patiently
    from components.orchestration.kubeflow.server import PATIENCE_S, newest_run

    if not run_id:
        return (yield from newest_run(client.server, pipeline_name))
    run: Run = yield from patiently(get(f"/runs/{run_id}"), PATIENCE_S)
    return run


def _compile(
    name: str, params: Path | None, assignments: tuple[str, ...], cluster: Path | None
) -> str:
    from components.orchestration.kubeflow.cluster import read_cluster

    known, pipeline = read_cluster(cluster) if cluster else None, PIPELINES[name]
    settings = pipeline_settings(pipeline, parse_overrides(assignments), known, params)
    return compile_pipeline(pipeline, settings, known)


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
