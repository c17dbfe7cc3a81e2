"""Build the container images on this machine, with what its own pip trusts and offers.

    export DOCKER_HOST=$(images/start-engine)    # if no engine runs yet
    python images/build.py data annotate

PIXCLIP_IMAGE_REPOSITORY and PIXCLIP_IMAGE_TAG name the images as they name those of a pipeline.
Certificates and pip's settings go in as BuildKit secrets: none of them stays in an image. Where no
registry can be reached, `images/make-base` makes the base out of Debian's Python.
"""

import argparse
import contextlib
import functools
import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REPOSITORY = os.environ.get("PIXCLIP_IMAGE_REPOSITORY", "example.test")
TAG = os.environ.get("PIXCLIP_IMAGE_TAG", "dev")
BASE = "python:3.11-slim-bookworm"
NAMES = ("data", "annotate", "train")  # targets of the Dockerfile
NUM_LAST_LINES = 30
BUILTIN_BUILDKIT_VERSIONS = range(18, 23)  # of docker clients; newer ones need buildx beside them


def docker_client() -> str:
    """The first docker client on the PATH that can build with BuildKit.

    Raises:
        FileNotFoundError: there is none.
    """
    folders = [*os.get_exec_path(), "/usr/bin"]
    for path in dict.fromkeys(shutil.which("docker", path=folder) for folder in folders):
        if path is None:
            continue
        told = subprocess.run(
            [path, "--version"], capture_output=True, encoding="utf-8", errors="replace"
        ).stdout
        version = re.search(r"version (\d+)\.", told)
        if version and int(version[1]) in BUILTIN_BUILDKIT_VERSIONS:
            return path
        if subprocess.run([path, "buildx", "version"], capture_output=True).returncode == 0:
            return path
    raise FileNotFoundError("no docker client with BuildKit; Debian's docker.io has one")


def require_base(docker: str, name: str = BASE) -> None:
    """Have the base image here: it is here, or is pulled, or is made."""
    for command in (["image", "inspect", name], ["pull", "--quiet", name]):
        if subprocess.run([docker, *command], capture_output=True).returncode == 0:
            return
    environment = {**os.environ, "PATH": f"{Path(docker).parent}:{os.environ['PATH']}"}
    subprocess.run([FOLDER / "make-base", name], check=True, env=environment)


def build(docker: str, name: str) -> str:
    """Build a target of `images/Dockerfile` and give the image's full name.

    Raises:
        RuntimeError: the build failed; the message ends with what it printed last.
    """
    tag = f"{REPOSITORY}/pixclip-{name}:{TAG}"
    with pip_secrets() as secrets:
        run_shown(
            [
                *(docker, "build", "--network=host", "--progress=plain", *secrets),
                *("--file", str(FOLDER / "Dockerfile"), "--target", name),
                *("--build-arg", f"REVISION={revision()}"),
                *("--tag", tag, str(FOLDER.parent)),
            ]
        )
    return tag


def revision() -> str:
    """The commit of this tree, `+changes` if files differ from it; empty outside of Git."""
    words = ("git", "-C", str(FOLDER), "describe", "--always", "--abbrev=40", "--dirty=+changes")
    try:
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def run_shown(command: list[str]) -> None:
    """Run a command, show what it prints, and raise with the last of it if the command fails."""
    last_lines: deque[str] = deque(maxlen=NUM_LAST_LINES)
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stderr.write(line)
            last_lines.append(line)
    if process.returncode != 0:
        free = shutil.disk_usage(FOLDER).free / 2**30
        raise RuntimeError(
            f"{shlex.join(command)} failed with exit code {process.returncode}; "
            f"{free:.1f} GiB of disk are free. It printed last:\n{''.join(last_lines)}"
        )


@contextlib.contextmanager
def pip_secrets() -> Iterator[list[str]]:
    """The `--secret` options that carry this machine's pip settings into a build."""
    settings = pip_settings()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = []
        certificates = settings.get("cert") or os.environ.get("SSL_CERT_FILE", "")
        if Path(certificates).is_file():
            options += ["--secret", f"id=certificates,src={certificates}"]
        lines = ["[global]", f"timeout = {settings.get('default-timeout', '60')}"]
        lines += [f"{k} = {settings[k]}" for k in ("index-url",) if k in settings]
        if Path(settings.get("find-links", "")).is_absolute():
            # A build sees no folder of the machine, but its loopback.
            address = stack.enter_context(serve(Path(settings["find-links"])))
            lines.append(f"find-links = {address}")
        config = folder / "pip.conf"
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield [*options, "--secret", f"id=pip_config,src={config}"]


def pip_settings() -> dict[str, str]:
    """What this machine configures for pip, by name."""
    pip = shutil.which("pip") or shutil.which("pip3")
    if pip is None:
        return {}
    told = subprocess.run(
        [pip, "config", "list"], capture_output=True, encoding="utf-8", errors="replace"
    ).stdout
    return {m[1]: m[2] for m in re.finditer(r"^\S*?([\w-]+)='(.*)'$", told, flags=re.MULTILINE)}


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder's files on the loopback for as long as the context lasts."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def main() -> None:
    """Build the named images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = ", ".join(NAMES)
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=known)
    names = parser.parse_args().names
    try:
        docker = docker_client()
        require_base(docker)
        for name in names:
            sys.stdout.write(build(docker, name) + "\n")
    except (FileNotFoundError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
