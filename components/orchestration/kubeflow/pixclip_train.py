"""The Kubeflow pipeline `pixclip-train`: from a version of LongGRIT to a promoted model.

resolve_data → check → adapt_text → embed_text → init_model → train, a task for each stage of the
recipe → evaluate → register → promote, which happens only if the policy is met. On a cluster a task
before them checks all settings. The exit handler says how it ended.

Every parameter is the settings of a step as JSON, and its default the step's section of the params
file with which the pipeline was compiled (`compile.py`).
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from components.core.kubeflow import component_of
from components.core.step import load_step
from components.orchestration.kubeflow.cluster import DAY_S, ClusterSettings, place, use_state

NAME = "pixclip-train"
# Makes the task of a step: its name, and its component's arguments.
Run = Callable[..., Any]


def graph(
    run: Run,
    stages: Sequence[str],
    *,
    resolve_data: str,
    check: str,
    adapt_text: str,
    embed_text: str,
    init_model: str,
    train: str,
    evaluate: str,
    register: str,
    promote: str,
) -> None:
    """The tasks of a recipe with these stages; each step's parameter is its settings as JSON."""
    data = run("resolve_data", settings=resolve_data)
    dataset = data.outputs["dataset"]
    checked = run("check", checked=dataset, settings=check)
    tower = run("adapt_text", dataset=dataset, settings=adapt_text).after(checked)
    text_tower = tower.outputs["text_tower"]
    embeddings = run(
        "embed_text", dataset=dataset, text_tower=text_tower, settings=embed_text
    ).outputs["text_embeddings"]
    parent = run("init_model", text_tower=text_tower, settings=init_model)
    parent = checkpoint = parent.outputs["parent"]
    for stage in stages:
        trained = run(
            "train",
            dataset=dataset,
            text_embeddings=embeddings,
            parent=checkpoint,
            settings=train,
            stage=stage,
        ).set_display_name(f"train {stage}")
        checkpoint = trained.outputs["checkpoint"]
    evaluation = run(
        "evaluate",
        dataset=dataset,
        text_embeddings=embeddings,
        parent=parent,
        checkpoint=checkpoint,
        settings=evaluate,
    ).outputs["evaluation"]
    registration = run(
        "register", checkpoint=checkpoint, evaluation=evaluation, settings=register
    ).outputs["registration"]
    run("promote", registration=registration, settings=promote)


_PARAMETERS = inspect.signature(graph).parameters.values()
STEPS = tuple(one.name for one in _PARAMETERS if one.kind is one.KEYWORD_ONLY)


def build_pipeline(
    stages: Sequence[str], cluster: ClusterSettings | None, cached: Collection[str]
) -> Any:
    """The pipeline for a recipe with these stages, placed on a cluster.

    Args:
        stages: of the recipe; each becomes a task.
        cluster: None for this machine, whose runs take the settings that were checked here.
        cached: steps whose tasks Kubeflow may take from its cache.
    """
    from kfp import dsl

    own = cluster or ClusterSettings()

    def run(name: str, **arguments: Any) -> Any:
        step = load_step(name)
        task = place(component_of(step)(**arguments), step, own)
        return task.set_caching_options(enable_caching=name in cached)

    def pixclip_train(*settings: str) -> None:
        arguments = dict(zip(STEPS, settings, strict=True))
        with dsl.ExitHandler(exit_task=_exit_task(own)):
            checked = _first_task(own, arguments) if cluster else None

            def run_after(name: str, **inputs: Any) -> Any:
                task = run(name, **inputs)
                is_first = checked is not None and not load_step(name).inputs
                return task.after(checked) if is_first else task

            graph(run_after, stages, **arguments)

    # kfp reads the names of a pipeline's parameters here.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=str) for name in STEPS]
    vars(pixclip_train)["__signature__"] = inspect.Signature(parameters)
    config = dsl.PipelineConfig(
        active_deadline_seconds=round(own.run_days * DAY_S),
        ttl_seconds_after_finished=round(own.ttl_days * DAY_S),
    )
    return dsl.pipeline(
        name=NAME,
        description="Train, evaluate, register and promote PixCLIP.",
        pipeline_config=config if cluster else None,
    )(pixclip_train)


def _first_task(cluster: ClusterSettings, settings: Mapping[str, Any]) -> Any:
    from components.orchestration.kubeflow.own_tasks import check_settings

    task = place(check_settings(**settings, pinned_data=cluster.pinned_data), None, cluster)
    task.set_retry(0)  # the same settings are wrong again
    return task.set_caching_options(enable_caching=False).set_display_name("check settings")


def _exit_task(cluster: ClusterSettings) -> Any:
    from components.orchestration.kubeflow.own_tasks import record_outcome

    days = {"keep_days": cluster.keep_days, "keep_pointed_days": cluster.keep_pointed_days}
    task = place(record_outcome(**days), None, cluster)
    if cluster.state_claim:
        use_state(task, cluster)
    return task.set_caching_options(enable_caching=False).set_display_name("record outcome")
