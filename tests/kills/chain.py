"""The steps of both DAGs, with small inputs and settings that finish within seconds.

Every step is run undisturbed once; its outputs below `<world>/<task>/` are what killed runs are
compared with, and what the steps after it read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

DOWNLOADS, REQUESTS = 3, 3  # in flight at a time
STAGES = ("object", "verify", "context", "merge", "check")
TRAINED = {"num_ranks": 2, "device": "cpu", "save_every_steps": 3}
GROUP = "00000"


@dataclass(frozen=True)
class Task:
    """A step, and where it reads and writes.

    `inputs` are relative to the world, `outputs` to the folder of the run, `before` says
    what of the world lies where in that folder beforehand.
    """

    name: str
    step: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Addresses:
    """What the tasks read from outside."""

    sources: str  # folder
    world: str  # folder
    llm: str

    def tasks(self) -> list[Task]:
        """Every task, each after those that it reads from."""
        return [*self._data(), *self._versions(), *self._training(), *registry_tasks()]

    def _data(self) -> list[Task]:
        grit, coco = f"{self.sources}/grit", f"{self.sources}/coco"
        photographs = f"{self.sources}/photographs"
        scenes = {"num_scenes": 6, "width_px": 320, "height_px": 240, "photographs": photographs}
        coco_files = {"images": coco, "annotations": f"{coco}/annotations.json"}
        ingest = {
            "allowed_hosts": ["127.0.0.1"], "concurrency": DOWNLOADS, "retries": 0,
            "concurrency_per_host": DOWNLOADS, "decode_threads": 1, "images_per_shard": 5,
        }  # fmt: skip
        describe = {
            "describer": "endpoints", "concurrency": REQUESTS, "min_accepted_share": 0.0,
            **{name: {"endpoints": [self.llm], "model": f"{name}-model"} for name in STAGES},
        }  # fmt: skip
        pack = {
            "benchmark_regions": 8, "benchmark_max_share": 0.4, "val_share": 0.2,
            "images_per_shard": 4, "near_duplicate_distance": 0,
        }  # fmt: skip
        records, images = f"select/records/{GROUP}", f"ingest/images/{GROUP}"
        return [
            Task("sample_grit", "sample_grit", {}, {"grit": "grit"}, scenes),
            Task("import_coco", "import_coco", {}, {"grit": "grit"}, coco_files),
            Task("import_grit", "import_grit", {}, {"grit": "grit"}, {"uri": grit}),
            Task("select", "select", {"grit": "import_grit/grit"}, with_quarantine("records")),
            Task("ingest", "ingest", {"records": records},
                 with_quarantine("images", f"images/{GROUP}"), ingest),
            Task("deduplicate", "deduplicate",
                 {"records": "select/records", "images": "ingest/images"},
                 with_quarantine("candidates"), {"max_phash_distance": -1}),
            Task("segment", "segment",
                 {"candidates": f"deduplicate/candidates/{GROUP}", "images": images},
                 with_quarantine("regions", f"regions/{GROUP}"),
                 {"fallback": "grabcut", "images_per_part": 4}),
            Task("describe", "describe",
                 {"regions": f"segment/regions/{GROUP}", "images": images},
                 {**with_quarantine("captions", f"captions/{GROUP}"), "ledger": "ledger.json"},
                 describe),
            Task("pack", "pack",
                 {"captions": "describe/captions", "images": "ingest/images",
                  "quarantines": "quarantines"}, {"longgrit": "longgrit"}, pack),
            Task("export", "export", {"dataset": "pack/longgrit"}, {"exports": "exports"},
                 {"images_per_file": 5}),
            Task("check", "check", {"checked": "pack/longgrit"}, {"data_docs": "docs"},
                 {"artifact": "longgrit"}),
        ]  # fmt: skip

    def _versions(self) -> list[Task]:
        places = {"repository": "repository"}
        kept = {f"publish/{name}": name for name in ("repository", "repository-storage")}
        made = ({"dataset": "pack/longgrit"}, {"publication": "publication"})
        return [
            Task("publish", "publish", *made, places),
            Task("publish_second", "publish", *made, {**places, "name": "second"}, kept),
            Task("resolve_data", "resolve_data", {}, {"dataset": "dataset"},
                 {"repository": f"{self.world}/publish/repository"}),
        ]  # fmt: skip

    def _training(self) -> list[Task]:
        data = {"dataset": "resolve_data/dataset"}
        tower = {"text_tower": "adapt_text/text_tower"}
        texts = {"text_embeddings": "embed_text/text_embeddings"}
        adapt = {
            "base_model": f"{self.sources}/model", "max_pairs": 40, "num_eval_pairs": 8,
            "masked_tokens": {"num_steps": 3, "batch_size": 4, "warmup_steps": 1},
            "contrast": {"num_steps": 3, "batch_size": 4, "warmup_steps": 1},
            "lora": {"rank": 2}, "num_ranks": 1, "device": "cpu", "save_every_s": 0.1,
        }  # fmt: skip
        stage = {**TRAINED, "changes": {"num_steps": 8, "data": {"batch_size": 4}}}
        trained = {"checkpoint": "checkpoint", "curves": "curves.csv"}
        judged = {**data, **texts, "parent": "init_model/parent"}
        return [
            Task("adapt_text", "adapt_text", data, {"text_tower": "text_tower"}, adapt),
            Task("embed_text", "embed_text", {**data, **tower},
                 {"text_embeddings": "text_embeddings"}, {"captions_per_part": 16}),
            Task("init_model", "init_model", tower, {"parent": "parent"}, {"recipe": "tiny"}),
            Task("train", "train", judged, trained, {"stage": "align", **stage}),
            Task("train_refine", "train", {**judged, "parent": "train/checkpoint"}, trained,
                 {"stage": "refine", **stage}),
            Task("evaluate", "evaluate", {**judged, "checkpoint": "train/checkpoint"},
                 {"evaluation": "evaluation"},
                 {"num_resamples": 100, "num_examples": 2, "num_mistakes": 2, "num_maps": 1}),
        ]  # fmt: skip


def registry_tasks() -> list[Task]:
    """Those that act on the registry below the folder of the run."""
    policy = {"min_samples": 1, "minimums": {}, "must_beat": "", "must_not_lose": []}
    register = {"checkpoint": "train/checkpoint", "evaluation": "evaluate/evaluation"}
    return [
        Task("register", "register", register, {"registration": "registration"},
             {"git_commit": "abc"}),
        Task("promote", "promote", {"registration": "register/registration"},
             {"promotion": "promotion"}, policy, {"register/mlflow": "mlflow"}),
        Task("rollback", "rollback", {}, {"promotion": "promotion"}, {},
             {"champions/mlflow": "mlflow"}),
    ]  # fmt: skip


# What is put together of tasks' outputs, or read by a setting.
MADE_OF = {
    "quarantines": ("select", "ingest", "deduplicate", "segment", "describe"),
    "champions": ("promote",),
    "resolve_data": ("publish",),
}


def needed_for(names: Iterable[str], tasks: Mapping[str, Task]) -> set[str]:
    """The tasks that must have run before these are, themselves included."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        left += MADE_OF.get(name, ())
        if name in tasks:
            places = (*tasks[name].inputs.values(), *tasks[name].before)
            left += [place.partition("/")[0] for place in places]
    return found & tasks.keys()


def with_quarantine(name: str, place: str = "") -> dict[str, str]:
    """An output and the quarantine beside it."""
    return {name: place or name, "quarantine": "quarantine.parquet"}
