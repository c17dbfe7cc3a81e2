"""States of a running training: whole or not there, and the newest whole one is found."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from pixclip.training.pixclip import PixClipObjective
from pixclip.training.stage import StepsFile
from pixclip.training.states import load_state, random_state, save_state, seed_all, set_random_state
from tests.pixclip.training.small import random_batch, small_model, stage
from tests.pixclip.training.two_ranks import open_small_engine

CPU = torch.device("cpu")


def steps_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("step-*"))


def save_some(folder: Path, *steps: int) -> None:
    for step in steps:
        save_state(folder, step, {"step": step, "weights": torch.full((3,), float(step))})


def test_the_newest_state_is_loaded_and_only_two_are_kept(tmp_path):
    save_some(tmp_path, 5, 10, 15)
    assert steps_of(tmp_path) == ["step-00000010", "step-00000015"]
    assert (tmp_path / "latest").read_text() == "step-00000015"
    assert load_state(tmp_path, CPU)["step"] == 15


def test_no_state_is_no_state(tmp_path):
    assert load_state(tmp_path, CPU) is None


def damage_bytes(state: Path) -> None:
    content = bytearray((state / "rank-00000.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (state / "rank-00000.pt").write_bytes(content)


def cut_short(state: Path) -> None:
    content = (state / "rank-00000.pt").read_bytes()
    (state / "rank-00000.pt").write_bytes(content[:-10])


@pytest.mark.parametrize(
    "damage",
    [
        damage_bytes,
        cut_short,
        lambda state: (state / "rank-00000.pt").unlink(),
        lambda state: (state / "checksums.json").unlink(),
        lambda state: (state / "checksums.json").write_text("{"),
        lambda state: (state / "checksums.json").write_text("{}"),
        lambda state: (state / "checksums.json").write_text("[" * 5000),
        lambda state: (state / "checksums.json").write_bytes(b"\xff"),
        lambda state: (state / "checksums.json").write_text('["rank-00000.pt"]'),
        lambda state: (state / "checksums.json").write_text('{"rank-00000.pt": null}'),
        lambda state: (state / "checksums.json").write_text('{"rank-00001.pt": "0"}'),
        lambda state: (shutil.rmtree(state), state.write_bytes(b"a file")),
        lambda state: (state.parent / "latest").write_bytes(b"\xff\0") and damage_bytes(state),
        lambda state: (state.parent / "latest").write_text("../..") and damage_bytes(state),
    ],
)
def test_a_damaged_state_is_passed_over_with_a_warning(tmp_path, caplog, damage):
    save_some(tmp_path, 5, 10)
    damage(tmp_path / "step-00000010")
    assert load_state(tmp_path, CPU)["step"] == 5
    assert "step-00000010 is damaged" in caplog.text


def test_without_any_whole_state_training_does_not_silently_start_again(tmp_path):
    save_some(tmp_path, 5)
    damage_bytes(tmp_path / "step-00000005")
    with pytest.raises(ValueError, match=r"no state in .* is whole; remove the folder"):
        load_state(tmp_path, CPU)


def test_a_half_written_state_is_never_seen(tmp_path):
    save_some(tmp_path, 5)
    draft = tmp_path / ".step-00000010.draft"
    draft.mkdir()
    (draft / "rank-00000.pt").write_bytes(b"half")
    assert load_state(tmp_path, CPU)["step"] == 5
    save_some(tmp_path, 10)
    assert load_state(tmp_path, CPU)["step"] == 10


def test_what_kills_left_of_states_goes_with_the_next_state(tmp_path):
    for step in (11, 23):
        (tmp_path / f".step-{step:08d}.draft").mkdir()
    save_some(tmp_path, 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000030"]


def test_a_run_that_went_back_keeps_the_state_it_went_back_to_and_not_the_damaged_one(tmp_path):
    save_some(tmp_path, 100, 200)
    cut_short(tmp_path / "step-00000200")
    assert load_state(tmp_path, CPU)["step"] == 100
    save_some(tmp_path, 150)
    assert steps_of(tmp_path) == ["step-00000100", "step-00000150"]
    save_some(tmp_path, 190)
    assert steps_of(tmp_path) == ["step-00000150", "step-00000190"]


def test_a_state_of_another_number_of_ranks_is_refused(tmp_path):
    save_some(tmp_path, 5)
    state = tmp_path / "step-00000005"
    (state / "rank-00001.pt").write_bytes((state / "rank-00000.pt").read_bytes())
    with pytest.raises(ValueError, match=r"of 2 ranks and this run has 1; go on with 2, or remove"):
        load_state(tmp_path, CPU)


def test_a_state_that_holds_code_is_not_run(tmp_path):
    save_state(tmp_path, 5, {"step": Path("an object")})
    with pytest.raises(Exception, match="Weights only load failed"):
        load_state(tmp_path, CPU)


def test_random_generators_go_on_where_they_were(tmp_path):
    seed_all(3)
    save_state(tmp_path, 1, random_state())

    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    expected = draw()
    set_random_state(load_state(tmp_path, CPU))
    assert draw() == expected


def test_an_engine_goes_on_bit_by_bit_from_its_state(tmp_path):
    def learn(engine, seed):
        engine.backward(engine(random_batch(seed))["total"])
        engine.step()

    model = small_model()
    engine = open_small_engine(PixClipObjective(model, stage().losses), stage())
    learn(engine, 0)
    save_state(tmp_path, 1, engine.state())
    learn(engine, 1)
    other = small_model(seed=9)
    resumed = open_small_engine(PixClipObjective(other, stage().losses), stage())
    resumed.load_state(load_state(tmp_path, CPU))
    learn(resumed, 1)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, dict(other.named_parameters())[name]), name


@pytest.mark.parametrize("content", [b"\xff\0", b"", b"../../etc", b"step-00000005"])
def test_a_damaged_mark_of_the_newest_state_hides_none(tmp_path, content):
    save_some(tmp_path, 5, 10)
    (tmp_path / "latest").write_bytes(content)
    assert load_state(tmp_path, CPU)["step"] == (5 if content.endswith(b"5") else 10)


def test_any_flipped_bit_of_a_state_is_found(tmp_path, caplog):
    save_some(tmp_path, 5, 10)
    state, draw = tmp_path / "step-00000010", random.Random(0)
    for name in ("rank-00000.pt", "checksums.json"):
        whole = (state / name).read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
            (state / name).write_bytes(damaged)
            assert load_state(tmp_path, CPU)["step"] == 5
        (state / name).write_bytes(whole)
    assert load_state(tmp_path, CPU)["step"] == 10
    assert "going back to the state before it" in caplog.text


def test_a_state_without_a_rank_s_part_is_passed_over(tmp_path, caplog):
    save_some(tmp_path, 5, 10)
    state = tmp_path / "step-00000010"
    digest = json.loads((state / "checksums.json").read_text())["rank-00000.pt"]
    (state / "checksums.json").write_text(
        json.dumps({"rank-00000.pt": digest, "rank-00001.pt": digest})
    )
    assert load_state(tmp_path, CPU)["step"] == 5
    assert "rank-00001.pt is missing" in caplog.text


def test_damaged_lines_of_steps_are_left_out_and_told(tmp_path, caplog):
    path = tmp_path / "steps.jsonl"
    good = [f'{{"step": {step}, "loss": 1.5}}\n'.encode() for step in (1, 2, 3)]
    path.write_bytes(good[0] + b"\xff{\n[1]\n" + good[1] + b'{"step": null, "loss": 1}\n' + b'{"st')
    with StepsFile(tmp_path, 2, tqdm(disable=True)):
        pass
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    assert "3 damaged lines are left out" in caplog.text


def test_a_state_of_another_model_is_refused(tmp_path):
    losses = stage().losses
    engine = open_small_engine(PixClipObjective(small_model(), losses), stage())
    other = open_small_engine(PixClipObjective(small_model(), losses), stage(trainable=("mask",)))
    with pytest.raises(ValueError, match="of another model or number of ranks"):
        other.load_state(engine.state())
