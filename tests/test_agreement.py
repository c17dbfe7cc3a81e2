"""Every runner agrees with the signatures of the steps: each calls the same functions.

The command line and the Kubeflow components are made from the signatures; the DVC stages and the
Airflow tasks are written by hand, and are compared with them here.
"""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from components.cli import cli
from components.core.kubeflow import component_of, image
from components.core.params import params_text
from components.core.settings import merge, parse_assignments, parse_settings, read_params
from components.core.step import ARTIFACTS, Step, load_step
from components.orchestration.kubeflow.compile import compile_pipeline, pipeline_settings
from components.orchestration.kubeflow.paclip_train import PACLIP_TRAIN
from components.orchestration.kubeflow.pipeline import Pipeline
from components.orchestration.kubeflow.pipelines import PIPELINES
from components.orchestration.kubeflow.pixclip_train import PIXCLIP_TRAIN
from components.steps import STEPS
from data_contracts.engine.contract import load_contract

ROOT = Path(__file__).parents[1]
PARAMS = sorted((ROOT / "params").glob("*.yaml"))
# Other sources; DVC inside DVC, and what merges such versions; steps that look beyond their inputs.
NOT_IN_DVC = {
    "import_grit", "import_coco", "import_parts", "import_finehard", "publish", "resolve_data",
    "merge_data",
    "register", "promote", "rollback",
}  # fmt: skip
NOT_IN_DAGS = {"import_finehard"}  # three commands make the data set: docs/finehard.md


@dataclass(frozen=True)
class Line:
    """A data set and the pipeline that trains on it, wherever their steps are run."""

    pipeline: Pipeline
    dataset: str
    dags: tuple[str, str]  # that build the one and run the other
    prefix: str  # of the names of its stages in dvc.yaml
    folder: str  # that those write to
    off: frozenset[str] = frozenset()  # what the DAG makes only if it is told to

    @property
    def brought(self) -> dict[str, str]:
        """Paths of the DAG, which brings a version of the data set, where DVC has made it."""
        made = self.dataset, f"data_docs/{self.dataset}"
        return dict(zip((f"dataset/{self.dataset}", "dataset/data_docs"), made, strict=True))


NEGATIVES = frozenset(
    {"contrasted/00000", "ledger/hard_negatives/00000.json", "data_docs/contrasted"}
)
LINES = [
    Line(PIXCLIP_TRAIN, "longgrit", ("longgrit_build", "pixclip_train"), "", "runs/dvc", NEGATIVES),
    Line(PACLIP_TRAIN, "fgpart", ("fgpart_build", "paclip_train"), "parts-", "runs/dvc-parts"),
]
each_line = pytest.mark.parametrize("line", LINES, ids=lambda line: line.dataset)


@pytest.fixture(params=STEPS)
def step(request) -> Step:
    return load_step(request.param)


def test_the_command_line_has_an_option_for_every_artifact(step):
    command = cli.get_command(click.Context(cli), step.name.replace("_", "-"))
    paths = {option.name for option in command.params if option.metavar == "PATH"}
    assert paths == {*step.inputs, *step.outputs}
    assert {option.name for option in command.params if option.required} >= set(step.inputs)


def test_the_component_is_the_step_in_its_image(step):
    spec = component_of(step).component_spec
    own = step.per_task_settings
    assert set(spec.inputs) == {*step.inputs, "settings", "destinations", *own}
    assert set(spec.outputs) == {*step.outputs, "metrics"}
    assert spec.implementation.container.image == image(step.image)
    assert spec.description.strip() == step.summary


def test_the_local_backend_can_hand_every_input_to_the_component(step):
    """kfp compares the types of artifacts when the pipeline of one step is made."""
    from components.orchestration.local import StepRun, one_step_pipeline

    inputs = {name: Path("/in") / name for name in step.inputs}
    outputs = {name: Path("/out") / name for name in step.outputs}
    pipeline = one_step_pipeline(StepRun(step.name, inputs, outputs), Path("/out/outcome.json"))
    assert step.name.replace("_", "-") in pipeline.pipeline_spec.root.dag.tasks


class FakeArtifact:
    """Stands for any artifact of kfp."""

    path = "unused"


