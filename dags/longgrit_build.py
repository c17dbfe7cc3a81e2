"""Build a LongGRIT data set: images, region masks, and verified long captions.

**source** → **select** → **ingest** → **deduplicate** → **segment** → **describe** → **pack** →
**export**, **publish**. After each artifact a `check_…` task checks its contract as a whole and
builds its Data Docs; the contracts are also checked around every step, and rows that break them go
to the quarantine.

Everything lies below the run folder: `longgrit/` is the result with `report.html` and `README.md`,
`quarantine/` holds every dropped region with its reason, `data_docs/` the results of the checks.
A run over the same folder repeats only what is missing or was made from other inputs or settings.

Settings are those of the params file; `overrides` changes single ones for a run:

    airflow dags test longgrit_build --conf '{"run_folder": "runs/demo"}'
    airflow dags trigger longgrit_build --conf '{
      "source": "import_grit", "source_uri": "s3://grit/parquet", "run_folder": "/shared/longgrit",
      "overrides": {
        "segment": {"source": "sam"},
        "describe": {"describer": "endpoints"},
        "publish": {"remote": "s3://versions/longgrit"}}}'
"""

from typing import Any

from airflow.sdk import Asset, Param, dag, task, task_group

from components.orchestration.airflow.operators import PublishOperator, SourceOperator, StepOperator
from components.orchestration.airflow.params import TASK_DEFAULTS, run_params
from components.steps import steps_between

LONGGRIT = Asset(name="longgrit", uri="pixclip://longgrit/", group="pixclip")
# What the dataset card says of licences.
LICENCE_SOURCES = {"sample_grit": "sample", "import_grit": "grit", "import_coco": "own"}
SOURCES = list(LICENCE_SOURCES)
# Jinja: below which folder the images of `file:///` URLs lie.
FILE_ROOTS = "{'sample_grit': params.run_folder ~ '/grit', 'import_coco': params.source_uri}"
STEPS = steps_between("select", "publish")

PARAMS = {
    "source": Param(
        "sample_grit",
        enum=SOURCES,
        title="Source",
        description="Composed scenes, GRIT's Parquet files, or images with a COCO annotation file",
        section="Source",
    ),
    "source_uri": Param(
        "",
        type="string",
        title="Address of the source",
        description="A folder or s3://bucket/prefix: GRIT's Parquet files, or the images of a COCO "
        "file; empty: as the params file says",
        section="Source",
    ),
    "annotations_uri": Param(
        "",
        type="string",
        title="COCO annotations",
        description="A path or s3://bucket/key of a COCO JSON file; empty: as the params file says",
        section="Source",
    ),
    **run_params("runs/demo", "params/longgrit.yaml", [*SOURCES, *STEPS]),
}

# What the tasks of a group write.
INGESTED = {"images": "images/{group}", "quarantine": "quarantine/ingest-{group}.parquet"}
SEGMENTED = {"regions": "regions/{group}", "quarantine": "quarantine/segment-{group}.parquet"}
DESCRIBED = {
    "captions": "captions/{group}",
    "quarantine": "quarantine/describe-{group}.parquet",
    "ledger": "ledger/{group}.json",
}
MAPPED_OUTPUTS = (*INGESTED.values(), *SEGMENTED.values(), *DESCRIBED.values())


@task
def check_settings(params: Any = None, dag_run: Any = None) -> None:
    """Refuse wrong settings now, not hours later."""
    from components.orchestration.airflow.conf import refuse_wrong_conf

    refuse_wrong_conf([params["source"], *STEPS], PARAMS, params, dag_run.conf or {})


@task
def list_groups(params: Any = None) -> list[str]:
    """The groups of records over which download and annotation are mapped."""
    from components.orchestration.airflow import conf

    return conf.list_groups(params["run_folder"], "records", MAPPED_OUTPUTS)


