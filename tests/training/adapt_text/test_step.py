"""The step `adapt_text`, with a tiny language model, through torchrun and DeepSpeed."""

import json
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
import torch
from mlflow.tracking import MlflowClient

from components.core.errors import SettingsError
from components.core.run import run_step
from components.core.step import load_step
from components.registry.store import TrackingError
from components.training.adapt_text import rank, training
from components.training.adapt_text.settings import AdaptTextSettings
from components.training.adapt_text.step import _take_out, draw_train_pairs
from components.training.adapt_text.training import make_job
from pixclip.checksums import sha256_of
from pixclip.text import adapt
from pixclip.text.adapt_job import AdaptJob
from pixclip.text.embeddings import tower_digest
from pixclip.text.encoder import TextEncoder, read_text_tower
from pixclip.training.job import read_job, write_job
from tests.language_models import WIDTH, save_language_model
from tests.packed import make_longgrit

STEP = load_step("adapt_text")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_longgrit(tmp_path_factory.mktemp("data") / "longgrit", val_share=0.4)


def test_a_tower_is_made_measured_and_its_curves_are_in_mlflow(dataset, tmp_path):
    base = save_language_model(tmp_path / "base", dtype=torch.bfloat16)
    tracking_uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    settings = {
        "base_model": str(base),
        "num_layers": 1,
        "masked_tokens": {"num_steps": 2, "batch_size": 4},
        "contrast": {"num_steps": 3, "batch_size": 4, "lr": 0.01},
        "text": {"max_tokens": 48},
        "whiten": {"share": 0.5},
        "tracking_uri": tracking_uri,
    }
    tower = tmp_path / "text_tower"
    receipt = run_step(STEP, {"dataset": dataset}, {"text_tower": tower}, settings)
    names = {f"short_to_long_r{k}_{when}" for k in (1, 5, 10) for when in ("before", "after")}
    assert names <= set(receipt.metrics)
    report = json.loads((tower / "adaptation.json").read_text())
    assert report["metrics"] == receipt.metrics
    assert report["settings"]["base_model"] == "base"
    told = "".join(path.read_text() for path in tower.glob("[!_]*.json"))
    assert str(tmp_path) not in told  # nothing of this machine or run is in the artifact
    assert "tracking_uri" not in told
    assert "num_ranks" not in told
    config, provenance = read_text_tower(tower)
    assert (config.embed_dim, config.max_tokens) == (WIDTH, 48)
    assert provenance["base_model"] == "base"
    assert provenance["adaptation"]["contrast"]["num_steps"] == 3
    assert provenance["num_layers"] == 1
    encoder = TextEncoder.open(tower)
    assert encoder.encode(["a dog"]).shape == (1, WIDTH)
    assert not (tower / "_work").exists()
    weights = {path.name for path in tower.glob("*.safetensors")}
    assert weights == {"model.safetensors", "whitening.safetensors"}
    client = MlflowClient(tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("pixclip").experiment_id])
    assert len(client.get_metric_history(run.info.run_id, "contrast/loss")) == 3
    assert len(client.get_metric_history(run.info.run_id, "masked_tokens/loss")) == 2


@pytest.mark.parametrize("has_links", [True, False])
def test_a_tower_with_folders_in_it_is_taken_out_and_again(tmp_path, monkeypatch, has_links):
    def no_links(*places: object) -> None:
        raise OSError("this file system has no hard links")

    tower, folder = tmp_path / "_work" / "tower", tmp_path
    (tower / "additional_chat_templates").mkdir(parents=True)
    (tower / "config.json").write_text("{}")
    (tower / "additional_chat_templates" / "tools.jinja").write_text("a")
    if not has_links:
        monkeypatch.setattr("os.link", no_links)
    for _ in range(2):
        _take_out(tower, folder)
        assert (folder / "config.json").read_text() == "{}"
        assert (folder / "additional_chat_templates" / "tools.jinja").read_text() == "a"
        assert (folder / "config.json").samefile(tower / "config.json") == has_links


