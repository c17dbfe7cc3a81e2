"""Build an FG-Part data set: birds, cars and aircraft with a description of every part.

**source** → **select** → **ingest** → **deduplicate** → **decontaminate** → **detect_parts** →
**segment** → **describe** → **hard_negatives** → **pack** → **export**, **publish**, with a
`check_…` task after each artifact, as in `longgrit_build`: a part is a region, and so is the image
as a whole. `"hard_negatives": false` leaves the wrong captions out.

`import_parts` reads published data sets (docs/fgpart.md); name their folders or archives in the
params file or in `overrides`, and in the same way those whose test images must not be learnt from
(`decontaminate`). `sample_grit` composes scenes whose objects stand for parts.

    airflow dags test fgpart_build --conf '{"run_folder": "runs/parts"}'
    airflow dags trigger fgpart_build --conf '{
      "source": "import_parts", "run_folder": "/shared/fgpart",
      "overrides": {
        "import_parts": {"cub": "/data/CUB_200_2011.tgz", "nabirds": "/data/nabirds"},
        "decontaminate": {"cub": "/data/CUB_200_2011.tgz", "nabirds": "/data/nabirds"},
        "describe_parts": {"describer": "endpoints"}}}'
"""

from airflow.sdk import Param, dag

from components.orchestration.airflow.builds import DataBuild, Source
from components.orchestration.airflow.params import TASK_DEFAULTS

# Both put the images, or links to them, beside the records.
BESIDE = "params.run_folder ~ '/grit'"
SOURCES = {
    "sample_grit": Source("sample", file_root=BESIDE),
    "import_parts": Source("parts", file_root=BESIDE, has_quarantine=True),
}
SOURCE_PARAMS = {
    "source": Param(
        "sample_grit",
        enum=list(SOURCES),
        title="Source",
        description="Composed scenes, or published data sets of objects with parts",
        section="Source",
    ),
}
BUILD = DataBuild(
    "fgpart",
    SOURCES,
    SOURCE_PARAMS,
    "params/fgpart.yaml",
    describe="describe_parts",
    has_hard_negatives=True,
    refine={"decontaminate": "uncontaminated", "detect_parts": "detected"},
)
PARAMS = BUILD.params("runs/parts")


@dag(
    dag_display_name="Build FG-Part",
    schedule=None,
    catchup=False,
    max_active_runs=1,  # two runs over one folder would disturb each other
    params=PARAMS,
    tags=["pixclip", "data", "fgpart"],
    doc_md=__doc__,
    default_args=TASK_DEFAULTS,
)
def fgpart_build() -> None:
    """One task a component, in the order of the data."""
    BUILD.graph(PARAMS)


fgpart_build()
