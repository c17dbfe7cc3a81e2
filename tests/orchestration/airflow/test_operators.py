"""The operators, with a backend that only notes what it was asked."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.core.errors import ContractViolation, GateError, InputError, SettingsError
from components.orchestration.airflow import operators as step_module
from components.orchestration.airflow.conf import list_groups, refuse_wrong_conf
from components.orchestration.airflow.operators import PublishOperator, SourceOperator, StepOperator
from components.orchestration.local import StepCrashedError

ASKED_BY_THE_RUN = {"select": {"min_score": 0.9}}


class FakeBackend:
    """Keeps the runs it was asked for, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.runs = error, []

    def run(self, run):
        self.runs.append(run)
        if self.error:
            raise self.error
        return {"regions_in": 3}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PIXCLIP_HOME", str(tmp_path))
    (tmp_path / "params.yaml").write_text("select: {min_score: 0.7, min_phrase_chars: 4}\n")
    return tmp_path


@pytest.fixture
def use(monkeypatch):
    def use(backend: FakeBackend) -> FakeBackend:
        monkeypatch.setattr(step_module, "open_backend", lambda name: backend)
        return backend

    return use


def operator(kind=StepOperator, **changes):
    """A task whose templates Airflow has already filled in."""
    arguments = {
        "task_id": "a_task",
        "step": "select",
        "inputs": {"grit": "grit/{group}"},
        "outputs": {"records": "records/{group}"},
        "group": "00002",
        "run_folder": "runs/demo",
        "params_file": "params.yaml",
        "overrides": json.dumps(ASKED_BY_THE_RUN),
        "backend": "local",
    }
    return kind(**{**arguments, **changes})


def test_a_task_asks_for_the_paths_and_settings_of_its_group(home, use):
    backend = use(FakeBackend())
    assert operator(settings={"records_per_group": 5}).execute({}) == {"regions_in": 3}
    (run,) = backend.runs
    assert run.inputs == {"grit": home / "runs/demo/grit/00002"}
    assert run.outputs == {"records": home / "runs/demo/records/00002"}
    assert run.settings == {"min_score": 0.9, "min_phrase_chars": 4, "records_per_group": 5}


def test_an_empty_setting_leaves_the_params_file_s(home, use):
    backend = use(FakeBackend())
    operator(settings={"min_phrase_chars": ""}).execute({})
    assert backend.runs[0].settings == {"min_score": 0.9, "min_phrase_chars": 4}


@pytest.mark.parametrize(
    ("source", "settings"),
    [("sample_grit", {}), ("import_grit", {"uri": "s3://grit"}), ("import_coco", {"images": "x"})],
)
def test_the_chosen_source_gets_its_own_addresses(home, use, source, settings):
    backend = use(FakeBackend())
    addresses = {
        "import_grit": {"uri": "s3://grit"},
        "import_coco": {"images": "x", "captions": ""},
    }
    operator(SourceOperator, step=source, addresses=addresses).execute({})
    assert backend.runs[0].settings == settings


@pytest.mark.parametrize(
    "error",
    [
        ContractViolation("records", ["boxes outside the image: 3 row(s)"]),
        GateError("too few images", {"http_404": 9}, "Look at the hosts."),
        InputError("no input"),
        SettingsError("select.min_score: too big"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_retry_cannot_mend_fails_at_once_and_says_why(home, use, error):
    from airflow.sdk.exceptions import AirflowFailException

    use(FakeBackend(error))
    with pytest.raises(AirflowFailException) as caught:
        operator().execute({})
    assert str(error) in str(caught.value)


@pytest.mark.parametrize("error", [StepCrashedError("select"), OSError("no space left")])
def test_other_errors_are_left_to_airflow_s_retries(home, use, error):
    use(FakeBackend(error))
    with pytest.raises(type(error)):
        operator().execute({})


def test_a_backend_that_is_not_there_fails_at_once(home):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"'kubeflow' is not available for a single"):
        operator(backend="kubeflow").execute({})


def test_publishing_tells_the_asset_what_was_published(home, use):
    use(FakeBackend())
    folder = home / "runs/demo/publication"
    folder.mkdir(parents=True)
    facts = {"dvc_md5": "abc.dir", "counts": {"num_images": 7}, "contracts_met": ["longgrit"]}
    (folder / "publication.json").write_text(json.dumps(facts))
    event = SimpleNamespace(extra={})
    task = operator(
        PublishOperator,
        step=None,
        outputs={"publication": "publication"},
        outlets=["longgrit"],
    )
    task.execute({"outlet_events": {"longgrit": event}})
    assert event.extra == facts


def test_versions_are_kept_on_this_machine_wherever_the_steps_run():
    task = operator(PublishOperator, step=None, outputs={}, backend="docker")
    assert task.backend == "local"


def test_a_page_becomes_a_link_at_the_task(home):
    task = operator(page="longgrit/report.html")
    (link,) = task.operator_extra_links
    assert link.get_link(task, ti_key=None) == "/pages/demo/longgrit/report.html"
    elsewhere = operator(page="longgrit/report.html", run_folder="/data/run")
    assert link.get_link(elsewhere, ti_key=None) == "file:///data/run/longgrit/report.html"


PARAMS = {"params_file": "params.yaml", "overrides": {}, "source": "sample_grit"}


@pytest.mark.parametrize(
    ("conf", "params", "message"),
    [
        ({"sorce": "import_grit"}, {}, "no such parameter: sorce"),
        ({}, {"overrides": {"select": {"min_scor": 1}}}, "did you mean 'min_score'"),
        ({}, {"overrides": {"import_grit": {}}}, "import_grit: no such step in this pipeline"),
        ({}, {"params_file": "nowhere.yaml"}, "cannot read the params file"),
    ],
)
def test_a_conf_that_cannot_work_stops_the_run_before_it_starts(home, conf, params, message):
    from airflow.sdk.exceptions import AirflowFailException

    merged = {**PARAMS, **params, **conf}  # as Airflow does
    with pytest.raises(AirflowFailException, match=message):
        refuse_wrong_conf(["sample_grit", "select"], PARAMS, merged, conf)


def test_a_good_conf_passes(home):
    refuse_wrong_conf(
        ["select"], PARAMS, PARAMS | {"overrides": ASKED_BY_THE_RUN}, {"overrides": {}}
    )


def test_what_an_earlier_run_with_more_groups_left_is_removed(home, caplog):
    run = home / "runs" / "again"
    for name in ("records/00000", "captions/00000", "captions/00001", "captions/mine"):
        (run / name).mkdir(parents=True)
    (run / "quarantine").mkdir()
    for name in ("select", "describe-00000", "describe-00001", "describe-mine"):
        (run / "quarantine" / f"{name}.parquet").touch()
    mapped = ("captions/{group}", "quarantine/describe-{group}.parquet")
    assert list_groups("runs/again", "records", mapped) == ["00000"]
    assert sorted(path.name for path in (run / "captions").iterdir()) == ["00000", "mine"]
    assert sorted(path.stem for path in (run / "quarantine").iterdir()) == [
        "describe-00000",
        "describe-mine",
        "select",
    ]
    assert "captions/00001 is of an earlier run" in caplog.text


def test_groups_are_listed_in_order_and_none_is_an_error(home):
    from airflow.sdk.exceptions import AirflowFailException

    (home / "runs/demo/records/_work").mkdir(parents=True)
    with pytest.raises(AirflowFailException, match="holds no group"):
        list_groups("runs/demo", "records")
    for name in ("00001", "00000"):
        (home / "runs/demo/records" / name).mkdir()
    assert list_groups("runs/demo", "records") == ["00000", "00001"]
