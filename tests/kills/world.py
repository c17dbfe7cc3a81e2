"""The small world that the steps run in: sources, servers, and an undisturbed run of each step."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from components.core.step import load_step
from components.registry.models import Reference, Registry
from components.registry.promotions import PROMOTE, promotion_entry
from tests.data.describe.llm_server import LlmServer
from tests.data.import_coco.coco_files import annotation, content
from tests.data.sample_grit.stand_ins import draw_photographs
from tests.kills.chain import Addresses, Task
from tests.kills.processes import MARK, Command, End, Warm
from tests.language_models import save_language_model
from tests.orchestration.airflow.published_grit import WebServer, parquet, picture

NUM_IMAGES = 14
LATENCY_S = 0.01
TIMEOUT_S = 300


@dataclass(frozen=True)
class Clean:
    """What an undisturbed run of a task took."""

    duration_s: float
    num_changes: int  # of files, as `warm.py` counts them


@dataclass
class World:
    """Sources, servers and the undisturbed runs."""

    folder: Path
    warm: Warm
    web: WebServer
    llm: LlmServer
    tasks: Mapping[str, Task]
    clean: dict[str, Clean] = field(default_factory=dict)

    def prepare(self, task: Task, folder: Path) -> Command:
        """Lay out the folder of a run; gives the command that runs the task there."""
        folder.mkdir(parents=True)
        for source, target in task.before.items():
            shutil.copytree(self.folder / source, folder / target, symlinks=True)
        params = self.folder / f"{task.name}.yaml"
        params.write_text(yaml.safe_dump({task.step: dict(task.settings)}), encoding="utf-8")
        words = [task.step.replace("_", "-"), "--params", str(params)]
        for name, place in task.inputs.items():
            words += [f"--{name.replace('_', '-')}", str(self.folder / place)]
        for name in load_step(task.step).outputs:
            words += [f"--{name.replace('_', '-')}", task.outputs[name]]
        database = folder / "mlflow" / "mlflow.db"
        environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{database}", MARK: str(folder)}
        log = self.folder / "logs" / f"{folder.name}.log"
        log.parent.mkdir(exist_ok=True)
        return Command(words, folder, log, environment)

    def run_clean(self, task: Task) -> None:
        """Run a task undisturbed; its folder is what killed runs are compared with."""
        if task.name == "pack":
            self._gather_quarantines()
        if task.name == "rollback":
            self._make_champions()
        command = self.prepare(task, self.folder / task.name)
        start = time.monotonic()
        end = self.warm.start(command).wait(TIMEOUT_S)
        require(end, command)
        assert end
        self.clean[task.name] = Clean(time.monotonic() - start, end.num_changes)

    def _gather_quarantines(self) -> None:
        folder = self.folder / "quarantines"
        folder.mkdir()
        for path in self.folder.glob("*/quarantine.parquet"):
            shutil.copy(path, folder / f"{path.parent.name}.parquet")

    def _make_champions(self) -> None:
        """A registry with a second champion, which can be taken back."""
        shutil.copytree(self.folder / "promote" / "mlflow", self.folder / "champions" / "mlflow")
        registry = Registry(f"sqlite:///{self.folder}/champions/mlflow/mlflow.db")
        registry.client.create_model_version("pixclip", source="file:///nowhere")
        with promotion_entry(registry, "pixclip") as entry:
            entry.move(PROMOTE, registry.get(Reference("pixclip", "2")), "a test")


def require(end: End | None, command: Command) -> None:
    """Fail with the step's own words if it did not end well."""
    if end is None or end.code:
        told = command.log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise AssertionError(f"{' '.join(command.argv[:1])} ended with {end}:\n{told}")


@contextlib.contextmanager
def make_world(folder: Path, warm: Warm) -> Iterator[World]:
    """Sources and servers; nothing was run yet."""
    folder = folder.resolve()
    (folder / "sources").mkdir(parents=True)
    files = {f"/{n}.jpg": picture(n) for n in range(NUM_IMAGES)}
    with WebServer(files) as web, LlmServer(latency_s=LATENCY_S) as llm:
        _write_sources(folder / "sources", web.url)
        addresses = Addresses(str(folder / "sources"), str(folder), llm.url)
        yield World(folder, warm, web, llm, {task.name: task for task in addresses.tasks()})


def _write_sources(folder: Path, url: str) -> None:
    (folder / "photographs").mkdir()
    draw_photographs(folder / "photographs")
    (folder / "grit").mkdir()
    urls = [f"{url}/{n}.jpg" for n in range(NUM_IMAGES)]
    for part in (0, 1):
        half = urls[part * 7 : part * 7 + 7]
        (folder / "grit" / f"coyo_{part}_snappy.parquet").write_bytes(parquet(part * 7, half))
    (folder / "coco" / "cats & dogs").mkdir(parents=True)
    (folder / "coco" / "cats & dogs" / "a b.jpg").write_bytes(picture(50))
    text = json.dumps(content(annotation(), annotation(2, 27, bbox=[50, 40, 100, 100])))
    (folder / "coco" / "annotations.json").write_text(text, encoding="utf-8")
    save_language_model(folder / "model")
