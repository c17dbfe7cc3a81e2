"""The DAGs, loaded as Airflow's DAG processor loads them, with a home folder of the test's own."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

# Airflow reads these when it is first imported, and makes its folders there.
AIRFLOW_FOLDER = tempfile.TemporaryDirectory(prefix="pixclip-airflow-")  # goes with the process
os.environ.setdefault("AIRFLOW_HOME", AIRFLOW_FOLDER.name)
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")

DAGS_FOLDER = Path(__file__).parents[3] / "dags"

PARSE = """
import json, runpy, sys, time
import airflow.sdk
start = time.process_time()
runpy.run_path(sys.argv[1])
heavy = ("torch", "kfp", "mlflow", "great_expectations", "pandas", "transformers", "dvc")
print(json.dumps([time.process_time() - start, [name for name in heavy if name in sys.modules]]))
"""


def parsed(name: str) -> tuple[float, list[str]]:
    """The processor seconds in which the DAG's file is parsed, and what heavy it has imported."""
    command = [sys.executable, "-c", PARSE, str(DAGS_FOLDER / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, heavy = json.loads(done.stdout.splitlines()[-1])
    return seconds, heavy


def load_dag(name: str) -> Any:
    """The DAG of the file of that name."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(DAGS_FOLDER / f"{name}.py"), bundle_name="tests")
    assert not bag.import_errors
    return bag.dags[name]


def as_served(dag: Any) -> Any:
    """The DAG as the API server knows it, which checks what a run is triggered with."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))


@pytest.fixture(scope="session")
def dag() -> Any:
    """The DAG `longgrit_build`."""
    return load_dag("longgrit_build")


@pytest.fixture(scope="session")
def served_dag(dag: Any) -> Any:
    """The DAG `longgrit_build` as the API server knows it."""
    return as_served(dag)
