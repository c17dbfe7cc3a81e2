"""The graph of a DAG that builds a data set: from a source to a packed, published version.

**source** → **select** → **ingest** → **deduplicate** → … → **segment** → **describe** →
**hard_negatives** (if wanted) → **pack** → **export**, **publish**, and a `check_…` task after each
artifact.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow.sdk import Asset, Param, task, task_group

from components.orchestration.airflow.operators import (
    PublishOperator,
    SourceOperator,
    StepOperator,
    WantedOperator,
)
from components.orchestration.airflow.params import run_params

# What the tasks of a group write.
INGESTED = {"images": "images/{group}", "quarantine": "quarantine/ingest-{group}.parquet"}
SEGMENTED = {"regions": "regions/{group}", "quarantine": "quarantine/segment-{group}.parquet"}
DESCRIBED = {
    "captions": "captions/{group}",
    "quarantine": "quarantine/describe-{group}.parquet",
    "ledger": "ledger/{group}.json",
}
CONTRASTED = {
    "contrasted": "contrasted/{group}",
    "ledger": "ledger/hard_negatives/{group}.json",
}
MAPPED_OUTPUTS = (
    *(*INGESTED.values(), *SEGMENTED.values()),
    *(*DESCRIBED.values(), *CONTRASTED.values()),
)
HARD_NEGATIVES = "hard_negatives"  # the parameter, and the task


@dataclass(frozen=True)
class Source:
    """A step that brings records."""

    licence: str  # what the dataset card says of licences: a value of `pack.source`
    addresses: Mapping[str, str] = field(default_factory=dict)  # settings from the parameters
    file_root: str = "''"  # Jinja: below which folder the images of `file:///` addresses lie
    has_quarantine: bool = False


@dataclass(frozen=True)
class DataBuild:
    """A data set and what its DAG runs; `params` are the parameters of its sources."""

    dataset: str  # its folder below the run folder, and its asset
    sources: Mapping[str, Source]
    source_params: Mapping[str, Param]
    params_file: str
    describe: str = "describe"
    has_hard_negatives: bool = False  # whether a run makes them if nobody says
    # Steps between `deduplicate` and `segment`, and the artifact that each makes of candidates.
    refine: Mapping[str, str] = field(default_factory=dict)

    @property
    def asset(self) -> Asset:
        """What `publish` updates."""
        return Asset(name=self.dataset, uri=f"pixclip://{self.dataset}/", group="pixclip")

    @property
    def steps(self) -> list[str]:
        """The steps after the source, in their order."""
        after = ["pack", "export", "check", "publish"]
        annotate = ["segment", self.describe, "make_hard_negatives"]
        return ["select", "ingest", "deduplicate", *self.refine, *annotate, *after]

    def params(self, run_folder: str) -> dict[str, Param]:
        """The parameters of the DAG."""
        steps = [*self.sources, *self.steps]
        wanted = Param(
            self.has_hard_negatives,
            type="boolean",
            title="Hard negatives",
            description="Make wrong captions of every region, which differ in one attribute",
            section="Run",
        )
        common = run_params(run_folder, self.params_file, steps)
        return {**self.source_params, **common, HARD_NEGATIVES: wanted}

    def graph(self, params: Mapping[str, Param]) -> None:
        """One task a component, in the order of the data."""
        groups = _list_groups()
        *_, candidates = ["candidates", *self.refine.values()]
        annotated = _annotate.partial(step=self.describe, candidates=candidates).expand(
            group=groups
        )
        self._check_settings(params) >> self._source() >> _select() >> check("records") >> groups
        ready = self._download(groups) >> check("images") >> _deduplicate() >> check("candidates")
        before = "candidates"
        for name, artifact in self.refine.items():
            ready = ready >> _refine(name, before, artifact) >> check("candidates", at=artifact)
            before = artifact
        checks = [check("regions"), check("captions"), check("quarantine")]
        (
            ready
            >> annotated
            >> checks
            >> _contrast(groups)
            >> check("contrasted")
            >> self._pack()
            >> check("longgrit", at=self.dataset)
            >> self._deliver()
        )

    def _check_settings(self, params: Mapping[str, Param]) -> Any:
        steps = self.steps

        @task
        def check_settings(params: Any = None, dag_run: Any = None) -> None:
            """Refuse wrong settings now, not hours later."""
            from components.orchestration.airflow.conf import refuse_wrong_conf

            refuse_wrong_conf([params["source"], *steps], known, params, dag_run.conf or {})

        known = list(params)
        return check_settings()

    def _source(self) -> SourceOperator:
        """From where the run says to records in GRIT's layout."""
        return SourceOperator(
            task_id="source",
            step="{{ params.source }}",
            outputs={"grit": "grit"},
            addresses={name: dict(source.addresses) for name, source in self.sources.items()},
            quarantined=[name for name, source in self.sources.items() if source.has_quarantine],
        )

    def _download(self, groups: Any) -> Any:
        """Every group's images; local files are those of the source."""
        roots = ", ".join(f"{name!r}: {one.file_root}" for name, one in self.sources.items())
        return StepOperator.partial(
            task_id="ingest",
            step="ingest",
            inputs={"records": "records/{group}"},
            outputs=INGESTED,
            settings={"file_root": f"{{{{ {{{roots}}}.get(params.source, '') }}}}"},
            map_index_template="{{ task.group }}",
        ).expand(group=groups)

    def _pack(self) -> StepOperator:
        """The data set with its card and report."""
        licences = {name: source.licence for name, source in self.sources.items()}
        return StepOperator(
            task_id="pack",
            step="pack",
            inputs={
                "captions": f"{{{{ 'contrasted' if params.{HARD_NEGATIVES} else 'captions' }}}}",
                "images": "images",
                "quarantines": "quarantine",
            },
            outputs={"longgrit": self.dataset},
            settings={"source": f"{{{{ {licences}[params.source] }}}}"},
            page=f"{self.dataset}/report.html",
            trigger_rule="none_failed",  # whether wrong captions were made or left out
        )

    def _deliver(self) -> list[StepOperator]:
        """The data set in other forms, and as a version under DVC."""
        export = StepOperator(
            task_id="export",
            step="export",
            inputs={"dataset": self.dataset},
            outputs={"exports": "exports"},
        )
        publish = PublishOperator(
            task_id="publish",
            inputs={"dataset": self.dataset},
            outputs={"publication": "publication"},
            outlets=[self.asset],
        )
        return [export, publish]


