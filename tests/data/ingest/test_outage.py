"""The network, the disk or the memory fail: nothing is booked as the loss of a URL."""

import errno
import io
import socket

import pytest

from components.core import image_check as check
from components.data.ingest import download
from components.data.ingest.download import SILENT_HOSTS, Outlook
from components.data.ingest.failures import WorldError


class Clock:
    """Moves on by a second whenever it is read."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        self.now_s += 1.0
        return self.now_s


def give_up(outlook, number, reason="timeout", began_s=None):
    began_s = outlook.now_s() if began_s is None else began_s
    outlook.saw_failure(f"http://host{number}.test/a.jpg", reason, began_s)


@pytest.mark.parametrize("reason", ["connection_failed", "dns_failure", "timeout", "tls_error"])
def test_many_silent_hosts_in_a_row_are_suspicious(reason):
    outlook = Outlook(Clock())
    for number in range(SILENT_HOSTS):
        assert not outlook.is_suspicious
        give_up(outlook, number, reason)
    assert outlook.is_suspicious
    assert f"25 hosts in a row gave no answer ({reason})" in str(outlook.error())


@pytest.mark.parametrize("reason", ["http_404", "http_503", "not_an_image", "bad_response"])
def test_any_answer_in_between_shows_that_the_network_is_there(reason):
    outlook = Outlook(Clock())
    for number in range(3 * SILENT_HOSTS):
        give_up(outlook, number, reason if number % 20 == 0 else "timeout")
        assert not outlook.is_suspicious


def test_one_silent_host_is_not_suspicious_however_many_urls_it_has():
    outlook = Outlook(Clock())
    for _ in range(3 * SILENT_HOSTS):
        give_up(outlook, 0)
    assert not outlook.is_suspicious


def test_slow_dead_hosts_that_remain_at_the_end_are_not_suspicious():
    outlook = Outlook(Clock())
    began_s = outlook.now_s()
    outlook.saw_answer("http://alive.test/")
    for number in range(3 * SILENT_HOSTS):
        give_up(outlook, number, began_s=began_s)
    assert not outlook.is_suspicious


class Names:
    """Knows `alive.test` until it is told otherwise, and no other name."""

    def __init__(self):
        self.is_there, self.asked = True, []

    async def addresses(self, host):
        self.asked.append(host)
        if self.is_there and host == "alive.test":
            return ["127.0.0.1"]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def mixed(site, jpeg):
    """One picture whose host lives, then many of hosts that do not."""
    dead = [f"http://dead{number}.test/a.jpg" for number in range(3 * SILENT_HOSTS)]
    site.serve("/a.jpg", jpeg(1))
    return [site.url("/a.jpg", "alive.test"), *dead]


ALIVE = {"allowed_hosts": ["alive.test"], "retries": 0, "concurrency": 1}


def test_dead_hosts_are_no_outage_while_one_that_answered_is_reachable(mixed, ingest_urls, site):
    names = Names()
    first = ingest_urls(mixed, resolver=names, **ALIVE)
    assert (first.metrics["urls_ok"], first.metrics["urls_unanswered"]) == (1, 0)
    # A rerun asks for nothing but the dead ones.
    again = ingest_urls(mixed, resolver=names, **ALIVE)
    assert again.rows == first.rows
    assert site.asked["/a.jpg"] == 1


def test_an_outage_in_the_middle_stops_the_step(mixed, ingest_urls):
    names = Names()
    ingest_urls(mixed[:1], resolver=names, **ALIVE)
    names.is_there = False
    with pytest.raises(WorldError, match=r"nor does any that had answered before"):
        ingest_urls(mixed, resolver=names, **ALIVE)
    names.is_there = True
    assert ingest_urls(mixed, resolver=names, **ALIVE).metrics["urls_ok"] == 1


@pytest.mark.parametrize("number", [1, 3])
def test_a_few_names_of_which_none_is_known_may_be_the_name_servers_fault(ingest_urls, number):
    urls = [f"http://dead{host}.test/a.jpg" for host in range(number)]
    assert ingest_urls(urls, resolver=Names()).metrics["urls_unanswered"] == number


def test_a_name_that_leads_inside_shows_that_there_is_a_name_server(ingest_urls):
    urls = ["http://alive.test/a.jpg", "http://dead.test/a.jpg", "http://10.0.0.1/a.jpg"]
    result = ingest_urls(urls, resolver=Names())
    assert [result.reason(url) for url in urls] == [
        "private_address", "dns_failure", "private_address",
    ]  # fmt: skip
    assert result.metrics["urls_unanswered"] == 0


class NoNameServer:
    """What the system says when no name server can be reached."""

    async def addresses(self, host):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def test_no_name_server_stops_the_step_and_a_rerun_asks_everything(ingest_urls, site, jpeg):
    hosts = [f"images{number}.test" for number in range(2 * SILENT_HOSTS)]
    site.serve("/a.jpg", jpeg(1))
    urls = [site.url("/a.jpg", host) for host in hosts]
    settings = {"allowed_hosts": hosts, "retries": 0}
    with pytest.raises(WorldError, match="name servers are out of reach"):
        ingest_urls(urls, resolver=NoNameServer(), **settings)

    class Back:
        async def addresses(self, host):
            return ["127.0.0.1"]

    assert ingest_urls(urls, resolver=Back(), **settings).metrics["urls_ok"] == len(urls)


def test_too_little_memory_is_not_booked_as_a_broken_picture(ingest_urls, site, jpeg, monkeypatch):
    url = site.serve("/a.jpg", jpeg(1))

    def too_little(*_):
        raise MemoryError

    with monkeypatch.context() as short:
        short.setattr(check, "read_image", too_little)
        result = ingest_urls([url])
    assert result.reason(url) == "out_of_memory"
    assert result.metrics["urls_unanswered"] == 1
    assert ingest_urls([url]).reason(url) == ""


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC, errno.EIO])
def test_a_fault_of_this_machine_stops_the_step_with_its_reason(
    ingest_urls, site, jpeg, monkeypatch, code
):
    urls = [site.serve(f"/{number}.jpg", jpeg(number)) for number in range(3)]

    def fails(*_, **__):
        raise OSError(code, "No space left, or so")

    with monkeypatch.context() as broken:
        broken.setattr("components.data.ingest.web.Body", fails)
        with pytest.raises(WorldError, match=r"No space left, or so.*start it again"):
            ingest_urls(urls)
    assert ingest_urls(urls).metrics["urls_ok"] == 3


def test_no_file_handles_left_is_no_failed_connection(ingest_urls, site, jpeg, monkeypatch):
    url = site.serve("/a.jpg", jpeg(1))

    def no_handles(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as full:
        full.setattr(download.AddressGuard, "open_socket", no_handles)
        with pytest.raises(WorldError, match="Too many open files"):
            ingest_urls([url])
    assert ingest_urls([url]).reason(url) == ""


def test_a_disk_that_is_full_for_several_at_once_is_told_in_one_line(
    ingest_urls, site, jpeg, monkeypatch
):
    """A mark of what is being decoded takes a file, which may be the one too many."""
    urls = [site.serve(f"/{number}.jpg", jpeg(number)) for number in range(8)]

    def full(path, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as broken:
        broken.setattr("pathlib.Path.touch", full)
        with pytest.raises(WorldError, match=r"No space left on device \(.*decoding.*start"):
            ingest_urls(urls)
    assert ingest_urls(urls).metrics["urls_ok"] == 8


def test_a_full_folder_for_temporary_files_is_named(ingest_urls, site, jpeg, monkeypatch):
    url = site.serve("/a.jpg", jpeg(1))

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("components.data.ingest.body.SpooledTemporaryFile", lambda _: Full())
    with pytest.raises(WorldError, match=r"temporary file in /.*No space left"):
        ingest_urls([url])