def test_the_component_hands_its_artifacts_to_the_step(step, monkeypatch):
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "components.core.kubeflow.run_component",
        lambda name, **arguments: calls.append((name, arguments)),
    )
    artifacts = {name: FakeArtifact() for name in (*step.inputs, *step.outputs, "metrics")}
    own = {name: f"one {name}" for name in step.per_task_settings}
    component_of(step).python_func(**artifacts, settings="{1}", destinations="{2}", **own)
    ((name, arguments),) = calls
    assert name == step.name
    assert arguments == {
        "inputs": {name: artifacts[name] for name in step.inputs},
        "outputs": {name: artifacts[name] for name in step.outputs},
        "metrics": artifacts["metrics"],
        "settings": "{1}",
        "destinations": "{2}",
        **({"per_task": own} if own else {}),
    }


def sections_of(params_file: Path) -> dict[str, Any]:
    return yaml.safe_load(params_file.read_text())


def dvc_stages(line: Line) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stages of dvc.yaml, the repeated ones written out; their names without the prefix."""
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    (variables,) = content["vars"]
    for full_name, stage in content["stages"].items():
        prefix, _, name = full_name.rpartition("-")
        if prefix != line.prefix.removesuffix("-"):
            continue
        items = stage.get("foreach", [""])
        for key in items:
            text = yaml.safe_dump(stage.get("do", stage), width=10_000)
            fields = items[key] if isinstance(items, dict) else {}
            own = {"item": key, "key": key} | {f"item.{k}": v for k, v in fields.items()}
            for variable, value in {**variables, **own}.items():
                text = text.replace(f"${{{variable}}}", str(value))
            yield f"{name}@{key}" if key else name, yaml.safe_load(text)


ALL_STAGES = [stage for line in LINES for stage in dvc_stages(line)]


@pytest.mark.parametrize(("name", "stage"), ALL_STAGES, ids=lambda value: str(value)[:30])
def test_a_dvc_stage_is_the_command_of_its_step(name, stage):
    step = load_step(name.partition("@")[0])
    program, command, *arguments = shlex.split(stage["cmd"])
    assert (program, command.replace("-", "_")) == ("pixclip", step.name)
    options = cli.get_command(click.Context(cli), command).make_context(command, arguments).params
    assert stage["params"] == [{str(options["params"]): [step.name]}]
    own = parse_assignments(options["assignments"], step.settings_type)
    parse_settings(step, merge(read_params(ROOT / options["params"], step.name), own))
    inputs = {str(options[name]) for name in step.inputs}
    assert inputs <= set(stage.get("deps", []))
    assert {str(options[name]) for name in step.outputs} == set(stage["outs"])


def test_every_step_has_a_dvc_stage():
    stages = {name.partition("@")[0] for name, _ in ALL_STAGES}
    assert stages == set(STEPS) - NOT_IN_DVC


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> dict[str, Any]:
    """The tasks of the DAGs that run a step, by the ids of DAG and task."""
    os.environ.setdefault("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(ROOT / "dags"), bundle_name="tests")
    return {f"{dag.dag_id}.{task.task_id}": task for dag in bag.dags.values() for task in dag.tasks}


def steps_of(task: Any) -> list[Step]:
    """The steps that a task may run; the source is chosen by a parameter."""
    name = arguments_of(task).get("step", "publish")
    is_chosen = "params.source" in name
    names = task.dag.params.get_param("source").schema["enum"] if is_chosen else [name]
    return [load_step(one) for one in names]


def arguments_of(task: Any) -> dict[str, Any]:
    return task.partial_kwargs if task.is_mapped else vars(task)


def test_an_airflow_task_names_every_artifact_of_its_step(tasks):
    seen = set()
    for task in tasks.values():
        arguments = arguments_of(task)
        if "outputs" not in arguments:  # no step
            continue
        for step in steps_of(task):
            assert set(arguments.get("inputs", {})) == set(step.inputs), task.task_id
            more = {"quarantine"} if step.name in arguments.get("quarantined", ()) else set()
            assert {*arguments["outputs"], *more} == set(step.outputs), task.task_id
            own = arguments.get("addresses", {}).get(step.name) or arguments.get("settings", {})
            fixed = {name: value for name, value in own.items() if "{{" not in str(value)}
            parse_settings(step, fixed)
            assert set(own) <= set(step.settings_type.model_fields), task.task_id
            seen.add(step.name)
    assert seen == set(STEPS) - NOT_IN_DAGS


@each_line
def test_dvc_and_airflow_keep_artifacts_at_the_same_places(tasks, line):
    airflow = {
        path.format(group="00000")
        for name, task in tasks.items()
        for path in arguments_of(task).get("outputs", {}).values()
        if name.split(".")[0] in line.dags and steps_of(task)[0].name not in NOT_IN_DVC
    }
    dvc = {
        path.removeprefix(f"{line.folder}/")
        for _, stage in dvc_stages(line)
        for path in stage["outs"]
    }
    assert dvc == {line.brought.get(path, path) for path in airflow} - line.off


# Task -> input -> the task and the output that it comes from.
Graph = dict[str, dict[str, tuple[str, str]]]


def joined(inputs: dict[str, dict[str, str]], outputs: dict[str, dict[str, str]]) -> Graph:
    """The graph of tasks that hand on artifacts at paths."""
    made = {path: (task, name) for task, own in outputs.items() for name, path in own.items()}
    return {task: {name: made[path] for name, path in own.items()} for task, own in inputs.items()}


def kubeflow_graph(pipeline: Pipeline) -> Graph:
    settings = pipeline_settings(pipeline, {})
    spec, *_ = yaml.safe_load_all(compile_pipeline(pipeline, settings, None))
    tasks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    names = {key: re.sub("[ -]", "_", task["taskInfo"]["name"]) for key, task in tasks.items()}
    producers = {
        key: {
            name: source["taskOutputArtifact"]
            for name, source in task.get("inputs", {}).get("artifacts", {}).items()
        }
        for key, task in tasks.items()
    }
    return {
        names[key]: {
            name: (names[source["producerTask"]], source["outputArtifactKey"])
            for name, source in sources.items()
        }
        for key, sources in producers.items()
    }


def airflow_graph(tasks: dict[str, Any], dag_id: str) -> Graph:
    own = {
        name.removeprefix(f"{dag_id}."): arguments_of(task)
        for name, task in tasks.items()
        if name.startswith(f"{dag_id}.") and "outputs" in arguments_of(task)
    }
    return joined(
        {name: arguments.get("inputs", {}) for name, arguments in own.items()},
        {name: arguments["outputs"] for name, arguments in own.items()},
    )


def dvc_graph(line: Line) -> Graph:
    inputs, outputs = {}, {}
    brought = {"pack": "resolve_data", f"check@{line.dataset}": "check"}
    for name, stage in dvc_stages(line):
        step = load_step(name.partition("@")[0])
        _, command, *arguments = shlex.split(stage["cmd"])
        options = cli.get_command(click.Context(cli), command).make_context(command, arguments)
        # The DVC pipeline makes the data set that the others bring.
        task = brought.get(name, name.replace("@", "_"))
        inputs[task] = {key: str(options.params[key]) for key in step.inputs}
        named = {key: "dataset" if key == "longgrit" else key for key in step.outputs}
        outputs[task] = {name: str(options.params[key]) for key, name in named.items()}
    wanted = kubeflow_graph(line.pipeline).keys() - {"resolve_data", "register", "promote"}
    return joined({task: own for task, own in inputs.items() if task in wanted}, outputs)


@each_line
def test_airflow_and_kubeflow_train_by_the_same_graph(tasks, line):
    _, trains = line.dags
    assert airflow_graph(tasks, trains) == kubeflow_graph(line.pipeline)


@each_line
def test_dvc_trains_by_the_same_graph(line):
    known = kubeflow_graph(line.pipeline)
    for task in ("resolve_data", "register", "promote"):
        del known[task]
    assert dvc_graph(line) == known


def test_every_pipeline_has_its_line():
    assert [line.pipeline for line in LINES] == list(PIPELINES.values())


def test_every_contract_is_kept_by_an_artifact_and_the_other_way_round():
    modules = [path.stem for path in (ROOT / "data_contracts").glob("[a-z]*.py")]
    contracts = {name for name in modules if load_contract(name)}
    assert {artifact.contract for artifact in ARTIFACTS.values()} - {""} == contracts


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.name)
def test_a_params_file_holds_every_setting_of_its_steps_with_its_meaning(path):
    assert path.read_text() == params_text(path), "run `make params`"


def test_every_step_has_its_settings_in_a_params_file():
    assert {name for path in PARAMS for name in sections_of(path)} == set(STEPS)


def test_a_pipeline_finds_the_settings_of_its_steps_in_its_params_file(tasks):
    for task in tasks.values():
        if "outputs" in arguments_of(task):
            file = ROOT / task.dag.params["params_file"]
            assert {step.name for step in steps_of(task)} <= set(sections_of(file)), task.task_id
