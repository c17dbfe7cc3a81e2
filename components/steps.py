"""The only list of steps: name -> module, in the order in which the two pipelines run them.

The module holds a function of the step's name with the decorator `@step`.
"""

STEPS = {
    "sample_grit": "components.data.sample_grit.step",
    "import_grit": "components.data.import_grit",
    "import_coco": "components.data.import_coco.step",
    "import_parts": "components.data.import_parts.step",
    "import_finehard": "components.data.import_finehard.step",
    "select": "components.data.select.step",
    "ingest": "components.data.ingest.step",
    "deduplicate": "components.data.deduplicate.step",
    "decontaminate": "components.data.decontaminate.step",
    "detect_parts": "components.data.detect_parts.step",
    "segment": "components.data.segment.step",
    "describe": "components.data.describe.step",
    "describe_parts": "components.data.describe.parts",
    "make_hard_negatives": "components.data.describe.hard_negatives.step",
    "pack": "components.data.pack.step",
    "export": "components.data.export",
    "check": "components.data.check.step",
    "publish": "components.data.publish.step",
    "resolve_data": "components.data.resolve_data.step",
    "merge_data": "components.data.merge_data.step",
    "adapt_text": "components.training.adapt_text.step",
    "embed_text": "components.training.embed_text.step",
    "make_tokenizer": "components.training.make_tokenizer",
    "init_model": "components.training.init_model",
    "train": "components.training.train",
    "train_parts": "components.training.train_parts",
    "evaluate": "components.evaluation.evaluate.step",
    "evaluate_parts": "components.evaluation.evaluate.parts",
    "register": "components.registry.register",
    "promote": "components.registry.promote",
    "rollback": "components.registry.rollback",
}


def steps_between(first: str, last: str) -> list[str]:
    """The names of neighbouring steps, both ends among them."""
    names = list(STEPS)
    return names[names.index(first) : names.index(last) + 1]
