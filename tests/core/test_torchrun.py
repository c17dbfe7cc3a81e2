"""Ranks that are started through torchrun, and what becomes of them when the step is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.core.errors import InputError, RanksFailed
from components.core.process import WAITING_THREADS
from components.core.torchrun import run_ranks

ROOT = Path(__file__).parents[2]
# Notes its start, is asked to stop, takes a moment to save, and notes its end.
RANK = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[2]).parent
def stop(*_):
    time.sleep(1)
    (folder / f"saved-{os.environ['RANK']}").touch()
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
(folder / f"started-{os.environ['RANK']}").touch()
if not (folder / "quick").exists():
    time.sleep(60)
"""
STEP = """
import sys, pathlib
from components.core.errors import InputError
from components.core.process import WAITING_THREADS
from components.core.torchrun import run_ranks
run_ranks("ranked", pathlib.Path(sys.argv[1]), num_ranks=2)
"""


@pytest.fixture
def job(tmp_path, monkeypatch) -> Path:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "ranked.py").write_text(RANK)
    monkeypatch.setenv(
        "PYTHONPATH", f"{tmp_path / 'modules'}{os.pathsep}{ROOT}{os.pathsep}{ROOT / 'model'}"
    )
    (tmp_path / "job.json").write_text("{}")
    return tmp_path / "job.json"


def wait_for(*paths: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"{paths} did not appear"
        time.sleep(0.05)


def test_the_ranks_of_a_killed_step_save_and_end_and_the_next_attempt_waits_for_them(job):
    folder = job.parent
    step = subprocess.Popen([sys.executable, "-c", STEP, str(job)])
    wait_for(folder / "started-0", folder / "started-1")
    step.send_signal(signal.SIGKILL)
    step.wait()
    (folder / "quick").touch()
    run_ranks("ranked", job, num_ranks=1)
    assert (folder / "saved-0").exists(), "the second attempt began before the first had saved"
    assert (folder / "saved-1").exists()


def test_a_rank_that_fails_is_an_error(job):
    (job.parent / "modules" / "ranked.py").write_text("raise SystemExit(1)")
    with pytest.raises(RanksFailed, match="ranked ended with code 1"):
        run_ranks("ranked", job, num_ranks=1)


def test_the_threads_of_ranks_share_the_cores_and_sleep_while_they_wait(job, monkeypatch):
    for name in (*WAITING_THREADS, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("components.core.torchrun.num_cores", lambda: 6)
    telling = "import os, sys, json; json.dump(dict(os.environ), open(sys.argv[2] + '.told', 'w'))"
    (job.parent / "modules" / "ranked.py").write_text(telling)
    run_ranks("ranked", job, num_ranks=1)
    told = json.loads(Path(f"{job}.told").read_text())
    assert {**WAITING_THREADS, "OMP_NUM_THREADS": "6"}.items() <= told.items()


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
def test_the_reason_of_a_rank_is_the_reason_of_the_step(job, error, kind, message):
    (job.parent / "modules" / "ranked.py").write_text(REFUSING.format(error=error))
    (job.parent / "failure.json").write_text('{"message": "of long ago", "is_refusal": true}')
    with pytest.raises(kind, match=message):
        run_ranks("ranked", job, num_ranks=1)
