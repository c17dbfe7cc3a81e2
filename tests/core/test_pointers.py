"""Pointers to artifacts: followed while the target is what it was, refused with advice after."""

import shutil
from pathlib import Path

import pytest

from components.core.digests import file_digests, file_sha256
from components.core.errors import InputError
from components.core.pointers import MAX_PAGES_BYTES, POINTER_NAME, follow, point, read_pointer
from components.core.receipts import Receipt, read_receipt
from tests.receipts import write_receipt


@pytest.fixture
def kept(tmp_path) -> Path:
    """A published checkpoint with curves beside it, as in the state folder."""
    place = tmp_path / "state" / "train" / "0123456789abcdef"
    (place / "checkpoint").mkdir(parents=True)
    (place / "checkpoint" / "weights").write_text("w" * 1000)
    (place / "checkpoint" / "card.md").write_text("# a card")
    (place / "curves").write_text("step,loss\n")
    write_own_receipt(place)
    return place


def write_own_receipt(place: Path) -> None:
    files = {f"checkpoint/{n}": d for n, d in file_digests(place / "checkpoint").items()}
    files["curves"] = file_sha256(place / "curves")
    write_receipt(place / "checkpoint", "train", "checkpoint", files=files)


def state_of(kept: Path) -> Path:
    return kept.parents[1]


def pointed(kept: Path, name: str, folder: Path) -> Path:
    receipt = read_receipt(kept / "checkpoint")
    assert isinstance(receipt, Receipt)
    point(kept / name, receipt, name, folder)
    return folder


def test_a_pointer_is_small_and_leads_to_the_data(kept, tmp_path):
    folder = pointed(kept, "checkpoint", tmp_path / "kfp")
    assert {path.name for path in folder.iterdir()} == {POINTER_NAME, "card.md"}
    assert follow("checkpoint", folder, state_of(kept)) == kept / "checkpoint"
    assert read_pointer(folder).num_bytes > 1000


def test_a_single_file_is_pointed_to_as_well(kept, tmp_path):
    assert (
        follow("curves", pointed(kept, "curves", tmp_path / "kfp"), state_of(kept))
        == kept / "curves"
    )


def test_what_is_no_pointer_is_taken_as_it_is(kept):
    assert follow("parent", kept / "checkpoint", None) == kept / "checkpoint"


def test_pages_travel_as_far_as_they_have_room(kept, tmp_path):
    (kept / "checkpoint" / "large.html").write_text("x" * MAX_PAGES_BYTES)
    folder = pointed(kept, "checkpoint", tmp_path / "kfp")
    assert not (folder / "large.html").exists()
    assert (folder / "card.md").exists()


def test_a_target_that_is_gone_names_the_step_to_run_again(kept, tmp_path):
    folder = pointed(kept, "checkpoint", tmp_path / "kfp")
    shutil.rmtree(kept)
    with pytest.raises(InputError, match=r"input parent: .*step train made, is gone.*run train ag"):
        follow("parent", folder, state_of(kept))


def test_a_target_that_was_made_anew_with_other_bytes_is_refused(kept, tmp_path):
    folder = pointed(kept, "checkpoint", tmp_path / "kfp")
    (kept / "checkpoint" / "weights").write_text("other")
    write_own_receipt(kept)
    with pytest.raises(InputError, match=r"is no longer what step train had made; run train again"):
        follow("parent", folder, state_of(kept))


def test_a_target_made_again_with_the_same_bytes_is_taken(kept, tmp_path):
    folder = pointed(kept, "checkpoint", tmp_path / "kfp")
    shutil.move(kept, tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", kept)
    assert follow("parent", folder, state_of(kept)) == kept / "checkpoint"


@pytest.mark.parametrize("is_named", [True, False])
def test_a_target_that_is_not_below_the_state_folder_is_refused(kept, tmp_path, is_named):
    folder = pointed(kept, "checkpoint", tmp_path / "kfp")
    other = tmp_path / "other" if is_named else None
    with pytest.raises(InputError, match=r"checkpoint is not below the state folder \((/|none)"):
        follow("parent", folder, other)


@pytest.mark.parametrize("way_out", ["link", "dots"])
def test_a_way_out_of_the_state_folder_is_seen(kept, tmp_path, way_out):
    folder, state = pointed(kept, "checkpoint", tmp_path / "kfp"), tmp_path / "volume"
    (state / "train").mkdir(parents=True)
    (state / "train" / "link").symlink_to(kept)
    target = {"link": "train/link/checkpoint", "dots": f"../state/train/{kept.name}/checkpoint"}
    pointer = read_pointer(folder)
    changed = pointer.model_copy(update={"uri": f"file://{state}/{target[way_out]}"})
    (folder / POINTER_NAME).write_text(changed.model_dump_json())
    with pytest.raises(InputError, match=r"is not below the state folder"):
        follow("parent", folder, state)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"uri": "file:///x", "strange": 1}',
        "[]",
        '{"uri": "file:///x", "step": "s", "receipt_in": "../x", "digest": "", "num_bytes": 1}',
    ],
)
def test_a_pointer_that_cannot_be_read_is_told(tmp_path, text):
    (tmp_path / POINTER_NAME).write_text(text)
    with pytest.raises(InputError, match="is no pointer of this release"):
        follow("parent", tmp_path, tmp_path)


def test_an_address_that_cannot_be_followed_is_told(tmp_path):
    (tmp_path / POINTER_NAME).write_text(
        '{"uri": "gs://bucket/x", "step": "train", "receipt_in": "x", "digest": "", "num_bytes": 1}'
    )
    with pytest.raises(InputError, match=r"gs://bucket/x cannot be followed here; run train again"):
        follow("parent", tmp_path, tmp_path)
