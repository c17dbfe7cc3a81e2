"""A program says its errors and reads its files on machines that a developer never sees."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from components.core.process import WAITING_THREADS, name_user, num_cores, sharing_cores

NAMELESS_UID = 54321
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")
SHOW = """
import getpass, os, sys
from components.core.process import begin
begin()
from pathlib import Path
print(ascii(sys.argv[1:]), sys.getfilesystemencoding(), file=sys.stderr)
print(getpass.getuser(), Path.home(), os.environ.get("XDG_CACHE_HOME", ""), file=sys.stderr)
print("caf\\u00e9 \\U0001f375")
"""
CHILD = """
import subprocess
from components.core.process import begin
begin()
subprocess.run(["env"])
"""
PIXCLIP = [sys.executable, "-m", "components.cli"]


@pytest.fixture(scope="session")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with a Latin-1 locale, as older clusters have."""
    folder = tmp_path_factory.mktemp("locale")
    command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US")]
    try:
        subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no localedef here")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHONUTF8")}
    machine = {**kept, "LOCPATH": str(folder), "LC_ALL": "en_US", "LANG": "en_US"}
    told = subprocess.run(["locale", "charmap"], env=machine, capture_output=True, check=False)
    if told.stdout.strip() != b"ISO-8859-1":
        pytest.skip("no sources of locales here")
    return machine


def shown(environment: dict[str, str], *arguments: str, **options: Any) -> list[str]:
    command = [sys.executable, "-c", SHOW, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, **options)
    return [*done.stderr.decode().splitlines(), done.stdout.decode("latin-1").strip()]


def test_names_are_utf_8_and_the_console_keeps_its_own_encoding(latin1):
    arguments, _, console = shown(latin1, "é🍵")
    assert arguments == "['\\xe9\\U0001f375'] utf-8"
    assert console == "café \\U0001f375", "what the console cannot show is spelled"


def test_names_are_utf_8_also_where_python_was_told_that_they_are_not(latin1):
    assert shown({**latin1, "PYTHONUTF8": "0"}, "é🍵")[0] == "['\\xe9\\U0001f375'] utf-8"


def test_a_file_with_accents_in_its_name_is_found_in_a_latin_1_locale(latin1, tmp_path):
    (tmp_path / "donnés.yaml").write_text("select: {min_scor: 1}  # é🍵\n", encoding="utf-8")
    command = [*PIXCLIP, "select", "--grit=grit", "--records=records", "--quarantine=q.parquet"]
    command += [f"--params={tmp_path}/donnés.yaml"]
    done = subprocess.run(command, env=latin1, capture_output=True, cwd=tmp_path)
    assert done.returncode == 2
    assert b"did you mean 'min_score'" in done.stderr


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US", "nonsense"])
def test_a_message_with_any_character_is_told_in_any_locale(latin1, locale):
    environment = {**latin1, "LC_ALL": locale}
    command = [*PIXCLIP, "select", "--grit=é🍵", "--records=r", "--quarantine=q.parquet"]
    done = subprocess.run([*command, "--set=min_score=é🍵"], env=environment, capture_output=True)
    assert done.returncode == 2
    assert b"min_score" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A uid that /etc/passwd does not know, as containers have."""
    for name in (*NAMES, "XDG_CACHE_HOME", "PIXCLIP_CACHE"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return monkeypatch


def unknown(uid: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def test_a_user_without_a_name_gets_one(nameless):
    name_user()
    assert os.environ["LOGNAME"] == os.environ["USER"] == f"uid-{os.getuid()}"


@pytest.mark.parametrize("name", NAMES)
def test_a_user_with_a_name_keeps_it(nameless, name):
    nameless.setenv(name, "ada")
    name_user()
    assert [os.environ.get(other) for other in NAMES if other != name] == [None] * 3


@pytest.mark.parametrize("home", ["", "/nowhere", "relative"])
def test_a_user_without_a_home_gets_one_that_is_theirs_alone(nameless, tmp_path, home):
    nameless.setenv("HOME", home)
    name_user()
    folder = Path(os.environ["HOME"])
    assert folder == tmp_path / f"pixclip-home-{os.getuid()}"
    assert folder.stat().st_mode & 0o077 == 0
    assert os.environ["XDG_CACHE_HOME"] == str(folder / ".cache")


def test_a_home_that_cannot_be_written_keeps_its_files_and_gets_another_cache(nameless, tmp_path):
    nameless.setenv("HOME", str(tmp_path))
    nameless.setattr("os.access", lambda *_: False)
    name_user()
    assert os.environ["HOME"] == str(tmp_path)
    assert os.environ["PIXCLIP_CACHE"].startswith(f"{tmp_path}/pixclip-home-")


def test_a_folder_that_somebody_else_made_in_wait_is_not_taken(nameless, tmp_path):
    (tmp_path / f"pixclip-home-{os.getuid()}").symlink_to("/etc")
    nameless.setenv("HOME", "/nowhere")
    name_user()
    assert not Path(os.environ["HOME"]).is_symlink()
    assert Path(os.environ["HOME"]).stat().st_uid == os.getuid()


def is_namespace_possible() -> bool:
    try:
        command = ["unshare", "--user", f"--map-user={NAMELESS_UID}", "true"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not is_namespace_possible(), reason="no user namespaces here")
def test_a_process_of_an_unknown_uid_begins(tmp_path):
    """In a user namespace, where the kernel itself says so."""
    kept = {name: value for name, value in os.environ.items() if name not in (*NAMES, "HOME")}
    command = ["unshare", "--user", f"--map-user={NAMELESS_UID}", sys.executable, "-c", SHOW]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=True)
    assert f"uid-{NAMELESS_UID} " in done.stderr


def test_what_the_command_line_starts_has_threads_that_sleep_while_they_wait():
    plain = {name: value for name, value in os.environ.items() if name not in WAITING_THREADS}
    done = subprocess.run([sys.executable, "-c", CHILD], env=plain, capture_output=True, text=True)
    assert {f"{name}={value}" for name, value in WAITING_THREADS.items()} <= set(
        done.stdout.splitlines()
    )


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "5000"}])
def test_a_person_who_says_how_threads_wait_is_obeyed(own):
    assert sharing_cores({"A": "b", **own}) == {"A": "b", **own}


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("", 4)],
)
def test_a_container_has_the_cores_of_its_limit(tmp_path, monkeypatch, limit, cores):
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    monkeypatch.setattr("components.core.process.CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 4, 5})
    assert num_cores() == cores
