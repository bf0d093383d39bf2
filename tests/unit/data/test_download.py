"""Downloads from a server that breaks off, lies about sizes, ignores ranges, changes files, and is slow, silent or not there."""

from __future__ import annotations

import hashlib
import io
import json
import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from rich.console import Console

from megatron.data.corpora.download import single
from megatron.data.corpora.download import size as size_module
from megatron.data.corpora.download.answers import get_json
from megatron.data.corpora.download.here import verify
from megatron.data.corpora.download.hub import hub_headers, hub_url
from megatron.data.corpora.download.parallel import DownloadSettings, download
from megatron.data.corpora.download.progress import readable_size
from megatron.data.corpora.download.record import Record, RemoteFile, read_record, write_record
from megatron.data.corpora.download.single import Patience
from megatron.errors import DataError
from tests.file_server import Fault, FileServer, Served, behave, drop_after, silence, status

CONTENT = random.Random(1).randbytes(200_000)
OTHER = random.Random(2).randbytes(150_000)
NAME = "part.jsonl"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    server = FileServer()
    server.files[NAME] = Served(CONTENT)
    yield server
    server.close()


@pytest.fixture
def told() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def settings(told: io.StringIO) -> DownloadSettings:
    return DownloadSettings(
        timeout=2.0, patience=Patience(tries=3, first_wait=0.01), console=Console(file=told, width=300)
    )


def remote(server: FileServer, name: str = NAME, *, sha256: str | None = None, size: int | None = None) -> RemoteFile:
    return RemoteFile(name, (server.url(name),), sha256, size)


def begin(directory: Path, record: Record, content: bytes) -> None:
    """Put a partial file there, as a killed process leaves one."""
    directory.mkdir(exist_ok=True)
    (directory / f"{NAME}.partial").write_bytes(content)
    write_record(directory / NAME, record)


def record_of(server: FileServer, *, version: str = 'etag:"one"', validator: str | None = '"one"') -> Record:
    return Record(server.url(NAME), version, validator, len(CONTENT))


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_file_arrives_whole_with_a_record_of_its_origin(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, told: io.StringIO
) -> None:
    (record,) = download([remote(server)], tmp_path / "raw", settings)
    assert (tmp_path / "raw" / NAME).read_bytes() == CONTENT
    assert record == read_record(tmp_path / "raw" / NAME)
    assert (record.url, record.size, record.sha256) == (server.url(NAME), len(CONTENT), SHA256)
    assert names_in(tmp_path / "raw") == {NAME, f"{NAME}.download.json", ".lock"}
    assert "downloading: 200 kB of 200 kB" in told.getvalue()