@task(task_id="list_groups")
def _list_groups(params: Any = None) -> list[str]:
    """The groups of records over which download and annotation are mapped."""
    from components.orchestration.airflow import conf

    return conf.list_groups(params["run_folder"], "records", MAPPED_OUTPUTS)


def _select() -> StepOperator:
    """Region rows in groups."""
    return StepOperator(
        task_id="select",
        step="select",
        inputs={"grit": "grit"},
        outputs={"records": "records", "quarantine": "quarantine/select.parquet"},
    )


def _deduplicate() -> StepOperator:
    """The regions of images that are there, each image once."""
    return StepOperator(
        task_id="deduplicate",
        step="deduplicate",
        inputs={"records": "records", "images": "images"},
        outputs={"candidates": "candidates", "quarantine": "quarantine/deduplicate.parquet"},
    )


def _refine(step: str, candidates: str, refined: str) -> StepOperator:
    """Candidates that a further step has looked at, with their images."""
    return StepOperator(
        task_id=step,
        step=step,
        inputs={"candidates": candidates, "images": "images"},
        outputs={refined: refined, "quarantine": f"quarantine/{step}.parquet"},
    )


@task_group(group_id="annotate")
def _annotate(group: str, step: str, candidates: str) -> None:
    """Masks and captions of one group."""
    masks = StepOperator(
        task_id="segment",
        step="segment",
        inputs={"candidates": f"{candidates}/{{group}}", "images": "images/{group}"},
        outputs=SEGMENTED,
        group=group,
        map_index_template="{{ task.group }}",
    )
    captions = StepOperator(
        task_id="describe",
        step=step,
        inputs={"regions": "regions/{group}", "images": "images/{group}"},
        outputs=DESCRIBED,
        settings={"cache_folder": "{{ params.run_folder }}/cache/describe"},
        group=group,
        map_index_template="{{ task.group }}",
    )
    masks >> captions


def _contrast(groups: Any) -> Any:
    """Wrong captions of every group, if the run wants them."""
    return WantedOperator.partial(
        task_id=HARD_NEGATIVES,
        step="make_hard_negatives",
        parameter=HARD_NEGATIVES,
        inputs={"captions": "captions/{group}", "images": "images/{group}"},
        outputs=CONTRASTED,
        settings={"cache_folder": "{{ params.run_folder }}/cache/make_hard_negatives"},
        map_index_template="{{ task.group }}",
    ).expand(group=groups)


def check(artifact: str, at: str = "") -> StepOperator:
    """Check the contract of an artifact, whose path is its name or another; make its Data Docs."""
    path = at or artifact
    docs = f"data_docs/{path}"
    return StepOperator(
        task_id=f"check_{path}",
        step="check",
        inputs={"checked": path},
        outputs={"data_docs": docs},
        settings={"artifact": artifact},
        page=f"{docs}/index.html",
    )
