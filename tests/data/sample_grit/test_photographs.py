"""Fetching: resumable, atomic, without root; and what a description calls a photograph."""

import subprocess
from random import Random

import pytest
from PIL import Image

from components.core.errors import InputError
from components.data.sample_grit import photographs
from components.data.sample_grit.catalogue import load_catalogue, noun_phrase
from components.data.sample_grit.photographs import fetch_photographs, main
from components.data.sample_grit.scenes import inner_alpha, lay_out, overlap, place_name


class Archive:
    """Stands for the Debian archive: hands out small packages and counts them."""

    def __init__(self, fails_at=None):
        self.asked, self.fails_at = [], fails_at

    def unpack(self, package, draft, folder):
        self.asked.append(package)
        if package == self.fails_at:
            raise InputError("the network is down")
        root, catalogue = draft / "unpacked", load_catalogue()
        (root / "usr/share/doc" / package).mkdir(parents=True)
        (root / "usr/share/doc" / package / "copyright").write_text("free")
        if package == catalogue.stamps.package:
            stamps = root / catalogue.stamps.folder
            for name in ("animals/birds/owl", "clothes/t_shirt", "symbols/heart"):
                path = stamps / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGBA", (9, 9)).save(path)
                path.with_suffix(".txt").write_text("An owl.\nde.utf8=Eine Eule.\n")
        for pattern in catalogue.backgrounds.get(package, ()):
            path = root / pattern.replace("*", "x")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9)).save(path)
        return root


def test_only_photographs_are_kept_with_one_english_line_and_the_licences(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "unpack", Archive().unpack)
    fetch_photographs(tmp_path / "p")
    stamps = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("stamps/**/*.*"))
    assert stamps == ["p/stamps/animals/birds/owl.png", "p/stamps/animals/birds/owl.txt"]
    assert (tmp_path / "p/stamps/animals/birds/owl.txt").read_text() == "An owl.\n"
    assert len(list((tmp_path / "p/licences").iterdir())) == len(load_catalogue().packages)
    assert list((tmp_path / "p/backgrounds/mate-backgrounds").glob("*.jpg"))
    assert not list((tmp_path / "p").glob(".*"))


def test_a_stopped_fetch_goes_on_where_it_was(tmp_path, monkeypatch):
    packages = list(load_catalogue().packages)
    broken = Archive(fails_at=packages[2])
    monkeypatch.setattr(photographs, "unpack", broken.unpack)
    with pytest.raises(InputError, match="network"):
        fetch_photographs(tmp_path)
    whole = Archive()
    monkeypatch.setattr(photographs, "unpack", whole.unpack)
    fetch_photographs(tmp_path)
    fetch_photographs(tmp_path)
    assert (broken.asked, whole.asked) == (packages[:3], packages[2:])


def test_a_machine_without_apt_is_told_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--into", str(tmp_path / "p")]) == 1
    assert "not a Debian machine (apt-get, dpkg not found)" in capsys.readouterr().err


def test_without_package_lists_private_ones_are_used(tmp_path, monkeypatch):
    commands = []

    def run(command, **options):
        commands.append(" ".join(command))
        is_blind = "download" in command and not any("State::Lists" in part for part in command)
        return subprocess.CompletedProcess(
            command, 100 if is_blind else 0, "", "E: Unable to locate"
        )

    monkeypatch.setattr(photographs.subprocess, "run", run)
    (tmp_path / "draft").mkdir()
    photographs._download("mate-backgrounds", tmp_path / "draft")
    assert [line.split()[-1] for line in commands] == [
        "mate-backgrounds",
        "update",
        "mate-backgrounds",
    ]
    assert all(str(tmp_path / ".apt") in line for line in commands[1:])


@pytest.mark.parametrize(
    ("description", "phrase"),
    [
        ("A red apple.", "a red apple"),
        ("A “Fuji” apple.", "a Fuji apple"),
        ("A mince pie is a traditional Christmas food in the UK.", "a mince pie"),
        ("A spiny lobster, from the Hawaiian islands.", "a spiny lobster"),
        ("An albino peahen (a female peafowl, or peacock).", "an albino peahen"),
        ("Two wild boars.", "two wild boars"),
        ("Eat your broccoli!", ""),
        ("“Hospital”.", ""),
        ("A.", ""),
    ],
)
def test_a_description_becomes_a_noun_phrase_or_nothing(description, phrase):
    assert noun_phrase(description) == phrase


def test_drawings_and_mirrored_copies_are_not_accepted():
    rules = load_catalogue().stamps
    assert rules.accepts("animals/birds/owl")
    assert not rules.accepts("animals/birds/cartoon/tux")
    assert not rules.accepts("symbols/math/plus")
    assert not rules.accepts("clothes/t_shirt")
    assert not rules.accepts("vehicles/construction/dumper_mirror")


def test_a_hard_edge_loses_its_outermost_pixel():
    alpha = Image.new("L", (11, 11), 0)
    alpha.paste(255, (2, 2, 9, 9))
    inner = inner_alpha(alpha)
    assert inner.getpixel((5, 5)) == 255
    assert inner.getpixel((2, 5)) < 128


def test_places_are_inside_apart_and_differently_named():
    for seed in range(30):
        places = lay_out([(150, 120), (200, 90), (60, 230)], 320, 240, Random(seed))
        assert all(p.x >= 0 and p.x + p.width <= 320 and p.bottom <= 240 for p in places)
        assert all(overlap(a, b) <= 0.08 for a in places for b in places if a is not b)
        names = {place_name((p.x + p.width / 2) / 320, (p.y + p.height / 2) / 240) for p in places}
        assert len(names) == 3
