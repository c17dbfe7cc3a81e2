"""The Kubeflow pipeline `paclip-train`: from a version of FG-Part to a promoted model.

resolve_data → check → make_tokenizer → init_model → train_parts, a task for each stage of the
recipe → evaluate_parts → register → promote, which happens only if the policy is met.
"""

from collections.abc import Sequence
from pathlib import Path

from components.orchestration.kubeflow.pipeline import Pipeline, Run, register_and_promote
from pixclip.training.recipes import PART_RECIPES


def graph(
    run: Run,
    stages: Sequence[str],
    *,
    resolve_data: str,
    check: str,
    make_tokenizer: str,
    init_model: str,
    train_parts: str,
    evaluate_parts: str,
    register: str,
    promote: str,
) -> None:
    """The tasks of a recipe with these stages; each step's parameter is its settings as JSON."""
    data = run("resolve_data", settings=resolve_data)
    dataset = data.outputs["dataset"]
    checked = run("check", checked=dataset, settings=check)
    tokenizer = run("make_tokenizer", dataset=dataset, settings=make_tokenizer).after(checked)
    parent = run("init_model", text_tower=tokenizer.outputs["text_tower"], settings=init_model)
    parent = checkpoint = parent.outputs["parent"]
    for stage in stages:
        trained = run(
            "train_parts", dataset=dataset, parent=checkpoint, settings=train_parts, stage=stage
        ).set_display_name(f"train_parts {stage}")
        checkpoint = trained.outputs["checkpoint"]
    evaluation = run(
        "evaluate_parts",
        dataset=dataset,
        parent=parent,
        checkpoint=checkpoint,
        settings=evaluate_parts,
    ).outputs["evaluation"]
    register_and_promote(run, checkpoint, evaluation, register=register, promote=promote)


PACLIP_TRAIN = Pipeline(
    name="paclip-train",
    text="Train, evaluate, register and promote PA-CLIP.",
    graph=graph,
    params_file=Path("params/paclip.yaml"),
    trains="train_parts",
    recipes=PART_RECIPES,
)
