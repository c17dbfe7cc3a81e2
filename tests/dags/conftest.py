"""The DAG, loaded as Airflow's DAG processor loads it, with a home folder of the test's own."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

# Airflow reads these when it is first imported, and makes its folders there.
AIRFLOW_FOLDER = tempfile.TemporaryDirectory(prefix="pixclip-airflow-")  # goes with the process
os.environ.setdefault("AIRFLOW_HOME", AIRFLOW_FOLDER.name)
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")

DAG_FILE = Path(__file__).parents[2] / "dags" / "longgrit_build.py"


@pytest.fixture(scope="session")
def dag() -> Any:
    """The DAG `longgrit_build`."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(DAG_FILE), bundle_name="tests")
    assert not bag.import_errors
    return bag.dags["longgrit_build"]


@pytest.fixture(scope="session")
def served_dag(dag: Any) -> Any:
    """The DAG as the API server knows it, which checks what a run is triggered with."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
