"""Airflow on a laptop: no server needed for a run, SQLite, everything below `.cache/airflow`.

python -m components.orchestration.laptop run --conf '{"run_folder": "runs/demo"}'
python -m components.orchestration.laptop serve      # the web page and the scheduler
python -m components.orchestration.laptop airflow dags trigger longgrit_build --conf '{…}'
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click

from components.core.errors import PipelineError
from components.core.process import begin, end_with_parent
from components.orchestration.airflow_home import (
    AIRFLOW_FOLDER,
    airflow_command,
    airflow_environment,
    end_leftovers,
    prepare,
)
from components.orchestration.home import project_home
from components.orchestration.live import FOLDER, Mark, alive, end_group, living
from components.orchestration.telling import FAILURE_TOLD
from components.orchestration.unchanged import FOLDER as NOTES
from components.orchestration.unchanged import Run, causes_of, note_unchanged, unchanged_since
from components.orchestration.warm import VARIABLE, warm_process

NUM_LAST_LINES = 10
LOG_PORTS = {
    "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": 8793,
    "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": 8794,
}


@click.group()
def main() -> None:
    """Airflow on this machine."""


@main.command()
@click.option(
    "--dag",
    "dag_ids",
    multiple=True,
    default=["longgrit_build"],
    show_default=True,
    help="May be repeated, each with its --conf: one after another.",
)
@click.option(
    "--conf", "confs", multiple=True, default=["{}"], help="The run's parameters as JSON."
)  # fmt: skip
def run(dag_ids: Sequence[str], confs: Sequence[str]) -> None:
    """Run DAGs once, here and now, and show what becomes of their tasks.

    A run that would find everything as the same run left it is not started.
    """
    if len(dag_ids) != len(confs):
        raise click.UsageError(f"{len(dag_ids)} --dag, but {len(confs)} --conf")
    for conf in confs:
        require_object(conf)
    this_run = Run(project_home(), dag_ids, [json.loads(conf) for conf in confs])
    notes = project_home() / AIRFLOW_FOLDER / NOTES
    if since := unchanged_since(this_run, notes):
        click.echo(f"nothing to do: code, settings and files are as this run left them, {since}")
        return
    causes = causes_of(this_run)
    environment = airflow_environment(project_home())
    folder = Path(environment["AIRFLOW_HOME"])
    # By its date a run in Airflow's database is known as that of this process.
    marks = [
        Mark("run", dag_id=dag_id, logical_date=datetime.now(UTC).isoformat()) for dag_id in dag_ids
    ]
    logs = [folder / f"{Path(dag_id).name}.log" for dag_id in dag_ids]
    jobs = [
        json.dumps(
            {
                "dag_id": mark.dag_id,
                "logical_date": mark.logical_date,
                "conf": json.loads(conf),
                "log": str(log),
            }
        )
        for mark, conf, log in zip(marks, confs, logs, strict=True)
    ]
    with contextlib.ExitStack() as stack:
        warm = stack.enter_context(warm_process(environment))
        _make_ready(environment)  # while the warm process imports
        files = [stack.enter_context(alive(folder / FOLDER, mark)) for mark in marks]
        environment[VARIABLE] = str(warm)
        descriptors = [warm, *(file.descriptor for file in files)]
        code = _show(jobs, environment, logs, descriptors)
    if code < 0:  # it was killed
        end_leftovers(environment, click.echo)
    elif code == 0:
        note_unchanged(this_run, notes, causes)
    for log in logs:
        click.echo(f"whole log: {log}")
    sys.exit(code if code >= 0 else 128 - code)


@main.command()
@click.option("--port", default=8080, show_default=True, help="Of the web page.")
def serve(port: int) -> None:
    """Web page, scheduler and workers in one process group, which ends as a whole."""
    environment = airflow_environment(project_home(), port)
    _make_ready(environment)
    live = Path(environment["AIRFLOW_HOME"]) / FOLDER
    for mark in living(live):
        if mark.kind == "serve":
            raise click.ClickException(
                f"this project's Airflow is served already, by process {mark.pid}; end that one "
                "first (Ctrl-C in its terminal)"
            )
    if not _is_free(port):
        raise click.ClickException(
            f"port {port} is taken by another program: end that one, or take another port "
            "(make airflow PORT=8081)"
        )
    for variable, log_port in LOG_PORTS.items():
        environment[variable] = str(log_port if _is_free(log_port) else _free_port())
    with alive(live, Mark("serve")) as file:
        # Asked to stop, `airflow standalone` leaves some of its processes behind.
        server = subprocess.Popen(
            airflow_command("standalone"),
            env=environment,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        file.lead(server.pid)

        def stop(_number: int, _frame: FrameType | None) -> None:
            os.killpg(server.pid, signal.SIGTERM)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        server.wait()
        end_group(server.pid)


@main.command("airflow", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def airflow_command_line(arguments: tuple[str, ...]) -> None:
    """Any command of Airflow, in the environment of `run` and `serve`."""
    environment = airflow_environment(project_home())
    prepare(environment)
    with alive(Path(environment["AIRFLOW_HOME"]) / FOLDER, Mark("command")) as file:
        done = subprocess.run(
            airflow_command(*arguments), env=environment, check=False, pass_fds=[file.descriptor]
        )
    sys.exit(done.returncode)


def require_object(conf: str) -> None:
    """Refuse a `--conf` that no run can take, before anything is started.

    Raises:
        BadParameter: says what is wrong with it.
    """
    example = """it takes an object, e.g. '{"run_folder": "runs/mine"}'"""
    try:
        content = json.loads(conf, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"is not JSON: {error}; {example}", param_hint="--conf") from None
    if not isinstance(content, dict):
        raise click.BadParameter(f"is JSON, but no object; {example}", param_hint="--conf")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"'{name}' is there twice")
    return dict(pairs)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _make_ready(environment: Mapping[str, str]) -> None:
    """Make Airflow ready, with nothing of a dead process in the way."""
    prepare(environment)
    end_leftovers(environment, click.echo)


def _show(
    jobs: Sequence[str],
    environment: Mapping[str, str],
    logs: Sequence[Path],
    descriptors: Sequence[int],
) -> int:
    """Run DAGs and show what becomes of their tasks; gives the exit code."""
    for log in logs:
        log.write_bytes(b"")
    reading, writing = os.pipe()
    module = "components.orchestration.airflow.run_dags"
    with (
        open(reading, encoding="utf-8", errors="replace") as told,
        logs[0].open("ab") as output,
        subprocess.Popen(
            [sys.executable, "-m", module, str(writing), *jobs],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[writing, *descriptors],
            # Airflow's tasks do not listen to SIGTERM.
            preexec_fn=partial(end_with_parent, signal.SIGKILL),
        ) as process,
    ):
        os.close(writing)
        for line in told:
            click.echo(line.rstrip("\n"))
    if process.returncode < 0:
        click.echo(f"Airflow's process was ended by signal {-process.returncode}")
    elif process.returncode not in (0, FAILURE_TOLD):
        last = max(logs, key=lambda log: log.stat().st_mtime)
        lines = last.read_text(encoding="utf-8", errors="replace").splitlines()
        click.echo("it ended with:\n" + "\n".join(lines[-NUM_LAST_LINES:]))
    return min(process.returncode, 1)


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start() -> None:
    """Entry point: errors raised on purpose are printed in one line, without a traceback."""
    begin()
    try:
        main()
    except (PipelineError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    start()
