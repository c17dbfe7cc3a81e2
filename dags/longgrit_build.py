"""Build a LongGRIT data set: images, region masks, and verified long captions.

**source** → **select** → **ingest** → **deduplicate** → **segment** → **describe** → **pack** →
**export**, **publish**; `"hard_negatives": true` puts wrong captions before **pack**. After each
artifact a `check_…` task checks its contract as a whole and builds its Data Docs; the contracts are
also checked around every step, and rows that break them go to the quarantine.

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

from airflow.sdk import Param, dag

from components.orchestration.airflow.builds import DataBuild, Source
from components.orchestration.airflow.params import TASK_DEFAULTS

URI, ANNOTATIONS = "{{ params.source_uri }}", "{{ params.annotations_uri }}"
SOURCES = {
    "sample_grit": Source("sample", file_root="params.run_folder ~ '/grit'"),
    "import_grit": Source("grit", {"uri": URI}),
    "import_coco": Source(
        "own", {"images": URI, "annotations": ANNOTATIONS}, file_root="params.source_uri"
    ),
}
SOURCE_PARAMS = {
    "source": Param(
        "sample_grit",
        enum=list(SOURCES),
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
}
BUILD = DataBuild("longgrit", SOURCES, SOURCE_PARAMS, "params/longgrit.yaml")
PARAMS = BUILD.params("runs/demo")


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
    BUILD.graph(PARAMS)


longgrit_build()
