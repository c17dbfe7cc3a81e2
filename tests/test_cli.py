"""What the command line says when something is wrong: one line, no traceback."""

import logging
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from components import cli
from components.steps import STEPS

PIXCLIP = [sys.executable, "-m", "components.cli"]


@pytest.fixture(autouse=True)
def untouched_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)


def failure(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["pixclip", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def select(folder: Path) -> list[str]:
    (folder / "grit").mkdir(exist_ok=True)
    quarantine = f"--quarantine={folder}/quarantine.parquet"
    return ["select", f"--grit={folder}/grit", f"--records={folder}/file/records", quarantine]


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        (["--set=min_scor=1"], 2, "did you mean 'min_score'?"),
        (["--set=min_score=[1"], 2, "not YAML"),
        ([], 1, "InputError: cannot write"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    code: int,
    message: str,
) -> None:
    (tmp_path / "file").write_text("no folder")
    assert failure([*select(tmp_path), *extra], monkeypatch) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_misspelt_command_is_told_its_likely_name() -> None:
    assert "No such command 'trian'; did you mean 'train'?" in help_of("trian")
    assert "did you mean" not in help_of("zzzz")


def help_of(name: str) -> str:
    return CliRunner().invoke(cli.cli, [name, "--help"], catch_exceptions=False).output


@pytest.mark.parametrize("name", STEPS)
def test_the_help_of_a_step_ends_with_a_command_that_can_be_typed(name: str) -> None:
    program, command, *words = shlex.split(help_of(name).partition("\nExample:\n")[2])
    assert (program, command) == ("pixclip", name.replace("_", "-"))
    known = cli.cli.get_command(click.Context(cli.cli), command)
    assert known
    assert {option.opts[0] for option in known.params if option.required} <= set(words)


@pytest.mark.parametrize(
    ("name", "run", "params"),
    [
        ("train-parts", "runs/parts/fgpart", "params/paclip.yaml"),
        ("detect-parts", "runs/parts/candidates", "params/fgpart.yaml"),
        ("select", "runs/demo/grit", "params/longgrit.yaml"),
        ("init-model", "runs/demo/text_tower", "params/pixclip.yaml"),
    ],
)
def test_the_command_in_the_help_reads_what_the_demo_of_its_settings_leaves(
    name: str, run: str, params: str
) -> None:
    assert {run, params} <= set(shlex.split(help_of(name).partition("\nExample:\n")[2]))


def test_the_help_of_train_names_recipes_and_stages() -> None:
    told = " ".join(help_of("train").split())
    assert "one of pixclip_b16_paper, pixclip_l14, pixclip_parts, tiny" in told
    assert "align, refine of tiny" in told


def test_ctrl_c_ends_a_step_with_advice_and_without_a_traceback(tmp_path: Path) -> None:
    pipe = tmp_path / "annotations.json"
    os.mkfifo(pipe)  # reading it blocks: the step is in the middle of its work
    (tmp_path / "images").mkdir()
    settings = [f"--set=images={tmp_path / 'images'}", f"--set=annotations={pipe}"]
    command = [*PIXCLIP, "import-coco", f"--grit={tmp_path}/grit", *settings]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background inherits that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process, pipe.open("wb"):  # opens as soon as the step reads
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told.strip() == "stopped; run the same command again to go on"


def test_an_error_of_the_system_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "part-00000.parquet")

    monkeypatch.setattr("components.cli.run_step", full)
    assert failure(select(tmp_path), monkeypatch) == 1
    told = "OSError: [Errno 28] No space left on device: 'part-00000.parquet'"
    assert capsys.readouterr().err.strip() == told
