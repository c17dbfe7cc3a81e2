"""Airflow on a laptop: no server needed for a run, SQLite, everything below `.cache/airflow`.

python -m components.runners.laptop run --conf '{"run_folder": "runs/demo"}'
python -m components.runners.laptop serve      # the web page and the scheduler
python -m components.runners.laptop airflow dags trigger longgrit_build --conf '{…}'
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import click

from components.runners.digest import LogDigest
from components.runners.home import project_home

AIRFLOW_FOLDER = ".cache/airflow"
GPU_POOL = "gpu"  # of dags/pixclip_train.py: a task at a time, as training takes all cores
STOP_TIMEOUT_S = 20


def airflow_environment(home: Path) -> dict[str, str]:
    """The environment of every Airflow command; what the caller has set wins."""
    # `airflow standalone` and dvc.yaml start programs by name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    ours = {
        "AIRFLOW_HOME": str(home / AIRFLOW_FOLDER),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "components" / "operators" / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PIXCLIP_HOME": str(home),
        "GX_ANALYTICS_ENABLED": "false",
        "DVC_NO_ANALYTICS": "true",
    }
    return {**ours, **os.environ, "PATH": path}


@click.group()
def main() -> None:
    """Airflow on this machine."""


@main.command()
@click.option("--dag", "dag_id", default="longgrit_build", show_default=True)
@click.option("--conf", default="{}", help="The run's parameters as JSON.")
def run(dag_id: str, conf: str) -> None:
    """Run a DAG once, here and now, and show what matters of its log."""
    home = project_home()
    environment = airflow_environment(home)
    log = Path(environment["AIRFLOW_HOME"]) / f"{dag_id}.log"
    _migrate(environment, log)
    command = [*_airflow(), "dags", "test", dag_id, "--conf", conf]
    with log.open("w", encoding="utf-8") as whole, _start(command, environment) as process:
        digest = LogDigest(click.echo)
        assert process.stdout
        for line in process.stdout:
            whole.write(line)
            digest.add(line.rstrip())
    click.echo(f"whole log: {log}")
    sys.exit(process.returncode)


@main.command()
def serve() -> None:
    """Web page, scheduler and workers in one process group, which ends as a whole."""
    environment = airflow_environment(project_home())
    _migrate(environment, Path(environment["AIRFLOW_HOME"]) / "serve.log")
    # Asked to stop, `airflow standalone` leaves some of its processes behind.
    server = subprocess.Popen([*_airflow(), "standalone"], env=environment, start_new_session=True)

    def stop(_number: int, _frame: FrameType | None) -> None:
        os.killpg(server.pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.wait()
    _end_group(server.pid)


@main.command("airflow", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def airflow_command(arguments: tuple[str, ...]) -> None:
    """Any command of Airflow, in the environment of `run` and `serve`."""
    environment = airflow_environment(project_home())
    sys.exit(subprocess.run([*_airflow(), *arguments], env=environment, check=False).returncode)


def _airflow() -> list[str]:
    return [sys.executable, "-m", "airflow"]


def _migrate(environment: Mapping[str, str], log: Path) -> None:
    """Make the database and the pool for tasks with a GPU, once for each version of Airflow."""
    from importlib.metadata import version

    done = log.parent / f".prepared-{version('apache-airflow-core')}"
    if done.exists():
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    for command in (["db", "migrate"], ["pools", "set", GPU_POOL, "1", "tasks with a GPU"]):
        with log.open("a", encoding="utf-8") as output:
            code = subprocess.run(
                [*_airflow(), *command], env=environment, stdout=output, stderr=output, check=False
            ).returncode
        if code:
            sys.exit(f"`airflow {' '.join(command)}` failed; see {log}")
    done.touch()


def _start(command: list[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )


def _end_group(group: int) -> None:
    import time

    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_TIMEOUT_S
        try:
            os.killpg(group, number)
            while time.monotonic() < deadline:
                os.killpg(group, 0)
                time.sleep(0.2)
        except ProcessLookupError:
            return


if __name__ == "__main__":
    main()
