"""Files appear whole or not at all, and links lead to the file itself."""

import os

import pytest

from pixclip.files import link_or_copy, write_whole, written_whole


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "table"
    write_whole(path, "old")

    def fail() -> None:
        with written_whole(path) as partial:
            partial.write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        fail()
    assert path.read_text() == "old"


@pytest.mark.parametrize("durable", [False, True])
def test_a_finished_file_takes_its_name_and_nothing_is_left_beside_it(tmp_path, durable):
    write_whole(tmp_path / "note", "é", durable=durable)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
    assert (tmp_path / "note").read_bytes() == "é".encode()


def test_what_is_durable_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    flush, rename = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("flush"), flush(file))[1])
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda *paths: (events.append("rename"), rename(*paths))[1]
    )
    write_whole(tmp_path / "note", "a", durable=True)
    assert events == ["flush", "rename", "flush"]


def test_a_link_to_a_file_is_followed(tmp_path):
    (tmp_path / "file").write_text("a")
    (tmp_path / "link").symlink_to("file")
    link_or_copy(str(tmp_path / "link"), str(tmp_path / "second"))
    assert not (tmp_path / "second").is_symlink()
    assert (tmp_path / "second").samefile(tmp_path / "file")


def test_what_is_there_already_is_never_written_through(tmp_path):
    (tmp_path / "file").write_text("a")
    (tmp_path / "theirs").write_text("b")
    (tmp_path / "target").symlink_to("theirs")
    with pytest.raises(FileExistsError):
        link_or_copy(str(tmp_path / "file"), str(tmp_path / "target"))
    assert (tmp_path / "theirs").read_text() == "b"


def test_without_hard_links_a_copy_is_made(tmp_path, monkeypatch):
    def no_links(source: str, target: str) -> None:
        raise OSError("not permitted")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "file").write_text("a")
    link_or_copy(str(tmp_path / "file"), str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_text() == "a"
