"""A picture that ended a whole run is looked at in a process of its own by the next one."""

import hashlib
import sys

import pytest

from components.core import image_check as isolated
from components.core.image_check import check_image

LIMITS = (50_000_000, 16)


def test_an_innocent_picture_gives_what_it_always_gives(photo, encoded, jpeg):
    for data in (jpeg(1), encoded(photo(2), "PNG"), b"no picture at all"):
        assert isolated.check_in_isolation(data, *LIMITS) == check_image(data, *LIMITS)


@pytest.mark.parametrize(
    "death",
    ["os.kill(os.getpid(), signal.SIGSEGV)", "os.kill(os.getpid(), signal.SIGKILL)", "os.abort()"],
)
def test_a_picture_that_ends_the_process_is_named(jpeg, death):
    command = (sys.executable, "-S", "-c", f"import os, signal; {death}")
    checked, made = isolated.check_in_isolation(jpeg(1), *LIMITS, command=command)
    assert (checked.reason, made) == ("too_costly", b"")


def test_a_picture_that_takes_for_ever_is_named(jpeg, monkeypatch):
    monkeypatch.setattr(isolated, "MAX_WAIT_S", 0.2)
    command = (sys.executable, "-S", "-c", "import time; time.sleep(60)")
    checked, _ = isolated.check_in_isolation(jpeg(1), *LIMITS, command=command)
    assert checked.reason == "too_costly"


def test_only_what_a_dead_run_was_decoding_is_isolated(
    site, ingest_urls, jpeg, tmp_path, monkeypatch
):
    urls = [site.serve(f"/{number}.jpg", jpeg(number)) for number in range(4)]
    folder = tmp_path / "images" / "_work" / "decoding"
    folder.mkdir(parents=True)
    (folder / hashlib.sha256(urls[2].encode()).hexdigest()).touch()
    seen = []

    def isolate(data, *limits):
        seen.append(data)
        return check_image(data, *limits)

    monkeypatch.setattr(isolated, "check_in_isolation", isolate)
    assert ingest_urls(urls).metrics["urls_ok"] == 4
    assert seen == [jpeg(2)]
    assert not list(folder.iterdir())


def test_a_picture_is_marked_while_it_is_decoded(tmp_path):
    with isolated.Suspects(tmp_path).check_for("http://x.test/\ud800") as check:
        assert check is check_image
        assert len(list(tmp_path.iterdir())) == 1
        with isolated.Suspects(tmp_path).check_for("http://x.test/\ud800") as later:
            assert later is isolated.check_in_isolation
    assert not list(tmp_path.iterdir())
