"""The only list of steps: name -> module, in the order in which the two pipelines run them.

The module holds a function of the step's name with the decorator `@step`.
"""

STEPS = {
    "sample_grit": "components.sample_grit.step",
    "import_grit": "components.import_grit.step",
    "import_coco": "components.import_coco.step",
    "select": "components.select.step",
    "ingest": "components.ingest.step",
    "deduplicate": "components.deduplicate.step",
    "segment": "components.segment.step",
    "describe": "components.describe.step",
    "pack": "components.pack.step",
    "export": "components.export.step",
    "check": "components.check.step",
    "publish": "components.publish.step",
    "resolve_data": "components.resolve_data.step",
    "adapt_text": "components.adapt_text.step",
    "embed_text": "components.embed_text.step",
    "init_model": "components.init_model.step",
    "train": "components.train.step",
    "evaluate": "components.evaluate.step",
    "register": "components.register.step",
    "promote": "components.promote.step",
    "rollback": "components.rollback.step",
}


def steps_between(first: str, last: str) -> list[str]:
    """The names of neighbouring steps, both ends among them."""
    names = list(STEPS)
    return names[names.index(first) : names.index(last) + 1]
