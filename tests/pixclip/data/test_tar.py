"""Shards as strangers make them: read alike, or refused by shard and sample, in bounded time."""

import gzip
import io
import json
import os
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.pack.writer import sample_json
from pixclip.data.errors import DataError
from pixclip.data.shards import Member, Shards, TarError, iterate_images, read_members
from pixclip.data.store import Store
from tests.pixclip.data.world import draw_scene, write_longgrit

SHARD = "train/00000.tar"


def info(name: str, content: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def with_header(tar: bytes, start: int, field: bytes) -> bytes:
    """The tar with a part of its first header changed, and a checksum that fits."""
    header = bytearray(tar[:512])
    header[start : start + len(field)] = field
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    return bytes(header) + tar[512:]


def names_of(tar: bytes) -> list[str]:
    return [member.name for member in read_members(io.BytesIO(tar))]


PLAIN = tar_of(info("a.json", b"{}"), info("a.jpg", b"x" * 700))
DEEP_PAX = b"".join(
    tarfile.TarInfo._create_pax_generic_header({"comment": "x"}, b"x", "utf-8") for _ in range(3000)
)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_tarfile_finds(form):
    names = ["a.json", "b" * 95 + ".jpg", "folder/" + "c" * 80 + "/" + "d" * 60 + ".json"]
    if form != tarfile.USTAR_FORMAT:
        names += ["e" * 300 + ".jpg", "ü/" + "ö" * 90 + ".json"]
    contents = [(name, os.urandom(number * 300)) for number, name in enumerate(names)]
    tar = tar_of(
        info("folder", type=tarfile.DIRTYPE),
        *(info(name, content) for name, content in contents),
        form=form,
    )
    with tarfile.open(fileobj=io.BytesIO(tar)) as expected:
        found = [Member(m.name, m.offset_data, m.size) for m in expected if m.isreg()]
    assert list(read_members(io.BytesIO(tar))) == found
    assert [member.name for member in found] == names


def test_names_begin_where_the_shard_does_and_old_headers_are_read():
    assert names_of(tar_of(info("./a.json", b"{}"), info("././b/c.jpg"))) == ["a.json", "b/c.jpg"]
    old = with_header(PLAIN, 257, bytes(255))  # of 1979: no magic, no owner
    assert names_of(with_header(old, 156, b"\0")) == ["a.json", "a.jpg"]
    large = with_header(PLAIN, 124, b"\x80" + (2).to_bytes(11, "big"))  # a size of GNU's
    assert names_of(large) == ["a.json", "a.jpg"]


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (b"", "it is empty"),
        (PLAIN[:100], "without the closing blocks"),
        (PLAIN[:1024], "without the closing blocks"),
        (PLAIN[:1800], "ends inside its member 'a.jpg'"),
        (gzip.compress(PLAIN), "compressed by gzip"),
        (b"PK\x03\x04" + bytes(600), "compressed by zip"),
        (b"<html>" * 200, "another checksum"),
        (PLAIN[:30] + b"!" + PLAIN[31:], "header at byte 0 has another checksum"),
        (tar_of(info("a.json", type=tarfile.SYMTYPE, linkname="/etc/passwd")), "a symbolic link"),
        (tar_of(info("a.json", type=tarfile.LNKTYPE, linkname="b.json")), "a hard link"),
        (tar_of(info("a.json", type=tarfile.CHRTYPE)), "a device"),
        (tar_of(info("a.json", type=tarfile.BLKTYPE)), "a device"),
        (tar_of(info("a.json", type=tarfile.FIFOTYPE)), "a pipe"),
        (with_header(PLAIN, 156, b"S"), "a sparse file"),
        (with_header(PLAIN, 156, b"M"), "of another volume"),
        (with_header(PLAIN, 156, b"?"), r"of the unknown type b'\?'"),
        (tar_of(info("a.json", pax_headers={"GNU.sparse.major": "1"})), "a sparse file"),
        (tar_of(info("a.json", pax_headers={"size": "-5"})), "size .*-5.* no number"),
        (tar_of(info("a.json", pax_headers={"size": "9" * 5000})), "no number"),
        (tar_of(info("a.json", pax_headers={"size": "9" * 18})), "ends inside its member 'a.json'"),
        (tar_of(info("../a.json")), "'../a.json' has no plain name"),
        (tar_of(info("/etc/a.json")), "no plain name"),
        (tar_of(info("a\\..\\b.json")), "no plain name"),
        (tar_of(info("a\nb.json")), "no plain name"),
        (tar_of(info("a" * 5000 + ".json")), "no plain name"),
        (with_header(PLAIN, 0, b"\xff\xfe.json"), "not UTF-8"),
        (with_header(PLAIN, 124, b"0_0000000_2\0"), "a size that is no number"),
        (with_header(PLAIN, 124, b"0x000000002\0"), "a size that is no number"),
        (with_header(PLAIN, 124, b"77777777777\0"), "ends inside"),
        (with_header(PLAIN, 124, b"\x80" + b"\xff" * 11), "ends inside"),
        (with_header(PLAIN, 124, b"\xff" * 12), "negative size"),
        (with_header(PLAIN, 156, b"x"), "records cannot be read"),
        (with_header(with_header(PLAIN, 156, b"x"), 124, b"77777777777\0"), "ends inside"),
        (
            tarfile.TarInfo.create_pax_global_header({"path": "b.json"}) + PLAIN,
            "a global header that gives every member the path",
        ),
        (
            tar_of(info("././@LongLink", bytes(2**21), type=tarfile.GNUTYPE_LONGNAME)) + PLAIN,
            "an extended header of 2097152 bytes",
        ),
    ],
)
def test_what_is_no_tar_of_plain_files_is_refused_with_the_reason(tar, message):
    with pytest.raises(TarError, match=message):
        names_of(tar)


