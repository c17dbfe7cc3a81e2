"""Make a checkpoint folder an MLflow model in place: it stays a plain checkpoint beside that.

https://mlflow.org/docs/latest/ml/model/: a model is a folder with a file `MLmodel`. Ours names a
module of this package as loader and the folder itself as data, so no code and no pickle is in it.
"""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

LOADER = "components.tracking.pyfunc"
ENVIRONMENT_NAME, REQUIREMENTS_NAME = "python_env.yaml", "requirements.txt"
PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "torch", "transformers")


def make_mlflow_model(folder: Path, *, model_id: str, run_id: str) -> None:
    """Write `MLmodel` and what it names into a checkpoint folder."""
    from mlflow import pyfunc
    from mlflow.models import Model

    (folder / REQUIREMENTS_NAME).write_text(_requirements(), encoding="utf-8")
    (folder / ENVIRONMENT_NAME).write_text(
        f"python: {platform.python_version()}\ndependencies:\n- -r {REQUIREMENTS_NAME}\n",
        encoding="utf-8",
    )
    model = Model(run_id=run_id, model_uuid=model_id, model_id=model_id, signature=signature())
    pyfunc.add_to_model(model, loader_module=LOADER, python_env=ENVIRONMENT_NAME)
    model.save(str(folder / "MLmodel"))


def signature() -> Any:
    """What goes into the model and what comes out; see `pyfunc.py`."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    inputs = [
        ColSpec(kind, name, required=False)
        for name, kind in (
            ("image", DataType.binary),
            ("mask", DataType.string),
            ("text", DataType.string),
        )
    ]
    outputs = [
        ColSpec(Array(DataType.double), "image_embedding", required=False),
        ColSpec(Array(DataType.double), "text_embedding", required=False),
        ColSpec(DataType.double, "similarity", required=False),
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def _requirements() -> str:
    # This package is on no index: its name there could become a stranger's.
    own = f"# and pixclip {version('pixclip')}, from its own repository\n"
    # A local label (`2.13.0+cpu`) says where this machine got a wheel, not what is needed.
    return own + "".join(f"{name}=={version(name).partition('+')[0]}\n" for name in PACKAGES)
