"""Evaluations as the registry keeps them: a file may be damaged or written by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import InputError

Value = Annotated[float, Field(allow_inf_nan=False)] | None
Values = dict[str, dict[str, Value]]  # subset -> metric -> value


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Data(_Part):
    dataset: str
    num_regions: Annotated[int, Field(ge=0)]
    version: dict[str, Any] | None = None


class _Evaluation(_Part):
    """What `register` and `promote` read of `evaluation.json`."""

    protocol: str | None = None
    protocol_digest: str
    checkpoint: str | None = None
    data: _Data
    metrics: Values
    num_samples: dict[str, dict[str, Annotated[int, Field(ge=0)] | None]]
    baselines: dict[str, Values] = {}


def read_evaluation_whole(folder: Path) -> Mapping[str, Any]:
    """The content of a folder's `evaluation.json`, each part of the kind it should be.

    Raises:
        InputError: it is missing or damaged; says where.
    """
    from pixclip.evaluation.compare import EVALUATION_NAME, read_evaluation
    from pixclip.evaluation.protocol import EvaluationError

    path = folder / EVALUATION_NAME
    try:
        content = read_evaluation(folder)
        _Evaluation.model_validate(content)
    except EvaluationError as error:
        raise InputError(str(error)) from error
    except RecursionError:
        raise InputError(f"{path} is no evaluation: nested too deep; evaluate again") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} is no evaluation: {place}: {first['msg']}; evaluate again"
        ) from None
    return content
