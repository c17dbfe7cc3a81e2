"""Curves that are followed into MLflow, also over a full disk."""

import errno
from pathlib import Path

import pytest

from components.training.tracked import Followed
from tests.training.train.test_step import NotingRun


def test_a_disk_that_is_full_for_a_moment_does_not_lose_what_was_logged(tmp_path, monkeypatch):
    steps, mark, run = tmp_path / "steps.jsonl", tmp_path / "mark", NotingRun()
    steps.write_text('{"step": 1, "loss": 2}\n')
    Followed(tmp_path, mark, run).log_new()

    def full_disk(path: Path, text: str, **_options: str) -> None:
        path.open("w").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full_disk)
        with pytest.raises(OSError, match="No space left"):
            Followed(tmp_path, mark, run).log_new()
    steps.write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n')
    Followed(tmp_path, mark, run).log_new()
    assert run.steps == [1, 2]
