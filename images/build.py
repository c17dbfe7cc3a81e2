"""Build the container images on this machine, with what its own pip trusts and offers.

    export DOCKER_HOST=$(images/start-engine)    # if no engine runs yet
    python images/build.py data annotate
    python images/build.py --cuda annotate train --sbom images/sbom

PIXCLIP_IMAGE_REPOSITORY and PIXCLIP_IMAGE_TAG name the images as they name those of a pipeline.
Certificates and pip's settings go in as BuildKit secrets: none of them stays in an image. Where no
registry can be reached, `images/make-base` makes the base out of Debian's Python.
"""

import argparse
import contextlib
import functools
import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REPOSITORY = os.environ.get("PIXCLIP_IMAGE_REPOSITORY", "example.test")
TAG = os.environ.get("PIXCLIP_IMAGE_TAG", "dev")
BASE = "python:3.11-slim-bookworm"
NAMES = ("data", "annotate", "train", "airflow", "mlflow")  # targets of the Dockerfile
LABELS = "org.opencontainers.image"  # https://specs.opencontainers.org/image-spec/annotations/
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


def require_base(docker: str, name: str = BASE) -> str:
    """Have the base image here, and give its name: by digest, if a registry told one.

    It is here, or is pulled, or is made.
    """
    for command in (["image", "inspect", name], ["pull", "--quiet", name]):
        if subprocess.run([docker, *command], capture_output=True).returncode == 0:
            break
    else:
        environment = {**os.environ, "PATH": f"{Path(docker).parent}:{os.environ['PATH']}"}
        subprocess.run([FOLDER / "make-base", name], check=True, env=environment)
    told = subprocess.run(
        [docker, "image", "inspect", "--format", "{{json .RepoDigests}}", name],
        capture_output=True,
        check=True,
    ).stdout
    return next(iter(json.loads(told) or []), name)


def build(docker: str, name: str, *, cuda: bool = False) -> str:
    """Build a target of `images/Dockerfile` and give the image's full name.

    Args:
        docker: the client.
        name: of the target.
        cuda: take the torch of PyPI with its CUDA libraries, instead of a CPU build.

    Raises:
        RuntimeError: the build failed; the message ends with what it printed last.
    """
    tag = f"{REPOSITORY}/pixclip-{name}:{TAG}"
    base = require_base(docker)
    facts = {key: text for key, text in labels(name, base).items() if text}
    options = [f"--label={LABELS}.{key}={text}" for key, text in facts.items()]
    run_build(docker, name, base, [*options, "--tag", tag], cuda=cuda)
    return tag


def write_sbom(docker: str, name: str, folder: Path, *, cuda: bool = False) -> Path:
    """List an image's Debian and Python packages as CycloneDX; gives the file.

    Raises:
        RuntimeError: the build that writes it failed.
    """
    options = ["--build-arg", f"DESCRIBED={name}", "--output", str(folder)]
    run_build(docker, "sbom", require_base(docker), options, cuda=cuda)
    return folder / f"pixclip-{name}.cdx.json"


def run_build(docker: str, target: str, base: str, options: list[str], *, cuda: bool) -> None:
    """Build a target from a base, with what this machine's pip trusts and offers."""
    with pip_secrets(has_links=not cuda) as (secrets, has_torch):
        backend = "cuda" if cuda else "" if has_torch else "cpu"
        arguments = {"BASE": base, "TORCH_BACKEND": backend, "REVISION": revision()}
        run_shown(
            [
                *(docker, "build", "--network=host", "--progress=plain", *secrets),
                *("--file", str(FOLDER / "Dockerfile"), "--target", target),
                *(f"--build-arg={key}={text}" for key, text in arguments.items()),
                *(*options, str(FOLDER.parent)),
            ]
        )


def labels(name: str, base: str) -> Mapping[str, str]:
    """What an image says of itself, by the last part of OCI's annotations; empty: not known."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text("utf-8"))["project"]
    base_name, _, digest = base.partition("@")
    return {
        "title": f"pixclip-{name}",
        "description": project["description"],
        "licenses": project["license"],
        "version": project["version"],
        "revision": revision(),
        "source": source(),
        "created": git("show", "--no-patch", "--format=%cI", "HEAD"),  # of the code: no clock's
        "base.name": base_name,
        "base.digest": digest,
    }


def source() -> str:
    """The address of the code's repository, without credentials; empty if it has none."""
    address = git("config", "remote.origin.url")
    if not re.match(r"(https?|ssh)://|[\w.-]+@[\w.-]+:", address):
        return ""  # a folder of this machine
    return re.sub(r"(?<=://)[^/@]*@", "", address)


def revision() -> str:
    """The commit of this tree, `+changes` if files differ from it; empty outside of Git."""
    return git("describe", "--always", "--abbrev=40", "--dirty=+changes")


def git(*words: str) -> str:
    """What Git says of this tree; empty if it is none of Git's, or Git knows no answer."""
    command = ["git", "-C", str(FOLDER), *words]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
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
def pip_secrets(*, has_links: bool = True) -> Iterator[tuple[list[str], bool]]:
    """The `--secret` options that carry this machine's pip settings into a build.

    Also gives whether its find-links folder offers torch. Without links none is handed over.
    """
    settings = pip_settings()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = []
        certificates = settings.get("cert") or os.environ.get("SSL_CERT_FILE", "")
        if Path(certificates).is_file():
            options += ["--secret", f"id=certificates,src={certificates}"]
        lines = ["[global]", f"timeout = {settings.get('default-timeout', '60')}"]
        lines += [f"{k} = {settings[k]}" for k in ("index-url",) if k in settings]
        links = Path(settings.get("find-links", ""))
        has_torch = False
        if has_links and links.is_absolute():
            # A build sees no folder of the machine, but its loopback.
            lines.append(f"find-links = {stack.enter_context(serve(links))}")
            has_torch = any(links.glob("torch-*.whl"))
        config = folder / "pip.conf"
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield [*options, "--secret", f"id=pip_config,src={config}"], has_torch


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
    parser.add_argument("--cuda", action="store_true", help="torch for GPUs, of locks/cuda.txt")
    parser.add_argument("--sbom", type=Path, metavar="FOLDER", help="list each image's packages")
    arguments = parser.parse_args()
    try:
        docker = docker_client()
        for name in arguments.names:
            sys.stdout.write(build(docker, name, cuda=arguments.cuda) + "\n")
            if arguments.sbom:
                told = write_sbom(docker, name, arguments.sbom, cuda=arguments.cuda)
                sys.stdout.write(f"{told}\n")
    except (FileNotFoundError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
