"""The process that forks the steps of a run, with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.orchestration.warm import KILLED, VARIABLE, Job, forked, warm_process
from tests.orchestration.test_laptop import is_gone

MODULES = {
    "told": "import os, sys; print(*sys.argv[1:], os.getcwd(), os.environ['COLOUR'], 'é')",
    "parents": "import os; print(os.getpid(), os.getppid())",
    "warm": "import sys; print('pyarrow.compute' in sys.modules, 'torch' in sys.modules)",
    "crash": "import os; print('so far', flush=True); os.kill(os.getpid(), 9)",
    "failing": "raise ValueError('no é')",
    "refusing": "raise SystemExit('not today')",
    "three": "raise SystemExit(3)",
    "unclosed": "import sys; sys.stdout.write('half a line')",
    "waiting": "import os, time; print(os.getpid(), flush=True); time.sleep(60)",
}
STARTER = """
import os, sys, time
from components.orchestration.warm import VARIABLE, Job, forked, warm_process
with warm_process(os.environ) as warm:
    os.environ[VARIABLE] = str(warm)
    with forked(Job("", "waiting", [], os.getcwd(), dict(os.environ))) as process:
        pid = process.output.readline().strip()
        print(pid, open(f"/proc/{pid}/stat").read().split()[3], flush=True)
        time.sleep(60)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """One in which the modules are found."""
    folder = tmp_path_factory.mktemp("modules")
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    paths = [str(folder), str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "model")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}


@pytest.fixture(scope="module")
def warm(environment) -> Iterator[int]:
    with warm_process(environment) as descriptor:
        yield descriptor


@pytest.fixture
def run(warm, environment, monkeypatch, tmp_path):
    """Runs a module and gives what it printed and its exit code."""
    monkeypatch.setenv(VARIABLE, str(warm))

    def run(module: str, *arguments: str) -> tuple[str, int]:
        own = {**environment, "COLOUR": "blue"}
        with forked(Job("", module, arguments, str(tmp_path), own)) as process:
            assert process
            return process.output.read(), process.wait()

    return run


def test_a_job_runs_in_its_folder_with_its_arguments_and_environment(run, tmp_path):
    assert run("told", "a", "b c") == (f"a b c {tmp_path} blue é\n", 0)


def test_every_job_is_a_process_of_its_own(run):
    first, second = run("parents")[0].split(), run("parents")[0].split()
    assert first[0] != second[0]
    assert first[1] == second[1] != str(os.getpid())


def test_the_libraries_that_check_contracts_are_there_and_no_others(run):
    assert run("warm") == ("True False\n", 0)


def test_a_crash_hurts_that_job_alone(run):
    assert run("crash") == ("so far\n", KILLED)
    assert run("three") == ("", 3)


def test_what_ends_a_job_is_told_as_python_tells_it(run):
    output, code = run("failing")
    assert (output.splitlines()[-1], code) == ("ValueError: no é", 1)
    assert run("refusing") == ("not today\n", 1)
    assert run("unclosed") == ("half a line", 0)


def test_all_ends_when_the_one_who_started_it_is_killed(environment):
    command = [sys.executable, "-c", STARTER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        job, warm = map(int, starter.stdout.readline().split())
        assert Path(f"/proc/{warm}").exists()
        starter.send_signal(signal.SIGKILL)
    assert is_gone(job)
    assert is_gone(warm)


def test_it_ends_with_the_run(environment):
    before = children()
    with warm_process(environment):
        assert len(children() - before) == 1
    assert children() == before


def test_without_one_a_job_is_not_forked(environment, monkeypatch, tmp_path):
    job = Job("", "told", [], str(tmp_path), environment)
    monkeypatch.delenv(VARIABLE, raising=False)
    with forked(job) as process:
        assert process is None
    monkeypatch.setenv(VARIABLE, "2")
    with forked(job) as process:
        assert process is None, "no socket"
    before = children()
    with warm_process(environment) as warm:
        monkeypatch.setenv(VARIABLE, str(warm))
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        wait_for_zombie(pid)
        with forked(job) as process:
            assert process is None, "it was killed"


def children() -> set[int]:
    tasks = Path("/proc/self/task")
    return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


def wait_for_zombie(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
