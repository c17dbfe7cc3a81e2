"""An environment is made anew where it would run another place's code, and only there."""

import importlib.util
import json
import os
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "install.py"


class Clone:
    """A clone in which everything is real but the packages."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.num_installs = 0
        (folder / "scripts").mkdir(parents=True, exist_ok=True)
        shutil.copy(SCRIPT, folder / "scripts")
        (folder / "lock.txt").write_text("one==1\n")
        (folder / "pyproject.toml").touch()

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    @property
    def state(self) -> dict[str, str]:
        return dict(json.loads((self.venv / ".installed").read_text()))

    def install(self, *, is_killed: bool = False) -> int:
        """What `make setup` does; gives how often packages were installed."""
        script = self.script()
        self.num_installs = 0
        self.monkeypatch.setattr(script, "install_all", lambda _: self._install(is_killed))
        self.monkeypatch.setattr(sys, "argv", ["install.py", "--lock", "lock.txt"])
        self.monkeypatch.chdir(self.folder)
        script.main()
        return self.num_installs

    def script(self) -> ModuleType:
        path = self.folder / "scripts" / "install.py"
        spec = importlib.util.spec_from_file_location("install", path)
        assert spec
        assert spec.loader
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        return script

    def _install(self, is_killed: bool) -> None:
        self.num_installs += 1
        (self.venv / "bin").mkdir(parents=True, exist_ok=True)
        python = self.venv / "bin" / "python"
        if not python.is_symlink():
            python.symlink_to(sys.executable)
        (self.venv / "bin" / "pip").write_text(f"#!{python}\n")
        if is_killed:
            raise KeyboardInterrupt


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return Clone(tmp_path / "a clone é", monkeypatch)


def test_an_environment_that_is_as_it_should_be_is_left_alone(clone):
    assert clone.install() == 1
    (clone.venv / "mine").touch()
    assert clone.install() == 0
    os.utime(clone.folder / "lock.txt")
    assert clone.install() == 0, "times of files say nothing"
    assert (clone.venv / "mine").exists()


@pytest.mark.parametrize("name", ["lock.txt", "pyproject.toml"])
def test_a_lock_that_git_changed_is_seen_whatever_its_time(clone, name):
    clone.install()
    (clone.venv / "mine").touch()
    (clone.folder / name).write_text("two==2\n")
    os.utime(clone.folder / name, (0, 0))
    assert clone.install() == 1
    assert clone.install() == 0
    assert (clone.venv / "mine").exists(), "completed, not made anew"


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_clone_at_another_place_gets_an_environment_of_its_own(clone, capsys, how):
    clone.install()
    (clone.venv / "old").touch()
    place = clone.folder.with_name("another")
    if how == "moved":
        clone.folder.rename(place)
    else:
        shutil.copytree(clone.folder, place, symlinks=True)
    other = Clone(place, clone.monkeypatch)
    assert other.install() == 1
    assert not (other.venv / "old").exists()
    assert other.state["place"] == str(place)
    assert f"it belongs to {clone.folder}" in capsys.readouterr().err
    if how == "copied":
        assert clone.install() == 0


def test_a_link_to_a_clone_is_that_clone(clone):
    clone.install()
    link = clone.folder.with_name("link")
    link.symlink_to(clone.folder)
    assert Clone(link, clone.monkeypatch).install() == 0


def test_the_environment_of_another_clone_is_not_touched_through_a_link(clone, tmp_path):
    clone.install()
    other = Clone(tmp_path / "other", clone.monkeypatch)
    other.venv.symlink_to(clone.venv)
    with pytest.raises(SystemExit, match=r"is a link to .*remove the link"):
        other.install()
    assert clone.install() == 0


def test_an_installation_that_was_killed_is_begun_again(clone, capsys):
    with pytest.raises(KeyboardInterrupt):
        clone.install(is_killed=True)
    (clone.venv / "half").touch()
    assert clone.install() == 1
    assert not (clone.venv / "half").exists()
    assert "was not finished" in capsys.readouterr().err


def test_an_update_that_was_killed_is_not_taken_for_finished(clone):
    clone.install()
    (clone.folder / "lock.txt").write_text("two==2\n")
    with pytest.raises(KeyboardInterrupt):
        clone.install(is_killed=True)
    (clone.folder / "lock.txt").write_text("one==1\n")
    assert clone.install() == 1


def test_an_environment_whose_python_is_gone_is_made_anew(clone, capsys):
    clone.install()
    (clone.venv / "bin" / "python").unlink()
    (clone.venv / "bin" / "python").symlink_to("/nowhere/python3.11")
    assert clone.install() == 1
    assert "its Python is gone" in capsys.readouterr().err


def test_an_environment_of_another_python_is_made_anew(clone, capsys):
    clone.install()
    state = clone.state | {"python": "3.9"}
    (clone.venv / ".installed").write_text(json.dumps(state))
    assert clone.install() == 1
    assert "it is of Python 3.9" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "one==1\n", "{", "[]"])
def test_a_damaged_state_counts_as_none(clone, content):
    clone.install()
    (clone.venv / "bin" / "pip").write_text("#!/elsewhere/bin/python\n")
    (clone.venv / ".installed").write_text(content)
    assert clone.install() == 1


def test_an_environment_of_an_earlier_version_is_completed(clone):
    clone.install()
    version = ".".join(map(str, sys.version_info[:2]))
    (clone.venv / "lib" / f"python{version}").mkdir(parents=True)
    (clone.venv / ".installed").write_text("")
    assert clone.install() == 1
    assert (clone.venv / "lib").exists()


@pytest.mark.parametrize("version", [(3, 10, 1), (3, 14, 0), (2, 7, 18)])
def test_a_python_that_the_locks_do_not_fit_is_refused(clone, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=r"Python 3\.11 to 3\.13 is needed"):
        clone.install()


def test_the_pythons_of_set_up_are_those_of_the_project():
    text = (SCRIPT.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    named = [name.rpartition(" ")[2] for name in project["classifiers"]]
    assert named == ["3.11", "3.12", "3.13"]


def test_only_a_wheel_of_torch_for_this_python_counts(clone, tmp_path):
    (tmp_path / "torch-2.13.0+cpu-cp27-cp27-manylinux_2_28_x86_64.whl").touch()
    pattern = clone.script().torch_wheels()
    assert list(tmp_path.glob(pattern)) == []
    tag = "cp{}{}".format(*sys.version_info[:2])
    (tmp_path / f"torch-2.13.0+cpu-{tag}-{tag}-manylinux_2_28_x86_64.whl").touch()
    assert len(list(tmp_path.glob(pattern))) == 1
