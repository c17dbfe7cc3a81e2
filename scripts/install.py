"""Make the virtual environment `.venv` from a lock, with the machine's own pip settings.

    python3.11 scripts/install.py --venv .venv --lock locks/laptop.txt

uv installs in seconds what pip takes minutes for, but reads none of pip's configuration: index,
find-links folders and certificate are handed over here. So a CPU build of torch that the machine
offers is taken; where it offers none, uv is told to take the CPU build. Only the standard library
is used.

An environment holds absolute paths, of the project and of itself. So one that was moved or copied,
was left half-made, or whose Python is gone or another, is made anew.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

UV_VERSION = "0.13.9"
PYTHONS = ((3, 11), (3, 13))
STATE = ".installed"
PROJECT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Create the environment, complete it, or do nothing where it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=Path(".venv"))
    parser.add_argument("--lock", type=Path, default=Path("locks/laptop.txt"))
    parser.add_argument("--no-project", action="store_true", help="leave pixclip itself out")
    arguments = parser.parse_args()
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        first, last = (".".join(map(str, version)) for version in PYTHONS)
        sys.exit(
            f"Python {first} to {last} is needed, this is {sys.version.split()[0]}; "
            f"set PYTHON=python{first}"
        )
    with only_one(PROJECT):
        make_ready(arguments)


def make_ready(arguments: argparse.Namespace) -> None:
    """Create, complete or replace the environment; note when that is finished."""
    wanted = wanted_state(arguments.venv, arguments.lock)
    found = found_state(arguments.venv, wanted)
    if found == wanted and runs(arguments.venv / "bin" / "python"):
        return
    if arguments.venv.is_symlink():
        sys.exit(
            f"{arguments.venv} is a link to {arguments.venv.resolve()}, the environment of another "
            "clone or lock, and would run that one's code: remove the link and run this again"
        )
    why = reason_to_start_anew(found, wanted, arguments.venv)
    if why and arguments.venv.exists():
        print(f"{arguments.venv} is made anew: {why}", file=sys.stderr)  # noqa: T201
        shutil.rmtree(arguments.venv)
    (arguments.venv / STATE).unlink(missing_ok=True)
    install_all(arguments)
    write_state(arguments.venv, wanted)


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let a second installation wait for the first."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def wanted_state(venv: Path, lock: Path) -> dict[str, str]:
    """What an environment is made of and for; it is as it should be while none of that changes."""
    return {
        "place": str(PROJECT),
        "environment": str(Path(os.path.abspath(venv.parent.resolve() / venv.name))),
        "python": ".".join(map(str, sys.version_info[:2])),
        "lock": digest(lock),
        "project": digest(PROJECT / "pyproject.toml"),
    }


def found_state(venv: Path, wanted: dict[str, str]) -> dict[str, str]:
    """What an environment was made of and for; empty if that was not finished."""
    try:
        text = (venv / STATE).read_text(encoding="utf-8")
        pip = (venv / "bin" / "pip").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    try:
        found = json.loads(text)
    except ValueError:  # of an earlier version, which noted no more than that it had finished
        is_of_here = f"{wanted['environment']}/bin/python" in pip.partition("\n")[0]
        has_python = (venv / "lib" / f"python{wanted['python']}").is_dir()
        return {**wanted, "lock": ""} if is_of_here and has_python else {}
    return found if isinstance(found, dict) else {}


def reason_to_start_anew(found: dict[str, str], wanted: dict[str, str], venv: Path) -> str:
    """Why an environment cannot be completed; empty if it can."""
    if not runs(venv / "bin" / "python"):
        return "its Python is gone"
    if not found:
        return "it was not finished"
    if (found.get("place"), found.get("environment")) != (wanted["place"], wanted["environment"]):
        return f"it belongs to {found.get('place')} and would run the code there"
    if found.get("python") != wanted["python"]:
        return f"it is of Python {found.get('python')}, not {wanted['python']}"
    return ""


def runs(python: Path) -> bool:
    """Whether a Python can be started: the one that it was made from may be gone."""
    try:
        return subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def write_state(venv: Path, state: dict[str, str]) -> None:
    """Note that an environment is finished, by rename."""
    partial = venv / f"{STATE}.partial"
    partial.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    partial.replace(venv / STATE)


def digest(path: Path) -> str:
    """A file's content as a short text: its time says nothing, Git sets it as it likes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install_all(arguments: argparse.Namespace) -> None:
    """Install the lock and, if wanted, the project itself."""
    python = arguments.venv / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(arguments.venv)], os.environ)
    settings = pip_settings(python)
    folders = wheel_folders(settings)
    install = installer(python, folders)
    run([*install, "--no-deps", "-r", str(arguments.lock)], uv_environment(settings))
    if not arguments.no_project:
        run([*install, "--no-deps", "-e", str(PROJECT)], uv_environment(settings))


def installer(python: Path, folders: list[Path]) -> list[str]:
    """The install command: uv's, or pip's own where uv is not to be had."""
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    if subprocess.run([*pip, "--quiet", f"uv=={UV_VERSION}"], check=False).returncode:
        print("uv cannot be installed; pip will do, more slowly", file=sys.stderr)  # noqa: T201
        return pip
    command = [str(python), "-m", "uv", "pip", "install", "--python", str(python)]
    command += ["--compile-bytecode"]
    for folder in folders:
        command += ["--find-links", str(folder)]
    backend = os.environ.get("TORCH_BACKEND", "cpu")  # empty: the build of the index
    if backend and not any(any(folder.glob(torch_wheels())) for folder in folders):
        command += ["--torch-backend", backend]
    return command


def torch_wheels() -> str:
    """The file names of torch's wheels for this Python."""
    return f"torch-*-cp{sys.version_info[0]}{sys.version_info[1]}-*.whl"


def pip_settings(python: Path) -> dict[str, str]:
    """pip's settings from its files and its environment variables, by option name."""
    listing = subprocess.run(
        [str(python), "-m", "pip", "config", "list"],
        capture_output=True,
        check=True,
        encoding="utf-8",
        errors="replace",
    ).stdout
    settings = {}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        if separator:
            settings[name.rpartition(".")[2]] = value.strip("'\"")
    return settings


def wheel_folders(settings: dict[str, str]) -> list[Path]:
    """The find-links folders that exist: uv takes a missing one for an error."""
    return [Path(text) for text in settings.get("find-links", "").split() if Path(text).is_dir()]


def uv_environment(settings: dict[str, str]) -> dict[str, str]:
    """The environment for uv, with pip's index and certificate under uv's names."""
    environment = dict(os.environ)
    for option, variable in (("index-url", "UV_DEFAULT_INDEX"), ("cert", "SSL_CERT_FILE")):
        if option in settings:
            environment.setdefault(variable, settings[option])
    remote = [url for url in settings.get("extra-index-url", "").split() if url.startswith("http")]
    if remote:
        environment.setdefault("UV_INDEX", " ".join(remote))
    return environment


def run(command: list[str], environment: "os._Environ[str] | dict[str, str]") -> None:
    """Run a command; its failure ends this script with its exit code."""
    code = subprocess.run(command, env=dict(environment), check=False).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