def collect() -> StepOperator:
    """From the source to region rows in groups."""
    source = SourceOperator(
        task_id="source",
        step="{{ params.source }}",
        outputs={"grit": "grit"},
        addresses={
            "import_grit": {"uri": "{{ params.source_uri }}"},
            "import_coco": {
                "images": "{{ params.source_uri }}",
                "annotations": "{{ params.annotations_uri }}",
            },
        },
    )
    select = StepOperator(
        task_id="select",
        step="select",
        inputs={"grit": "grit"},
        outputs={"records": "records", "quarantine": "quarantine/select.parquet"},
    )
    check_settings() >> source >> select
    return select


def download(groups: Any) -> Any:
    """Every group's images; local files are those of the source."""
    return StepOperator.partial(
        task_id="ingest",
        step="ingest",
        inputs={"records": "records/{group}"},
        outputs=INGESTED,
        settings={"file_root": f"{{{{ {FILE_ROOTS}.get(params.source, '') }}}}"},
        map_index_template="{{ task.group }}",
    ).expand(group=groups)


@task_group
def annotate(group: str) -> None:
    """Masks and captions of one group."""
    segment = StepOperator(
        task_id="segment",
        step="segment",
        inputs={"candidates": "candidates/{group}", "images": "images/{group}"},
        outputs=SEGMENTED,
        group=group,
        map_index_template="{{ task.group }}",
    )
    describe = StepOperator(
        task_id="describe",
        step="describe",
        inputs={"regions": "regions/{group}", "images": "images/{group}"},
        outputs=DESCRIBED,
        settings={"cache_folder": "{{ params.run_folder }}/cache/describe"},
        group=group,
        map_index_template="{{ task.group }}",
    )
    segment >> describe


def deduplicate() -> StepOperator:
    """The regions of images that are there, each image once."""
    return StepOperator(
        task_id="deduplicate",
        step="deduplicate",
        inputs={"records": "records", "images": "images"},
        outputs={"candidates": "candidates", "quarantine": "quarantine/deduplicate.parquet"},
    )


def pack() -> StepOperator:
    """The data set with its card and report."""
    return StepOperator(
        task_id="pack",
        step="pack",
        inputs={"captions": "captions", "images": "images", "quarantines": "quarantine"},
        outputs={"longgrit": "longgrit"},
        settings={"source": f"{{{{ {LICENCE_SOURCES}[params.source] }}}}"},
        page="longgrit/report.html",
    )


def deliver() -> list[StepOperator]:
    """The data set in other forms, and as a version under DVC."""
    export = StepOperator(
        task_id="export",
        step="export",
        inputs={"dataset": "longgrit"},
        outputs={"exports": "exports"},
    )
    publish = PublishOperator(
        task_id="publish",
        inputs={"dataset": "longgrit"},
        outputs={"publication": "publication"},
        outlets=[LONGGRIT],
    )
    return [export, publish]


def check(artifact: str) -> StepOperator:
    """Check an artifact's contract as a whole and build its Data Docs."""
    docs = f"data_docs/{artifact}"
    return StepOperator(
        task_id=f"check_{artifact}",
        step="check",
        inputs={"checked": artifact},
        outputs={"data_docs": docs},
        settings={"artifact": artifact},
        page=f"{docs}/index.html",
    )


@dag(
    dag_display_name="Build LongGRIT",
    schedule=None,
    catchup=False,
    max_active_runs=1,  # two runs over one folder would disturb each other
    params=PARAMS,
    tags=["pixclip", "data", "longgrit"],
    doc_md=__doc__,
    default_args=TASK_DEFAULTS,
)
def longgrit_build() -> None:
    """One task a component, in the order of the data."""
    groups = list_groups()
    annotated = annotate.expand(group=groups)
    collect() >> check("records") >> groups
    download(groups) >> check("images") >> deduplicate() >> check("candidates") >> annotated
    checks = [check("regions"), check("captions"), check("quarantine")]
    annotated >> checks >> pack() >> check("longgrit") >> deliver()


longgrit_build()
