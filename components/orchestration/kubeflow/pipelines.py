"""The project's pipelines by their names, and by what they train."""

from components.orchestration.kubeflow.paclip_train import PACLIP_TRAIN
from components.orchestration.kubeflow.pixclip_train import PIXCLIP_TRAIN

PIPELINES = {pipeline.name: pipeline for pipeline in (PIXCLIP_TRAIN, PACLIP_TRAIN)}
# A step that trains, of which each stage of a recipe is a task -> the pipeline.
TRAINING = {pipeline.trains: pipeline for pipeline in PIPELINES.values()}
