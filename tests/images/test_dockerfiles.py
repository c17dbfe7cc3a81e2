"""What the images promise, read from their Dockerfile: no engine needed."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from components.core.process import WAITING_THREADS
from components.core.step import load_step
from components.steps import STEPS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = REPOSITORY / "images" / "Dockerfile"
STEP_IMAGES = ["data", "annotate", "train"]
IMAGES = [*STEP_IMAGES, "airflow", "mlflow"]


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments, in order."""
    lines = re.sub(r"\\\n", " ", DOCKERFILE.read_text()).splitlines()
    return [(line.split()[0], line) for line in lines if line and not line.startswith("#")]


def instructions_of(target: str) -> list[tuple[str, str]]:
    """What makes an image: the instructions of its stage, after those of the stages it is from."""
    stages: dict[str, list[tuple[str, str]]] = {}
    stage: list[tuple[str, str]] = []
    for keyword, line in instructions():
        if keyword == "FROM":
            _, base, _, name = line.split()
            stage = stages[name] = [*stages.get(base, [])]
        stage.append((keyword, line))
    return stages[target]


def pins(name: str) -> dict[str, str]:
    """Package -> version of an image's lock."""
    lines = (REPOSITORY / "locks" / f"{name}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def requirements(extra: str) -> list[Requirement]:
    """What the distribution and one of its extras ask for directly."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = []
    for line in project["dependencies"] + project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name == project["name"]:
            wanted += [r for other in requirement.extras for r in requirements(other)]
        else:
            wanted.append(requirement)
    return wanted


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    told = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("name", IMAGES)
def test_the_user_is_not_root(name):
    *_, user = [line.split()[1] for keyword, line in instructions_of(name) if keyword == "USER"]
    assert int(user.split(":")[0]) > 0


@pytest.mark.parametrize("name", IMAGES)
def test_there_is_no_entrypoint(name):
    # It would be put before every command that Kubeflow gives.
    assert "ENTRYPOINT" not in [keyword for keyword, _ in instructions_of(name)]


def test_no_index_certificate_or_proxy_is_baked_in():
    lasting = [line for keyword, line in instructions() if keyword in {"ENV", "ARG", "COPY"}]
    assert not re.search(r"(?i)cert|proxy|index|find.links|https?://", "\n".join(lasting))


@pytest.mark.parametrize("name", IMAGES)
def test_threads_sleep_while_they_wait(name):
    lasting = " ".join(line for keyword, line in instructions_of(name) if keyword == "ENV")
    assert [f"{key}={value}" in lasting.split() for key, value in WAITING_THREADS.items()] == [
        True,
        True,
    ]


@pytest.mark.parametrize("name", IMAGES)
def test_the_image_holds_the_packages_of_its_own_lock(name):
    packages = f"{name}-packages"
    assert ("COPY", f"COPY --from={packages} /opt/pixclip /opt/pixclip") in instructions_of(name)
    (installed,) = [line for keyword, line in instructions_of(packages) if "/tmp/locks/" in line
                    and keyword == "RUN"]  # fmt: skip
    assert installed.endswith(f"install-locks /tmp/locks/{name}.txt")


@pytest.mark.parametrize("name", [name for name in IMAGES if name != "mlflow"])
def test_the_image_knows_the_commit_of_its_code(name):
    lasting = " ".join(line for keyword, line in instructions_of(name) if keyword == "ENV")
    assert "PIXCLIP_GIT_COMMIT=$REVISION" in lasting.split()
    assert ("ARG", 'ARG REVISION=""') in instructions_of(name)


def test_the_builder_tells_the_commit(build_module):
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", build_module.revision())


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://ada:secret@git.example/team/pixclip.git", "https://git.example/team/pixclip.git"),
        ("git@git.example:team/pixclip.git", "git@git.example:team/pixclip.git"),
        ("/home/ada/pixclip", ""),
        ("", ""),
    ],
)
def test_the_source_of_an_image_is_an_address_without_credentials(
    build_module, monkeypatch, address, told
):
    monkeypatch.setattr(build_module, "git", lambda *_: address)
    assert build_module.source() == told


def test_the_builder_knows_every_target(build_module):
    assert list(build_module.NAMES) == IMAGES


@pytest.mark.parametrize("name", IMAGES)
def test_the_lock_pins_everything_that_the_extra_asks_for(name):
    pinned = pins(name)
    for requirement in requirements(name):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"locks/{name}.txt lacks {requirement.name}: run `make lock`"
        assert requirement.specifier.contains(version), f"{requirement} but locked {version}"


@pytest.mark.parametrize("name", [*IMAGES, "cuda"])
def test_the_lock_agrees_with_the_laptops(name):
    laptop, own = pins("laptop"), pins(name)
    both = laptop.keys() & own.keys()
    assert {package: laptop[package] for package in both} == {p: own[p] for p in both}


def test_the_images_of_steps_hold_nothing_that_no_laptop_has():
    for name in STEP_IMAGES:
        assert pins(name).keys() <= pins("laptop").keys()


def test_the_lock_for_gpus_has_the_torch_of_the_images_and_its_cuda_libraries():
    cuda = pins("cuda")
    assert cuda["torch"] == pins("train")["torch"] == pins("annotate")["torch"]
    assert {"cublas", "cudnn-cu13", "nccl-cu13"} <= {p.removeprefix("nvidia-") for p in cuda}
    assert "triton" in cuda


def test_images_and_laptops_are_installed_by_the_same_uv():
    told = (REPOSITORY / "scripts" / "install.py").read_text()
    (version,) = re.findall(r'^UV_VERSION = "(.+)"$', told, flags=re.MULTILINE)
    assert ("ARG", f"ARG UV_VERSION={version}") in instructions_of("environment")


def test_the_chart_s_version_of_airflow_is_the_image_s():
    values = yaml.safe_load((REPOSITORY / "deploy" / "airflow" / "values.yaml").read_text())
    assert values["airflowVersion"] == pins("airflow")["apache-airflow"]
    assert values["defaultAirflowRepository"].endswith("/pixclip-airflow")
    (user,) = [line for keyword, line in instructions_of("airflow") if keyword == "USER"]
    pod = values["securityContexts"]["pod"]
    assert user == f"USER {pod['runAsUser']}:{pod['fsGroup']}"


@pytest.mark.parametrize("name", STEP_IMAGES)
def test_the_page_tells_which_steps_run_in_an_image(name):
    page = (REPOSITORY / "docs" / "images.md").read_text()
    (steps,) = re.findall(rf"^\| `{name}` \| ([^|]*) \|", page, re.MULTILINE)
    of_image = [step for step in STEPS if load_step(step).image == name]
    assert re.findall(r"`(\w+)`", steps) == of_image


@pytest.mark.parametrize("name", IMAGES)
def test_the_lock_installs_on_any_machine(name):
    assert not [version for version in pins(name).values() if "+" in version]


def test_torch_is_in_the_image_of_models_only():
    assert "torch" in pins("annotate")
    assert "torch" not in pins("data")
    assert {"deepspeed", "mlflow", "dvc"} <= set(pins("train"))
    assert not {"deepspeed", "mlflow", "dvc"} & set(pins("annotate"))


def test_every_step_names_an_image_that_exists():
    assert {load_step(name).image for name in STEPS} <= set(STEP_IMAGES)


def test_the_scripts_parse():
    for script in ("start-engine", "make-base", "install", "describe"):
        subprocess.run(["bash", "-n", REPOSITORY / "images" / script], check=True)


def test_a_failed_build_shows_all_and_ends_with_what_was_printed_last(build_module, capfd):
    script = "seq 100; echo no space left on device >&2; exit 3"
    with pytest.raises(RuntimeError) as failed:
        build_module.run_shown(["sh", "-c", script])
    message = str(failed.value)
    assert "exit code 3" in message
    assert "GiB of disk are free" in message
    assert message.endswith("100\nno space left on device\n")
    assert "\n60\n" not in message
    assert "\n60\n" in capfd.readouterr().err


def test_a_machine_that_cannot_start_an_engine_is_told_why(tmp_path):
    # A PATH without dockerd and apt-get, and a socket that nobody serves.
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "id", "mkdir", "timeout", "env"):
        (tools / tool).symlink_to(Path("/usr/bin") / tool)
    environment = {
        "PATH": str(tools),
        "PIXCLIP_ENGINE_FOLDER": str(tmp_path / "engine"),
        "DOCKER_HOST": f"unix://{tmp_path}/nobody.sock",
    }
    told = subprocess.run(
        [REPOSITORY / "images" / "start-engine"], env=environment, capture_output=True, text=True
    )
    assert told.returncode == 3, told.stderr
    assert "no Docker engine: dockerd is not installed" in told.stderr


def test_the_demo_in_containers_builds_the_images_and_compares_with_processes():
    words = ["make", "--dry-run", "--old-file=setup", "--old-file=environment", "demo"]
    told = subprocess.run(
        [*words, "BACKEND=docker", "RUN=runs/x"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout.replace("\\\n", " ")  # fmt: skip
    confs = [json.loads(conf) for conf in re.findall(r"--conf '(.*?)'", told)]
    folders = [(conf["run_folder"], conf.get("backend")) for conf in confs]
    assert folders == [("runs/x", "docker"), ("runs/x", "docker"), ("runs/x-processes", None)]
    assert told.index("images/build.py data annotate train") < told.index("longgrit_build")
    assert 'diff --recursive --brief "runs/x/longgrit" "runs/x-processes/longgrit"' in told
