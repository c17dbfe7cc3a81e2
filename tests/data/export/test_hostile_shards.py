"""Shards that somebody crafted or a disk damaged end in a message that names them."""

import io
import json
import os
import subprocess
import sys
import tarfile

import pytest

from components.core.errors import InputError
from components.core.shards import write_shard
from components.core.step import load_step
from components.data.export import read_samples
from tests.data.export.conftest import sample

EXPORT = load_step("export")


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def link(name, kind, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def broken(**changes):
    """A sample whose description has other values; `...` leaves one out."""
    good = sample(3)
    content = {**good["json"], **changes}
    good["json"] = {name: value for name, value in content.items() if value is not ...}
    return good


def with_region(**changes):
    region = {**sample(3)["json"]["regions"][0], **changes}
    return broken(regions=[{name: value for name, value in region.items() if value is not ...}])


@pytest.mark.parametrize(
    "content",
    [
        broken(regions=...),
        broken(regions=7),
        broken(regions=[7]),
        broken(url=None),
        broken(caption=...),
        broken(width_px="64"),
        broken(width_px=10**9, height_px=10**9),
        with_region(mask=...),
        with_region(mask={"size": [48, 64], "counts": None}),
        with_region(mask={"size": [10**6, 10**6], "counts": "1"}),
        with_region(mask={"size": [48, 64], "counts": "PPYo1"}),
        with_region(box_xyxy=[1, 2, 3]),
        with_region(box_xyxy=[1, 2, 3, None]),
        with_region(long_caption=None),
        with_region(phrase=...),
        with_region(provenance="x"),
        with_region(provenance=...),
    ],
)
def test_a_description_that_lacks_something_names_shard_and_what(dataset, content):
    write_shard(dataset / "val" / "00000.tar", [content])
    exports = dataset.parent / "exports"
    exports.mkdir()
    with pytest.raises(InputError, match=r"00000\.tar"):
        EXPORT.function(dataset=dataset, exports=exports, settings=EXPORT.settings_type())


@pytest.mark.parametrize(
    "description",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a": ' + b"9" * 6000 + b"}",
        b'{"caption": "\\ud800"}',
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
    ],
)
def test_a_description_that_is_no_json_names_its_shard(dataset, description):
    path = dataset / "val" / "00000.tar"
    write_tar(path, [("a.jpg", sample(3)["jpg"]), ("a.json", description)])
    with pytest.raises(InputError, match=r"00000\.tar"):
        list(read_samples(dataset, "val"))


@pytest.mark.parametrize(
    "members",
    [
        [(link("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), b"")],
        [(link("a.jpg", tarfile.LNKTYPE, "/etc/passwd"), b"")],
        [(link("a.jpg", tarfile.CHRTYPE, ""), b"")],
        [("a.jpg", b"x")],
        [("a.json", b"{}"), ("b.jpg", b"x")],
        [("a.jpg", b"x"), ("a.jpg", b"y"), ("a.json", b"{}")],
        [(".jpg", b"x"), (".json", b"{}")],
    ],
)
def test_members_that_are_no_pairs_of_files_are_refused(dataset, members):
    write_tar(dataset / "val" / "00000.tar", members)
    with pytest.raises(InputError, match=r"00000\.tar"):
        list(read_samples(dataset, "val"))


def test_a_key_in_two_shards_would_overwrite_a_picture_and_is_refused(dataset):
    write_shard(dataset / "val" / "00001.tar", [sample(5), sample(6)])
    write_shard(dataset / "val" / "00002.tar", [sample(6)])
    with pytest.raises(InputError, match="comes twice in split val"):
        list(read_samples(dataset, "val"))


@pytest.mark.parametrize("length", [0, 100, 600, 1500])
def test_a_shard_that_is_cut_off_is_named(dataset, length):
    path = dataset / "val" / "00000.tar"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"00000\.tar is damaged"):
        list(read_samples(dataset, "val"))


def test_files_are_utf8_and_the_same_whatever_the_locale(dataset):
    code = (
        "import sys\nfrom pathlib import Path\nfrom components.core.step import load_step\n"
        "step = load_step('export')\nout = Path(sys.argv[2])\nout.mkdir()\n"
        "step.function(dataset=Path(sys.argv[1]), exports=out, settings=step.settings_type())"
    )
    texts = []
    latin = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for name, locale in (("a", {"PYTHONUTF8": "1"}), ("b", latin)):
        out = dataset.parent / name
        environment = {**os.environ, "PYTHONIOENCODING": "", **locale}
        command = [sys.executable, "-c", code, str(dataset), str(out)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        texts.append((out / "coco" / "train.json").read_bytes())
    assert texts[0] == texts[1]
    assert "thing “0”" in json.loads(texts[0].decode())["annotations"][0]["phrase"]
