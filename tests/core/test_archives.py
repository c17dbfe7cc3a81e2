"""Archives of strangers: plain files are unpacked whole, the rest refused, nothing half done."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.archives import FREE_BYTES, is_archive, unpack
from components.core.errors import InputError


def tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def content_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


MEMBERS = [("a/b.txt", b"1"), ("a/c d.txt", b"22"), ("e", b"")]


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tgz", "w:gz"), ("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.TAR", "w")]
)
def test_a_tar_is_unpacked(tmp_path, name, mode):
    unpack(tar(tmp_path / name, MEMBERS, mode), tmp_path / "out")
    assert content_of(tmp_path / "out") == dict(MEMBERS)


def test_a_zip_is_unpacked(tmp_path):
    unpack(zipped(tmp_path / "a.zip", MEMBERS), tmp_path / "out")
    assert content_of(tmp_path / "out") == dict(MEMBERS)


@pytest.mark.parametrize("make", [lambda path: path.with_suffix(".tgz"), lambda path: path])
@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "a\\..\\b"])
def test_a_name_that_leads_out_is_refused(tmp_path, make, name):
    path = make(tmp_path / "a.zip")
    archive = (zipped if path.suffix == ".zip" else tar)(path, [("good", b"1"), (name, b"2")])
    with pytest.raises(InputError, match="does not stay below its folder"):
        unpack(archive, tmp_path / "folder" / "out")
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(InputError, match="'link' is a link or a device"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_a_link_of_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="'link' is a link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_bomb_is_given_up(tmp_path):
    zeros = bytes(1 << 24)
    archive = tar(tmp_path / "a.tgz", [(f"{n}", zeros) for n in range((FREE_BYTES >> 24) + 1)])
    with pytest.raises(InputError, match="unpacks to more than 20 times its size"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="two members have the name"):
        unpack(tar(tmp_path / "a.tgz", [("a", b"1"), ("a", b"2")]), tmp_path / "out")
    with pytest.raises(InputError, match=r"two members|below another"):
        unpack(tar(tmp_path / "b.tgz", [("a", b"1"), ("a/b", b"2")]), tmp_path / "out")


@settings(deadline=None)  # of a busy machine
@given(st.data())
def test_a_damaged_archive_is_an_error_of_the_input(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    make, name = data.draw(st.sampled_from([(tar, "a.tgz"), (zipped, "a.zip")]))
    archive = make(folder / name, [("a", bytes(range(256)) * 9), ("b", b"2")])
    content = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        unpack(archive, folder / "out")
    except InputError:
        assert not (folder / "out").exists()


def test_archives_are_known_by_their_names():
    assert is_archive("s3://b/CUB_200_2011.tgz")
    assert is_archive("A.ZIP")
    assert not is_archive("/data/CUB_200_2011")
