"""A compiled component is all that a stranger needs: kfp loads it without this project."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from components.cli import cli
from components.core.kubeflow import image
from components.core.step import load_step

# Another project's pipeline; nothing of ours can be imported.
STRANGER = """
import sys

class Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("components", "data_contracts", "pixclip"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked)
try:
    import components
    sys.exit("the project can be imported")
except ModuleNotFoundError:
    pass

from kfp import compiler, components, dsl

select = components.load_component_from_file("select.yaml")
train = components.load_component_from_file("train.yaml")

@dsl.pipeline(name="theirs")
def theirs(uri: str):
    grit = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset)
    records = select(grit=grit.output, settings='{"min_score": 0.7}').outputs["records"]
    parent = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model)
    train(dataset=records, text_embeddings=records, parent=parent.output, stage="align")

compiler.Compiler().compile(theirs, "theirs.yaml")
"""


def compile_component(step: str, folder: Path) -> None:
    arguments = ["component", "compile", step, "--out", str(folder / f"{step}.yaml")]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.output == f"{step}: {folder / step}.yaml\n"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> dict:
    """The pipeline of a stranger who has two of our components."""
    folder = tmp_path_factory.mktemp("stranger")
    compile_component("select", folder)
    compile_component("train", folder)
    subprocess.run([sys.executable, "-I", "-c", STRANGER], cwd=folder, check=True)
    return yaml.safe_load((folder / "theirs.yaml").read_text())


def test_a_stranger_s_pipeline_runs_our_steps_in_our_images(theirs):
    executors = theirs["deploymentSpec"]["executors"]
    assert executors["exec-select"]["container"]["image"] == image("data")
    assert executors["exec-train"]["container"]["image"] == image("train")
    program = executors["exec-select"]["container"]["command"][-1]
    assert "import run_component" in program


def test_a_stranger_sees_the_artifacts_and_their_types(theirs):
    for name in ("select", "train"):
        component, step = theirs["components"][f"comp-{name}"], load_step(name)
        assert set(component["inputDefinitions"]["artifacts"]) == set(step.inputs)
        assert set(component["outputDefinitions"]["artifacts"]) == {*step.outputs, "metrics"}
    outputs = theirs["components"]["comp-train"]["outputDefinitions"]["artifacts"]
    assert outputs["checkpoint"]["artifactType"]["schemaTitle"] == "system.Model"
    assert outputs["curves"]["artifactType"]["schemaTitle"] == "system.Artifact"


def test_a_component_is_compiled_to_the_same_bytes_again(tmp_path):
    compile_component("check", tmp_path)
    text = (tmp_path / "check.yaml").read_text()
    compile_component("check", tmp_path)
    assert (tmp_path / "check.yaml").read_text() == text
