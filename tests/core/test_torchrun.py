"""Ranks that are started through torchrun, and what becomes of them when the step is killed."""

import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from components.core.errors import InputError, RanksFailed
from components.core.process import WAITING_THREADS
from components.core.torchrun import STOPPED, run_ranks

ROOT = Path(__file__).parents[2]
# Notes its start, is asked to stop, takes a moment to save, and notes its end.
RANK = """
import os, pathlib, signal, sys, time
def stop(*_):
    time.sleep(1)
    (folder / f"saved-{os.environ['RANK']}").touch()
    sys.exit(3)
folder = pathlib.Path(sys.argv[2]).parent
signal.signal(signal.SIGTERM, stop)
(folder / f"started-{os.environ['RANK']}").touch()
if not (folder / "quick").exists():
    time.sleep(60)
"""
STEP = """
import sys, pathlib
from components.core import torchrun
from components.core.process import say_forked_clean
if sys.argv[2] == "forked":
    say_forked_clean()
if sys.argv[3:]:
    torchrun.num_cores = lambda: int(sys.argv[3])
torchrun.run_ranks("ranked", pathlib.Path(sys.argv[1]), num_ranks=2)
"""


@pytest.fixture(params=["started", "forked"])
def way(request, monkeypatch) -> str:
    """How the ranks come: as programs, or as forks of a process that may be forked."""
    monkeypatch.setattr(
        "components.core.torchrun.is_forked_clean", lambda: request.param == "forked"
    )
    return request.param


@pytest.fixture
def job(tmp_path, monkeypatch) -> Path:
    (tmp_path / "modules").mkdir()
    write_rank(tmp_path, RANK)
    monkeypatch.setenv(
        "PYTHONPATH", f"{tmp_path / 'modules'}{os.pathsep}{ROOT}{os.pathsep}{ROOT / 'model'}"
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    (tmp_path / "job.json").write_text("{}")
    return tmp_path / "job.json"


def write_rank(folder: Path, program: str) -> None:
    """The module `ranked`, whose `main` is this program."""
    body = textwrap.indent(program.strip(), "    ")
    text = f"def main():\n    global folder\n{body}\n\nif __name__ == '__main__':\n    main()\n"
    (folder / "modules" / "ranked.py").write_text(text)


def wait_for(*paths: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"{paths} did not appear"
        time.sleep(0.05)


def test_the_ranks_of_a_killed_step_save_and_end_and_the_next_attempt_waits_for_them(job, way):
    folder = job.parent
    step = subprocess.Popen([sys.executable, "-c", STEP, str(job), way])
    wait_for(folder / "started-0", folder / "started-1")
    step.send_signal(signal.SIGKILL)
    step.wait()
    (folder / "quick").touch()
    run_ranks("ranked", job, num_ranks=1)
    assert (folder / "saved-0").exists(), "the second attempt began before the first had saved"
    assert (folder / "saved-1").exists()


def test_ranks_end_when_torchrun_s_agent_is_killed_with_the_step(job):
    """As by a kill of the whole process group; torchrun's ranks are in sessions of their own."""
    folder = job.parent
    command = [sys.executable, "-c", STEP, str(job), "started"]
    step = subprocess.Popen(command, start_new_session=True)
    wait_for(folder / "started-0", folder / "started-1")
    os.killpg(step.pid, signal.SIGKILL)
    step.wait()
    (folder / "quick").touch()
    run_ranks("ranked", job, num_ranks=1)
    assert (folder / "saved-0").exists(), "the second attempt began before the first had saved"
    assert (folder / "saved-1").exists()


def test_a_step_that_is_stopped_stops_its_ranks_and_waits_for_them(job, way):
    folder = job.parent
    step = subprocess.Popen([sys.executable, "-c", STEP, str(job), way])
    wait_for(folder / "started-0", folder / "started-1")
    step.send_signal(signal.SIGTERM)
    assert step.wait() == STOPPED
    assert (folder / "saved-0").exists()
    assert (folder / "saved-1").exists()


def test_a_rank_that_fails_is_an_error_and_ends_the_others(job, way):
    failing = "if os.environ['RANK'] == '1': raise SystemExit(1)\ntime.sleep(60)"
    write_rank(job.parent, f"import os, time\n{failing}")
    started = time.monotonic()
    with pytest.raises(RanksFailed, match="ranked ended with code 1"):
        run_ranks("ranked", job, num_ranks=2)
    assert time.monotonic() - started < 50


def test_the_traceback_of_a_rank_is_shown(job, way, capfd):
    write_rank(job.parent, "raise KeyError('a bug')")
    with pytest.raises(RanksFailed, match="ranked ended with code 1"):
        run_ranks("ranked", job, num_ranks=1)
    assert "KeyError: 'a bug'" in capfd.readouterr().err


def test_forked_ranks_meet_and_compute_with_several_threads(job):
    """With an OpenMP that was at work before the fork, the product would never end."""
    write_rank(job.parent, MEETING)
    step = [sys.executable, "-c", f"import torch\n{STEP}", str(job), "forked", "6"]
    subprocess.run(step, check=True, timeout=100)
    assert [Path(f"{job}.{rank}").read_text() for rank in range(2)] == ["3 1.0", "3 1.0"]


def test_the_threads_of_ranks_share_the_cores_and_sleep_while_they_wait(job, monkeypatch):
    for name in (*WAITING_THREADS, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("components.core.torchrun.num_cores", lambda: 6)
    telling = "import os, sys, json; json.dump(dict(os.environ), open(sys.argv[2] + '.told', 'w'))"
    write_rank(job.parent, telling)
    run_ranks("ranked", job, num_ranks=1)
    told = json.loads(Path(f"{job}.told").read_text())
    assert {**WAITING_THREADS, "OMP_NUM_THREADS": "6"}.items() <= told.items()


MEETING = """
import os, sys, torch
import torch.distributed as dist
dist.init_process_group("gloo")
ones = torch.full((1000, 1000), 0.5)
assert (ones @ ones).sum() > 0
dist.all_reduce(total := torch.tensor(0.5))
with open(f"{sys.argv[2]}.{os.environ['RANK']}", "w") as file:
    file.write(f"{torch.get_num_threads()} {total.item()}")
dist.barrier()
dist.destroy_process_group()
"""


REFUSING = """
import sys
from pathlib import Path
from pixclip.data.errors import DataError
from pixclip.training.job import failure_told
with failure_told(Path(sys.argv[2])):
    raise {error}
"""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ('DataError("shard 3, sample k: no json")', InputError, "^shard 3, sample k: no json$"),
        ('FloatingPointError("no number")', RanksFailed, "code 1: no number. What was saved"),
        ('RuntimeError("CUDA out of memory")', RanksFailed, "RuntimeError: CUDA out of memory. W"),
    ],
)
def test_the_reason_of_a_rank_is_the_reason_of_the_step(job, way, error, kind, message):
    write_rank(job.parent, REFUSING.format(error=error))
    (job.parent / "failure.json").write_text('{"message": "of long ago", "is_refusal": true}')
    with pytest.raises(kind, match=message):
        run_ranks("ranked", job, num_ranks=1)


@pytest.mark.parametrize(
    "module",
    [
        "pixclip.training.run",
        "pixclip.training.run_parts",
        "components.training.adapt_text.rank",
        "components.training.embed_text.rank",
    ],
)
def test_every_module_of_ranks_has_the_function_that_a_forked_rank_calls(module):
    assert callable(importlib.import_module(module).main)
