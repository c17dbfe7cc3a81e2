"""Make the virtual environment `.venv` from a lock, with the machine's own pip settings.

    python3.11 scripts/install.py --venv .venv --lock locks/laptop.txt

uv installs in seconds what pip takes minutes for, but reads none of pip's configuration: index,
find-links folders and certificate are handed over here. So a CPU build of torch that the machine
offers is taken; where it offers none, uv is told to take the CPU build. Only the standard library
is used.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

UV_VERSION = "0.13.9"
PROJECT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Create the environment, or complete an unfinished one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=Path(".venv"))
    parser.add_argument("--lock", type=Path, default=Path("locks/laptop.txt"))
    parser.add_argument("--no-project", action="store_true", help="leave pixclip itself out")
    arguments = parser.parse_args()
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"Python 3.11 is needed, this is {sys.version.split()[0]}; set PYTHON=python3.11")
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
    if not any(any(folder.glob("torch-*.whl")) for folder in folders):
        command += ["--torch-backend", os.environ.get("TORCH_BACKEND", "cpu")]
    return command


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
