"""The Kubeflow pipeline `pixclip-train`: from a version of LongGRIT to a promoted model.

resolve_data → check → adapt_text → embed_text → init_model → train, a task for each stage of the
recipe → evaluate → register → promote, which happens only if the policy is met.
"""

from collections.abc import Sequence
from pathlib import Path

from components.orchestration.kubeflow.pipeline import Pipeline, Run, register_and_promote
from pixclip.training.recipes import RECIPES


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
    register_and_promote(run, checkpoint, evaluation, register=register, promote=promote)


PIXCLIP_TRAIN = Pipeline(
    name="pixclip-train",
    text="Train, evaluate, register and promote PixCLIP.",
    graph=graph,
    params_file=Path("params/pixclip.yaml"),
    trains="train",
    recipes=RECIPES,
)