def test_a_second_call_asks_the_server_for_nothing(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    first = download([remote(server)], tmp_path, settings)
    server.requests.clear()
    assert download([remote(server)], tmp_path, settings) == first
    assert server.requests == []


def test_a_connection_that_breaks_off_is_continued_where_it_broke(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, told: io.StringIO
) -> None:
    server.faults[NAME] = [drop_after(50_000), drop_after(70_000)]
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    first, second, third = server.gets(NAME)
    assert (first.range, second.range, third.range) == (None, "bytes=50000-", "bytes=120000-")
    assert second.headers["if-range"] == third.headers["if-range"] == '"one"'
    assert "trying again" in told.getvalue()


def test_patience_is_counted_from_the_last_progress(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    server.faults[NAME] = [drop_after(20_000) for _ in range(3 * settings.patience.tries)]
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_what_a_killed_process_left_is_continued(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    begin(tmp_path, record_of(server), CONTENT[:90_000])
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [one.range for one in server.gets(NAME)] == ["bytes=90000-"]


def test_a_file_that_was_whole_but_not_renamed_is_not_asked_for_again(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    begin(tmp_path, record_of(server), CONTENT)
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.gets(NAME) == []


@pytest.mark.parametrize("left", [b"x" * 90_000, b"x" * 250_000, b""], ids=["part", "too much", "nothing"])
def test_a_part_without_a_record_is_thrown_away(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / f"{NAME}.partial").write_bytes(left)
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [one.range for one in server.gets(NAME)] == [None]


def test_a_part_longer_than_the_file_is_thrown_away(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    begin(tmp_path, record_of(server), b"x" * 250_000)
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def change_etag(server: FileServer) -> None:
    server.files[NAME] = Served(OTHER, etag='"two"')


def change_date(server: FileServer) -> None:
    server.files[NAME] = Served(OTHER, etag=None, modified=2e9)


def change_weak_etag(server: FileServer) -> None:
    server.files[NAME] = Served(OTHER, etag='W/"two"')


@pytest.mark.parametrize(
    ("version", "validator", "change"),
    [
        ('etag:"one"', '"one"', change_etag),
        ("modified:Fri, 13 Feb 2009 23:31:30 GMT", "Fri, 13 Feb 2009 23:31:30 GMT", change_date),
        ('etag:"one"', None, change_weak_etag),
        ("modified:Fri, 13 Feb 2009 23:31:30 GMT", None, change_etag),
    ],
    ids=["etag and If-Range", "date and If-Range", "weak etag", "no validator"],
)
def test_a_file_that_changed_between_two_calls_is_begun_again(
    server: FileServer,
    settings: DownloadSettings,
    tmp_path: Path,
    version: str,
    validator: str | None,
    change: Callable[[FileServer], None],
) -> None:
    begin(tmp_path, record_of(server, version=version, validator=validator), CONTENT[:90_000])
    change(server)
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == OTHER
    assert server.gets(NAME)[0].headers.get("if-range") == validator


def test_a_file_that_changes_while_it_is_downloaded_is_begun_again(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    def change(handler: BaseHTTPRequestHandler, served: Served) -> bool:
        drop_after(60_000)(handler, served)
        change_etag(server)
        return True

    server.faults[NAME] = [change]
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == OTHER


def test_a_file_that_became_shorter_than_the_part_is_begun_again(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    begin(tmp_path, record_of(server, validator=None), CONTENT[:180_000])
    change_etag(server)
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == OTHER


def test_a_server_without_ranges_gives_the_whole_file_again(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    server.files[NAME].ranges = False
    server.faults[NAME] = [drop_after(50_000), drop_after(199_000)]
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_file_without_a_version_is_never_pieced_together(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    server.files[NAME].etag = None
    server.faults[NAME] = [drop_after(50_000)]
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [one.range for one in server.gets(NAME)] == [None, None]


def part(first: int, end: int) -> Fault:
    """Answer with bytes `first` to `end` whatever was asked for."""

    def answer(handler: BaseHTTPRequestHandler, served: Served) -> bool:
        handler.send_response(206)
        handler.send_header("ETag", '"one"')
        handler.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(CONTENT)}")
        handler.send_header("Content-Length", str(end - first))
        handler.end_headers()
        handler.wfile.write(CONTENT[first:end])
        return True

    return answer


def test_a_server_that_gives_a_part_of_what_was_asked_for_is_asked_for_the_rest(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    begin(tmp_path, record_of(server), CONTENT[:90_000])
    server.faults[NAME] = [part(90_000, 100_000), part(100_000, 150_000)]
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [one.range for one in server.gets(NAME)] == ["bytes=90000-", "bytes=100000-", "bytes=150000-"]


def test_an_answer_with_other_bytes_than_asked_for_is_not_used(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    server.faults[NAME] = [part(10, len(CONTENT))]
    begin(tmp_path, record_of(server), CONTENT[:90_000])
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again_after_the_time_it_names(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, told: io.StringIO, code: int
) -> None:
    server.faults[NAME] = [status(code, Retry_After="1"), status(code)]
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert f"answered {code}" in told.getvalue()
    assert "trying again in 1 s" in told.getvalue()


@pytest.mark.parametrize(
    ("failures", "asked", "least", "most"),
    [(1, None, 0.8, 1.2), (4, None, 6.4, 9.6), (1, 20.0, 20, 20), (20, 1e6, 60, 60)],
)
def test_waits_double_and_follow_the_server_within_a_limit(
    failures: int, asked: float | None, least: float, most: float
) -> None:
    assert least <= Patience().wait(failures, asked) <= most


def test_a_server_that_stays_silent_is_given_up_with_one_sentence(server: FileServer, tmp_path: Path) -> None:
    server.faults[NAME] = [silence(0.5) for _ in range(3)]
    settings = DownloadSettings(timeout=0.1, patience=Patience(tries=2, first_wait=0.01))
    with pytest.raises(
        DataError, match=r"part.jsonl did not answer in time .*, 2 times in a row: run the same command again later"
    ):
        download([remote(server)], tmp_path, settings)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (401, "needs permission"),
        (403, "set HF_TOKEN"),
        (404, "the file is not there"),
        (407, "HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"),
        (451, "Unavailable For Legal Reasons"),
        (503, "3 times in a row"),
    ],
)
def test_an_error_is_one_sentence_with_address_status_and_advice(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, code: int, words: str
) -> None:
    server.faults[NAME] = [status(code) for _ in range(9)]
    with pytest.raises(DataError) as caught:
        download([remote(server)], tmp_path, settings)
    message = str(caught.value)
    assert f"{server.url(NAME)} answered {code} (" in message
    assert words in message
    assert "\n" not in message
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/a.jsonl", "cannot be reached"),
        ("ftp://127.0.0.1/a.jsonl", "must begin with http"),
        ("http://127.0.0.1:port/a.jsonl", "must begin with http"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_sentence(
    settings: DownloadSettings, tmp_path: Path, url: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        download([RemoteFile("a.jsonl", (url,))], tmp_path, settings)


def test_redirects_are_followed_and_circles_told(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    server.files["moved"] = Served(b"", redirect=server.url(NAME))
    server.files["circle"] = Served(b"", redirect=server.url("circle"))
    download([RemoteFile(NAME, (server.url("moved"),))], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    with pytest.raises(DataError, match="circle leads to another address again and again"):
        download([RemoteFile("circle", (server.url("circle"),))], tmp_path, settings)


def test_a_mirror_is_used_when_the_first_address_fails(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    file = RemoteFile(NAME, (server.url("gone"), "http://127.0.0.1:1/x", server.url(NAME)))
    (record,) = download([file], tmp_path, settings)
    assert record.url == server.url(NAME)
    with pytest.raises(DataError) as caught:
        download([RemoteFile("b", (server.url("gone"), server.url("gone2")))], tmp_path, settings)
    assert [line.split(" answered")[0] for line in str(caught.value).splitlines()] == [
        server.url("gone"),
        server.url("gone2"),
    ]


@pytest.mark.parametrize("published", [True, False])
def test_a_mirror_continues_a_part_only_when_the_bytes_are_known_to_be_the_same(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, published: bool
) -> None:
    server.files["mirror"] = Served(CONTENT)
    server.faults[NAME] = [drop_after(50_000), *[status(404)] * 3]
    file = RemoteFile(NAME, (server.url(NAME), server.url("mirror")), SHA256 if published else None)
    download([file], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    ranges = [one.range for one in server.gets("mirror")]
    assert ranges == (["bytes=50000-"] if published else ["bytes=50000-", None])
    assert "if-range" not in server.gets("mirror")[0].headers


def test_a_size_other_than_the_published_one_is_refused(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"has 200,000 bytes instead of the 123 published"):
        download([remote(server, size=123)], tmp_path, settings)
    assert not (tmp_path / NAME).exists()


def test_a_body_shorter_than_its_length_is_never_taken_for_whole(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    server.files[NAME].length = len(CONTENT) + 10
    server.faults[NAME] = [drop_after(len(CONTENT)) for _ in range(9)]
    with pytest.raises(DataError, match="times in a row"):
        download([remote(server)], tmp_path, settings)
    assert not (tmp_path / NAME).exists()


def test_damage_on_the_way_is_found_by_the_published_digest_and_repaired(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    begin(tmp_path, Record(server.url(NAME), f"sha256:{SHA256}", None, len(CONTENT)), b"x" + CONTENT[1:90_000])
    download([remote(server, sha256=SHA256)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [one.range for one in server.gets(NAME)] == ["bytes=90000-", None]


def test_a_whole_part_of_another_version_than_the_published_one_is_begun_again(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    other = hashlib.sha256(OTHER).hexdigest()
    begin(tmp_path, Record(server.url(NAME), f"sha256:{other}", None, len(OTHER)), OTHER)
    download([remote(server, sha256=SHA256)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_file_with_another_digest_than_the_published_one_is_refused(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    wanted = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(DataError, match=f"SHA-256 {SHA256} instead of the {wanted} published, twice"):
        download([remote(server, sha256=wanted)], tmp_path, settings)
    assert not (tmp_path / NAME).exists()
    assert len(server.gets(NAME)) == 2


def test_the_digest_the_hub_gives_with_its_redirect_is_checked(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    server.files["resolve"] = Served(b"", redirect=server.url(NAME), headers={"X-Linked-Etag": f'"{"0" * 64}"'})
    with pytest.raises(DataError, match=f"instead of the {'0' * 64} published"):
        download([RemoteFile(NAME, (server.url("resolve"),))], tmp_path, settings)
    server.files["resolve"].headers["X-Linked-Etag"] = f'"{SHA256}"'
    (record,) = download([RemoteFile(NAME, (server.url("resolve"),))], tmp_path, settings)
    assert record.version == f"sha256:{SHA256}"


def test_changed_and_damaged_files_are_told_by_the_recorded_digest(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    files = [remote(server)]
    download(files, tmp_path, settings)
    verify(files, tmp_path)
    (tmp_path / NAME).write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(DataError, match=r"part.jsonl has other bytes than those that were downloaded"):
        verify(files, tmp_path)
    (tmp_path / NAME).write_bytes(CONTENT[:-1])  # another size is seen without reading
    download(files, tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_file_put_there_by_hand_is_taken_when_it_is_as_published(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    (record,) = download([remote(server, sha256=SHA256)], tmp_path, settings)
    assert record.sha256 == SHA256
    assert server.requests == []
    server.files["second"] = Served(CONTENT)
    for other in (OTHER, b""):
        (tmp_path / "second").write_bytes(other)
        (tmp_path / "second.download.json").unlink(missing_ok=True)
        download([remote(server, "second", sha256=SHA256)], tmp_path, settings)
        assert (tmp_path / "second").read_bytes() == CONTENT


def test_force_downloads_again(server: FileServer, settings: DownloadSettings, tmp_path: Path) -> None:
    download([remote(server)], tmp_path, settings)
    change_etag(server)
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    forced = DownloadSettings(force=True, console=settings.console)
    download([remote(server)], tmp_path, forced)
    assert (tmp_path / NAME).read_bytes() == OTHER


def test_an_empty_file_is_a_file(server: FileServer, settings: DownloadSettings, tmp_path: Path) -> None:
    server.files[NAME] = Served(b"")
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == b""


def test_bytes_are_kept_as_they_are_whatever_they_are_said_to_be(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    server.files["a.jsonl.gz"] = Served(CONTENT, headers={"Content-Encoding": "gzip"})
    download([remote(server, "a.jsonl.gz")], tmp_path, settings)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == CONTENT
    assert server.gets()[0].headers["accept-encoding"] == "identity"
    server.files[NAME].headers["Content-Encoding"] = "gzip"
    with pytest.raises(DataError, match='comes as "gzip", which was not asked for'):
        download([remote(server)], tmp_path, settings)


def test_several_files_come_at_the_same_time(server: FileServer, tmp_path: Path) -> None:
    together = threading.Barrier(3, timeout=5)

    def meet(handler: BaseHTTPRequestHandler, served: Served) -> bool:
        together.wait()  # raises, and the download fails, unless three requests are under way at once
        return False

    files = []
    for i in range(7):
        server.files[f"{i}.jsonl"] = Served(CONTENT[i:])
        server.faults[f"{i}.jsonl"] = [meet] if i < 3 else [behave]
        files.append(remote(server, f"{i}.jsonl"))
    download(files, tmp_path, DownloadSettings(connections=3))
    assert [(tmp_path / file.name).read_bytes() for file in files] == [CONTENT[i:] for i in range(7)]


def test_one_file_that_cannot_be_had_stops_the_others_and_keeps_them(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    server.files["slow"] = Served(CONTENT, bytes_a_second=100_000)
    with pytest.raises(DataError, match="gone answered 404"):
        download([remote(server, "slow"), remote(server, "gone")], tmp_path, settings)
    assert not (tmp_path / "slow").exists()
    server.files["slow"].bytes_a_second = None
    download([remote(server, "slow")], tmp_path, settings)
    assert (tmp_path / "slow").read_bytes() == CONTENT


def test_ctrl_c_keeps_what_has_arrived(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[NAME].bytes_a_second = 200_000
    joins = threading.Thread.join

    def interrupt(thread: threading.Thread, timeout: float | None = None) -> None:
        joins(thread, timeout)
        if timeout == 0.2 and (tmp_path / f"{NAME}.partial").exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            download([remote(server)], tmp_path, settings)
    kept = (tmp_path / f"{NAME}.partial").stat().st_size
    assert 0 < kept < len(CONTENT)
    assert "the same command continues" in told.getvalue()
    server.files[NAME].bytes_a_second = None
    server.requests.clear()
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [one.range for one in server.gets(NAME)] == [f"bytes={kept}-"]


def test_a_disk_that_is_too_small_is_told_before_anything_is_downloaded(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = size_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(size_module.shutil, "disk_usage", lambda _: usage._replace(free=150_000))
    with pytest.raises(DataError, match=r"200 kB are to be downloaded into .*, where 150 kB are free: make room"):
        download([remote(server)], tmp_path, settings)
    assert server.gets() == []
    begin(tmp_path, record_of(server), CONTENT[:90_000])  # then there is room for the rest
    download([remote(server)], tmp_path, settings)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_disk_that_fills_up_is_one_sentence(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / NAME))

    monkeypatch.setattr(single.FileDownload, "_append", full)
    with pytest.raises(DataError, match=r"part.jsonl cannot be written: No space left on device"):
        download([remote(server)], tmp_path, settings)


def test_the_size_of_many_files_is_estimated_from_some(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, told: io.StringIO
) -> None:
    for i in range(40):
        server.files[f"{i}"] = Served(CONTENT[:1000])
    download([remote(server, f"{i}") for i in range(40)], tmp_path, settings)
    assert sum(one.method == "HEAD" for one in server.requests) <= size_module.SAMPLED
    assert "downloading 40 of 40 files: 40 kB of 40 kB" in told.getvalue()


def test_the_size_the_hub_gives_with_its_redirect_is_believed(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its store answers no HEAD."""
    server.files["resolve"] = Served(b"", redirect=server.url("absent"), headers={"X-Linked-Size": "5000000000000000"})
    with pytest.raises(DataError, match="5,000 TB are to be downloaded"):
        download([RemoteFile(NAME, (server.url("resolve"),))], tmp_path, settings)


def test_two_processes_do_not_write_the_same_file(
    server: FileServer, settings: DownloadSettings, tmp_path: Path
) -> None:
    server.files[NAME].bytes_a_second = 400_000
    threads = [threading.Thread(target=download, args=([remote(server)], tmp_path, settings)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert len(server.gets(NAME)) == 1


def test_a_proxy_of_the_environment_is_used(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["http://data.example/a.jsonl"] = Served(CONTENT)
    monkeypatch.setenv("HTTP_PROXY", server.address)
    download([RemoteFile("a.jsonl", ("http://data.example/a.jsonl",))], tmp_path, settings)
    assert (tmp_path / "a.jsonl").read_bytes() == CONTENT
    monkeypatch.setenv("HTTP_PROXY", "http://name:secret@127.0.0.1:1")
    with pytest.raises(DataError) as caught:
        download([RemoteFile("b.jsonl", ("http://data.example/b.jsonl",))], tmp_path, settings)
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_hub_s_token_goes_to_the_hub_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert hub_headers("https://huggingface.co/datasets/a/b") == {"Authorization": "Bearer hf_secret"}
    assert hub_headers("https://huggingface.co.example/datasets/a/b") == {}
    assert hub_headers("https://example.com/https://huggingface.co/") == {}
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert hub_url("https://huggingface.co/datasets/a") == "https://mirror.example/datasets/a"
    assert hub_url("https://example.com/a") == "https://example.com/a"


def test_a_token_does_not_follow_a_redirect_to_another_host(
    server: FileServer, settings: DownloadSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileServer()
    try:
        store.files[NAME] = Served(CONTENT)
        server.files["resolve"] = Served(b"", redirect=store.url(NAME))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        download([RemoteFile(NAME, ("https://huggingface.co/resolve",))], tmp_path, settings)
        assert server.gets("resolve")[0].headers["authorization"] == "Bearer hf_secret"
        assert "authorization" not in store.gets(NAME)[0].headers
    finally:
        store.close()


def test_answers_in_json_are_retried_and_paged(server: FileServer, settings: DownloadSettings) -> None:
    server.files["list"] = Served(json.dumps([1]).encode(), headers={"Link": f'<{server.url("next")}>; rel="next"'})
    server.faults["list"] = [status(503), drop_after(1)]
    assert get_json(server.url("list"), settings) == ([1], server.url("next"))
    server.files["text"] = Served(b"<html>")
    with pytest.raises(DataError, match="text answered with something else than JSON"):
        get_json(server.url("text"), settings)
    with pytest.raises(DataError, match="nothing answered 404"):
        get_json(server.url("nothing"), settings)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (36_445_475, "36.4 MB"), (305 * 10**9, "305 GB"), (13 * 10**12, "13 TB")],
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert readable_size(count) == text


def test_progress_on_a_terminal_is_a_bar(server: FileServer, tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    download([remote(server)], tmp_path, DownloadSettings(console=console))
    assert "200.0/200.0 kB" in screen.getvalue()