def test_curves_that_mlflow_missed_are_sent_by_the_next_attempt(tmp_path, monkeypatch):
    sent, started = [], []

    @contextmanager
    def away_at_first(name, **settings):
        run = NotingRun()
        yield run
        sent.append(run.steps)
        if len(sent) == 1:
            raise TrackingError("MLflow cannot be reached")

    def train(module, path, *, num_ranks):
        started.append(module)
        line = {"step": 1, "loss": 2.0}
        (tmp_path / "contrast").mkdir()
        (tmp_path / "contrast" / "steps.jsonl").write_text(json.dumps(line) + "\n")
        (tmp_path / "tower").mkdir()
        (tmp_path / "tower.sha256").write_text(tower_digest(tmp_path / "tower"))
        for name in ("before.json", "after.json"):
            (tmp_path / name).write_text("{}")

    monkeypatch.setattr(training, "require_base_model", lambda settings: None)
    monkeypatch.setattr(training, "tracked_run", away_at_first)
    monkeypatch.setattr(training, "run_ranks", train)
    with pytest.raises(TrackingError):
        training.adapt(tmp_path, AdaptTextSettings())
    for _ in range(2):
        assert [line["step"] for line in training.adapt(tmp_path, AdaptTextSettings())] == [1]
    assert sent == [[1], [1]]
    assert len(started) == 1


class NotingRun:
    """Notes the steps that are logged."""

    def __init__(self) -> None:
        self.steps = []

    def log(self, step, metrics) -> None:
        self.steps.append(step)


def test_a_base_model_that_is_not_there_is_refused(dataset, tmp_path):
    with pytest.raises(SettingsError, match=r"adapt_text.base_model=.*cannot be opened"):
        run_step(
            STEP,
            {"dataset": dataset},
            {"text_tower": tmp_path / "tower"},
            {"base_model": str(tmp_path / "nothing")},
        )


def test_batches_must_split_evenly_over_ranks(dataset, tmp_path):
    with pytest.raises(SettingsError, match="multiple of num_ranks=3"):
        run_step(STEP, {"dataset": dataset}, {"text_tower": tmp_path / "tower"}, {"num_ranks": 3})


def test_simcse_without_any_dropout_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="both views are equal"):
        AdaptTextSettings(contrast={"kind": "simcse"}, lora={"dropout": 0})


def test_settings_reach_the_training_processes(tmp_path):
    settings = AdaptTextSettings.model_validate(
        {"contrast": {"scale": 7.0}, "seed": 5, "text": {"prefix": "say "}}
    )
    job = make_job(tmp_path, settings)
    write_job(tmp_path / "job.json", job)
    assert read_job(tmp_path / "job.json", AdaptJob) == job
    assert isinstance(job, AdaptJob)
    assert (job.contrast.scale, job.seed, job.text.prefix) == (7.0, 5, "say ")


def test_pairs_are_of_train_alone_and_drawn_by_the_seed(dataset, tmp_path):
    manifest = pq.read_table(dataset / "manifest.parquet").to_pylist()
    train = {row["long_caption"] for row in manifest if row["split"] == "train"}
    number = draw_train_pairs(dataset, tmp_path / "all.parquet", 1000, seed=0)
    assert number == sum(row["split"] == "train" for row in manifest)
    drawn = []
    for seed in (0, 0, 1):
        path = tmp_path / "some.parquet"
        assert 0 < draw_train_pairs(dataset, path, number // 2, seed=seed) < number
        drawn.append(set(pq.read_table(path)["long_caption"].to_pylist()))
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] | drawn[2] <= train


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"half"), lambda path: path.unlink()]
)
@pytest.mark.parametrize("name", ["adapters.safetensors", "adapters.sha256"])
def test_adapters_that_a_crash_damaged_are_not_taken_for_a_finished_stage(tmp_path, damage, name):
    path = tmp_path / "adapters.safetensors"
    path.write_bytes(b"adapters")
    (tmp_path / "adapters.sha256").write_text(sha256_of(path))
    assert adapt.has_whole_adapters(path)
    damage(tmp_path / name)
    assert not adapt.has_whole_adapters(path)


def test_a_tower_that_a_crash_damaged_is_written_again(tmp_path, caplog):
    job = make_job(tmp_path, AdaptTextSettings())
    assert not training.is_finished(job)
    job.tower.mkdir()
    (job.tower / "config.json").write_text("{}")
    job.tower_mark.write_text(tower_digest(job.tower))
    assert training.is_finished(job)
    (job.tower / "config.json").write_bytes(b"")
    assert not training.is_finished(job)
    assert "is damaged and is written again" in caplog.text


@pytest.mark.parametrize("content", [b"", b"[1]", b"{" * 5000, b"\xff"])
def test_a_measurement_that_a_crash_damaged_is_made_again(tmp_path, content):
    path = tmp_path / "before.json"
    path.write_bytes(content)
    for measured in (0.5, 0.7):
        rank.once(path, lambda measured=measured: {"r1": measured})
        assert training.read_numbers(path) == {"r1": 0.5}