def test_thousands_of_extended_headers_are_no_recursion():
    assert names_of(DEEP_PAX + PLAIN) == ["a.json", "a.jpg"]


def test_a_damaged_shard_is_read_or_refused_and_never_anything_else(tmp_path):
    """Bytes flipped, cut, repeated and zeroed: 1,500 shards."""
    write_longgrit(tmp_path, [draw_scene(number, 2) for number in range(2)])
    shard, draw = tmp_path / SHARD, random.Random(0)
    whole = shard.read_bytes()
    outcomes = set()
    for _ in range(1500):
        tar = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 8))):
            place = draw.randrange(len(tar))
            # Half of the damage in headers, where it tells most.
            place = place // 512 * 512 + draw.randrange(160) if draw.random() < 0.5 else place
            tar[place % len(tar)] = draw.choice(
                (0, 255, draw.randrange(256), tar[place % len(tar)] ^ 8)
            )
        if draw.random() < 0.2:
            del tar[draw.randrange(len(tar)) :]
        shard.write_bytes(tar)
        try:
            list(Shards(Store(tmp_path)).samples(SHARD))
            outcomes.add("read")
        except DataError as error:
            is_told = SHARD in str(error) and len(str(error)) < 1000
            outcomes.add("refused" if is_told else f"{error}")
    assert outcomes == {"read", "refused"}


def described(**changes) -> bytes:
    return json.dumps(sample_json(draw_scene(1, 2).rows) | changes).encode()


