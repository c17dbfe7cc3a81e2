"""The images, built by a real engine: what they hold, what they say of themselves, how large."""

import importlib.metadata
import json
import subprocess
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.images.test_dockerfiles import IMAGES, pins

pytestmark = [pytest.mark.docker, pytest.mark.slow]

# docs/images.md says what the bytes are. With torch for CPUs, and Debian's Python as the base.
BUDGET_MB = {"data": 1_050, "annotate": 1_850, "train": 2_300, "airflow": 1_750, "mlflow": 950}

STEPS = (
    "boto3 components.steps cv2 datasets great_expectations imagehash kfp.local pandas "
    "pyarrow.dataset pycocotools.mask scipy.stats"
)
VERSIONS = "dvc.repo dvc_s3 mlflow.pyfunc"
LIBRARIES = {
    "data": STEPS,
    "annotate": f"{STEPS} accelerate torch transformers",
    "train": f"{STEPS} {VERSIONS} deepspeed peft pixclip s3fs simplejpeg sklearn torch.distributed",
    "airflow": f"{STEPS} {VERSIONS} asyncpg psycopg2 components.orchestration.kubeflow.client "
    "airflow.providers.cncf.kubernetes.executors.kubernetes_executor "
    "airflow.providers.fab.auth_manager.fab_auth_manager "
    "components.orchestration.airflow.kubeflow.operator",
    "mlflow": "boto3 mlflow.server.auth psycopg2",
}


@pytest.fixture(scope="module")
def inspect(docker_client, image):
    """What the engine knows of an image."""

    def told(name: str):
        words = [docker_client, "image", "inspect", image(name)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)[0]

    return told


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_no_larger_than_its_budget(inspect, name):
    assert inspect(name)["Size"] <= BUDGET_MB[name] * 10**6


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_no_root_no_entrypoint_and_no_setting_of_the_build(inspect, name):
    config = inspect(name)["Config"]
    assert not config["Entrypoint"]
    assert int(config["User"].partition(":")[0]) > 0
    assert not [line for line in config["Env"] if line.startswith(("PIP_", "UV_", "SSL_", "HTTP"))]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_says_what_it_was_built_of(inspect, build_module, name):
    said = inspect(name)["Config"]["Labels"]
    own = {key.removeprefix(f"{build_module.LABELS}."): text for key, text in said.items()}
    assert own["title"] == f"pixclip-{name}"
    assert own["revision"].partition("+")[0] == build_module.revision().partition("+")[0]
    assert own["version"] == importlib.metadata.version("pixclip")
    assert own["created"].startswith("20")
    assert own["base.name"]


@pytest.mark.parametrize("name", IMAGES)
def test_every_library_of_an_image_can_be_imported(run_in, name):
    # Files that no program needs were taken out of the packages; these need none of them.
    script = f"import {', '.join(LIBRARIES[name].split())}; print('all there')"
    assert "all there" in run_in(name, "python", "-c", script)


@pytest.mark.parametrize("name", IMAGES)
def test_nothing_of_the_build_stays_in_an_image(run_in, name):
    script = (
        "import pathlib, importlib.util as i; paths = map(pathlib.Path, ('/opt/uv', '/tmp/locks'));"
        "assert not any(path.exists() for path in paths);"
        "assert not any(pathlib.Path('/run').glob('secrets/*'));"
        "assert i.find_spec('pip') is None or '/opt/' not in i.find_spec('pip').origin"
    )
    run_in(name, "python", "-c", script)


@pytest.mark.parametrize("name", sorted(set(IMAGES) - {"annotate", "train"}))
def test_an_image_without_models_has_no_torch(run_in, name):
    script = "import importlib.util; assert importlib.util.find_spec('torch') is None"
    run_in(name, "python", "-c", script)


def test_any_user_can_run_the_command_line(run_in):
    assert run_in("data", "id", "-u").strip() != "0"
    script = "touch $HOME/file && pixclip select --help"
    assert "--records" in run_in("data", "sh", "-c", script, options=("--user=4242:4242",))


def test_the_bill_of_materials_lists_debian_s_packages_and_those_of_the_lock(
    docker_client, image, build_module, tmp_path
):
    image("data")
    path = build_module.write_sbom(docker_client, "data", tmp_path)
    bill = json.loads(path.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "pixclip-data"
    purls = {component.get("purl", "") for component in bill["components"]}
    found = (purl.removeprefix("pkg:pypi/").split("@") for purl in purls if "pkg:pypi/" in purl)
    python = {canonicalize_name(package): version for package, version in found}
    assert python == pins("data")
    programs = {(c["name"], c.get("version")) for c in bill["components"]}
    assert ("pixclip", importlib.metadata.version("pixclip")) in programs
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in purls)


def test_mlflow_s_server_has_users_and_answers(docker_client, image, tmp_path):
    settings = tmp_path / "auth" / "basic_auth.ini"
    settings.parent.mkdir()
    settings.write_text(
        "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:////tmp/auth.db\n"
        "admin_username = ada\nadmin_password = a-long-password\n"
    )
    # As in deploy/base/mlflow.yaml, with files in the place of PostgreSQL and S3.
    server = (
        "mlflow server --host 0.0.0.0 --port 5000 --app-name=basic-auth --workers 1 "
        "--backend-store-uri=sqlite:////tmp/mlflow.db --artifacts-destination=/tmp/artifacts & "
        "exec python - 5000"
    )
    client = (Path(__file__).parent / "ask_mlflow.py").read_text()
    done = subprocess.run(
        [docker_client, "run", "--rm", "--interactive", "--network=none", "--read-only",
         "--tmpfs=/tmp", "--cap-drop=ALL", "--env=HOME=/tmp",
         "--env=MLFLOW_FLASK_SERVER_SECRET_KEY=secret",
         "--env=MLFLOW_AUTH_CONFIG_PATH=/auth/basic_auth.ini",
         f"--volume={settings.parent}:/auth:ro", image("mlflow"), "sh", "-c", server],
        input=client, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stranger 401, ada 200" in done.stdout, done.stdout + done.stderr