REGION = json.loads(described())["regions"][0]
NO_COUNTS = {"size": [44, 60], "counts": [1]}
HALF = described().replace(b'"caption": "', b'"caption": "\\ud800', 1)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (b"", "it is no JSON"),
        (b"[" * 1000 + b"]" * 1000, "nested more than 64 deep"),
        (b'{"a":' * 100_000, "nested more than 64 deep"),
        (b"[" * 70 + b"]" * 70, "nested more than 64 deep"),
        (b"[1, 2]", "the whole must be an object"),
        (b"null", "the whole must be an object"),
        (b'{"caption": NaN}', "NaN is no number"),
        (b'{"caption": "a", "caption": "b"}', "'caption' is there twice"),
        (b'{"width_px": ' + b"9" * 5000 + b"}", "it is no JSON"),
        (b"\xff\xfe", "it is no JSON"),
        (described(caption=None), "caption must be a text, got None"),
        (described(caption=7), "caption must be a text, got 7"),
        (described(caption=["a"]), "caption must be a text"),
        (described(image_id=3), "image_id must be a text"),
        (HALF, "caption must be Unicode without half characters"),
        (described(width_px=10**400), "no image has 1000.* x 44 pixels"),
        (described(width_px=True), "no image has True"),
        (described(regions={}), "regions must be a list"),
        (described(regions=[None]), r"regions\[0\] must be an object"),
        (described(regions=[{"mask": 3}]), r"regions\[0\].mask must be an object"),
        (described(regions=[{"mask": {"size": [1, "2"]}}]), "mask.size must be 2 whole numbers"),
        (
            described(regions=[REGION | {"mask": {"size": [44, 60], "counts": [1]}}]),
            "counts must be a text",
        ),
    ],
)
def test_a_description_that_makes_no_sense_is_refused_with_shard_sample_and_field(
    tmp_path, description, message
):
    scene = draw_scene(1, 2)
    write_longgrit(tmp_path, [scene])
    tar = tar_of(info("k.jpg", scene.jpeg), info("k.json", description))
    (tmp_path / SHARD).write_bytes(tar)
    with pytest.raises(DataError, match=message) as told:
        list(iterate_images(tmp_path, "train"))
    assert f"shard {SHARD}, sample k: " in str(told.value)
    assert len(str(told.value)) < 800


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "holds no sample"),
        ([info("k.jpg", b"x")], "sample k: there is no json"),
        ([info("k.json", b"{}"), info("k.json", b"{}")], "sample k: two json"),
        ([info("a.b/k.json", b"{}"), info("a.b/k.x.json", b"{}")], "sample a.b/k: there is no jpg"),
    ],
)
def test_samples_that_are_not_whole_are_refused(tmp_path, members, message):
    write_longgrit(tmp_path, [draw_scene(1, 2)])
    (tmp_path / SHARD).write_bytes(tar_of(*members))
    with pytest.raises(DataError, match=f"shard {SHARD}.*{message}"):
        list(iterate_images(tmp_path, "train"))


def test_a_description_of_two_gigabytes_is_refused_before_it_is_read(tmp_path):
    write_longgrit(tmp_path, [draw_scene(1, 2)])
    size = 2 * 2**30
    with (tmp_path / SHARD).open("wb") as file:  # a hole: no byte of it is on the disk
        file.write(tar_of(info("k.jpg", b"x"))[:1024])
        member = tarfile.TarInfo("k.json")
        member.size = size
        file.write(member.tobuf(tarfile.USTAR_FORMAT))
        file.seek(size + 1024, os.SEEK_CUR)
        file.write(b"\0")
    with pytest.raises(DataError, match=f"sample k: its json has {size} bytes; at most"):
        list(iterate_images(tmp_path, "train"))


def rewrite(manifest: Path, change) -> None:
    table = pq.read_table(manifest)
    pq.write_table(change(table), manifest)


def column(name: str, values):
    return lambda table: table.set_column(
        table.schema.get_field_index(name), name, pa.array(values(table.num_rows))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (column("shard", lambda n: ["../../etc/passwd"] * n), "leads out of the data set"),
        (column("shard", lambda n: ["/etc/passwd"] * n), "leads out of the data set"),
        (column("shard", lambda n: ["train"] * n), "train is no file"),
        (column("shard", lambda n: ["pipe"] * n), "pipe is no file"),
        (column("shard", lambda n: ["train/00000.tar", *[None] * (n - 1)]), "row without a shard"),
        (lambda table: table.drop_columns(["shard"]), "manifest.parquet cannot be read"),
    ],
)
def test_a_manifest_that_leads_astray_is_refused(tmp_path, change, message):
    write_longgrit(tmp_path, [draw_scene(1, 2)])
    os.mkfifo(tmp_path / "pipe")
    rewrite(tmp_path / "manifest.parquet", change)
    with pytest.raises(DataError, match=message):
        list(iterate_images(tmp_path, "train"))


def test_a_manifest_that_is_no_parquet_is_refused_by_name(tmp_path):
    write_longgrit(tmp_path, [draw_scene(1, 2)])
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match=r"manifest\.parquet cannot be read"):
        list(iterate_images(tmp_path, "train"))
