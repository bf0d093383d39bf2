"""Every format gives its documents, in order, and says what is wrong with the others."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron.data.inputs.formats import cut, format_of, read_span
from megatron.data.inputs.records import Fields
from megatron.data.inputs.span import Bad, Document, Meter
from megatron.errors import DataError, MissingRequirement

RECORDS = [{"text": "one\r\ntwo", "meta": {}}, {"text": "ж\u2028\U0001f600"}, {"text": ""}, {"text": "end"}]
TEXTS = ["one\r\ntwo", "ж\u2028\U0001f600", "", "end"]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def zst(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor().compress(data)


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zst,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


def documents(path: Path, *keys: str, piece_bytes: int = 1 << 20) -> list[Document]:
    """Everything in a file, read span by span; the meter ends at the size of each."""
    found = list[Document]()
    for span in cut(str(path), path.stat().st_size, piece_bytes):
        meter = Meter()
        found += read_span(span, Fields(keys or ("text",)), meter)
        assert meter.consumed == span.size
    return found


def texts(path: Path, **options: int) -> list[str]:
    """The texts of a file in which nothing is bad."""
    found = documents(path, **options)
    assert not [one for one in found if isinstance(one, Bad)]
    return [one[0] for one in found if not isinstance(one, Bad)]


def dat(*texts: str) -> bytes:
    return b"".join(b"%016d" % len(data) + data for data in (text.encode() for text in texts))


def tar(members: dict[str, bytes], path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json"])
def test_json_lines(suffix: str, compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}{compression}"
    path.write_bytes(COMPRESSIONS[compression](LINES))
    assert texts(path) == TEXTS


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_json_array(compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.json{compression}"
    path.write_bytes(COMPRESSIONS[compression](b" \n" + json.dumps([*RECORDS, "a naked text"], indent=1).encode()))
    assert texts(path) == [*TEXTS, "a naked text"]


def test_a_json_array_larger_than_what_is_read_at_a_time(tmp_path: Path) -> None:
    large = ["é" * 700_000, *(f"{i} " * (i % 90) for i in range(3000)), "𝄞" * 90_000]
    (tmp_path / "a.json").write_text(json.dumps([{"text": text} for text in large], ensure_ascii=False))
    assert texts(tmp_path / "a.json") == large


def test_an_empty_array_has_no_documents_and_a_broken_one_says_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[ ]")
    assert texts(tmp_path / "a.json") == []
    (tmp_path / "a.json").write_text('[{"text": "fine"}, 7, {"text": ')
    fine, number, broken = documents(tmp_path / "a.json")
    assert fine == ("fine",)
    assert isinstance(number, Bad)
    assert number.describe() == f'document 2 of {tmp_path}/a.json holds a number, not an object with the key "text".'
    assert isinstance(broken, Bad)
    assert "a.json is not a valid JSON array" in broken.describe()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_plain_text_is_one_document_with_line_feeds(compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.txt{compression}"
    path.write_bytes(COMPRESSIONS[compression]("a\r\nж\rb\n".encode()))
    assert texts(path) == ["a\nж\nb\n"]


@pytest.mark.parametrize("compression", ["", ".zst", ".gz"])
def test_lm_dataformats_dat_archives(compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"data_0_default.dat{compression}"
    path.write_bytes(COMPRESSIONS[compression](dat(*TEXTS)))
    assert texts(path) == TEXTS


def test_tar_and_zip_archives_read_members_by_their_names(tmp_path: Path) -> None:
    members = {
        "a.txt": b"plain",
        "readme": "ж".encode(),
        "in/lines.jsonl": LINES,
        "in/lines.jsonl.gz": gzip.compress(LINES),
        "in/a.dat": dat("x"),
    }
    expected = ["plain", "ж", *TEXTS, *TEXTS, "x"]
    tar(members, tmp_path / "a.tar")
    data = (tmp_path / "a.tar").read_bytes()
    for name, compressed in (
        ("b.tar.gz", gzip.compress(data)),
        ("c.tgz", gzip.compress(data)),
        ("d.tar.xz", lzma.compress(data)),
    ):
        (tmp_path / name).write_bytes(compressed)
    with zipfile.ZipFile(tmp_path / "e.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("in")
        for name, member in members.items():
            archive.writestr(name, member)
    tar({"x.tar": data}, tmp_path / "f.tar")
    for path in sorted(tmp_path.iterdir()):
        assert texts(path) == expected, path.name


def test_lm_dataformats_jsonl_zst_tar_and_openwebtexts_nested_tar(tmp_path: Path) -> None:
    tar({"data_0.jsonl.zst": zst(LINES), "data_1.jsonl.zst": zst(LINES)}, tmp_path / "a.jsonl.zst.tar")
    assert texts(tmp_path / "a.jsonl.zst.tar") == TEXTS * 2
    tar({"0001.txt": b"one", "0002.txt": b"two"}, tmp_path / "inner.tar")
    inner = lzma.compress((tmp_path / "inner.tar").read_bytes())
    (tmp_path / "urlsf_subset00-1_data.xz").write_bytes(inner)
    assert texts(tmp_path / "urlsf_subset00-1_data.xz") == ["one", "two"]
    tar({"urlsf_subset00-1_data.xz": inner}, tmp_path / "openwebtext.tar")
    assert texts(tmp_path / "openwebtext.tar") == ["one", "two"]


def test_an_archive_that_lm_dataformat_would_write(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "data_0_time1600000000_default.jsonl.zst"
    with open(path, "wb") as file:
        writer = zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False)
        for text in TEXTS:
            writer.write(json.dumps({"text": text, "meta": {"a": 1}}).encode() + b"\n")
        writer.flush(zstandard.FLUSH_FRAME)
    assert texts(path) == TEXTS


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz", ".bz2"])
def test_several_frames_are_read_and_a_file_that_ends_inside_one_is_bad(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    data = LINES * 500
    parts = [COMPRESSIONS[suffix](data[:50]), COMPRESSIONS[suffix](data[50:])]
    path.write_bytes(b"".join(parts))
    assert texts(path) == TEXTS * 500
    path.write_bytes(b"".join(parts)[:-20])
    *_, last = documents(path)
    assert isinstance(last, Bad)
    assert f"a.jsonl{suffix} cannot be read or decompressed to its end" in last.describe()


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 20, 64, 1 << 20])
def test_a_file_of_lines_may_be_cut_anywhere(piece_bytes: int, tmp_path: Path) -> None:
    lines = (
        b'{"text": "a"}\n\n\r\n{"text": "bb"}\r\n{"text": "' + b"c" * 90 + b'"}\n{"text": "no line feed at the end"}'
    )
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines)
    assert texts(path, piece_bytes=piece_bytes) == ["a", "bb", "c" * 90, "no line feed at the end"]


@pytest.mark.parametrize("piece_bytes", [1, 5, 16, 17, 18, 100, 1 << 20])
def test_the_line_of_a_bad_document_is_that_in_the_file_however_it_is_cut(piece_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' * 5 + b"\n{\n" + b'{"text": "fine"}\n' * 3 + b"[]\n7")
    found = documents(path, piece_bytes=piece_bytes)
    assert [one.describe().split(" ")[0] for one in found if isinstance(one, Bad)] == [
        f"{path}:{i}" for i in (7, 11, 12)
    ]
    assert sum(not isinstance(one, Bad) for one in found) == 8


def test_a_line_much_longer_than_the_spans_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    long = "x" * 5_000_000
    path.write_text(
        json.dumps({"text": "before"}) + "\n" + json.dumps({"text": long}) + "\n" + json.dumps({"text": "after"})
    )
    assert texts(path, piece_bytes=4096) == ["before", long, "after"]


BAD_LINES = {
    b'{"text": "unfinished': "is not valid JSON",
    b"\xff\xfe{": "is not valid JSON",
    b'{"text": "\xff"}': "is not valid JSON",
    b'{"text": "a"} {"text": "b"}': "is not valid JSON",
    b"[" * 100_000: "is not valid JSON",
    b'["text"]': "holds a list, not an object",
    b"null": "holds a null, not an object",
    b'{"body": "x", "id": 1}': 'has no key "text" (it has "body", "id")',
    b'{"text": null}': 'has a null under "text"',
    b'{"text": 5}': 'has a number under "text"',
    b'{"text": ["a", 1]}': 'has a list under "text"',
    b'{"text": {"a": "b"}}': 'has a object under "text"',
    b'{"text": "a \\ud800"}': "has the code 0xd800, half of a surrogate pair",
    b'"naked \\udc00"': "has the code 0xdc00, half of a surrogate pair",
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.items())
def test_a_bad_line_says_what_is_wrong_and_the_next_one_is_read(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n' + line + b'\n{"text": "fine, too"}\n')
    first, bad, last = documents(path)
    assert (first, last) == (("fine",), ("fine, too",))
    assert isinstance(bad, Bad)
    assert bad.describe().startswith(f"{path}:3 {message}")


def test_what_orjson_refuses_and_json_reads_is_read(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"text": "byte order mark"}',
        b'{"n": NaN, "text": "not a number"}',
        b'{"n": 1e999, "text": "x"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    assert texts(tmp_path / "a.jsonl") == ["byte order mark", "not a number", "x"]


def test_a_line_may_be_a_text_and_a_text_may_be_a_list_of_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('"naked"\n{"text": ["one", "two"]}\n')
    assert texts(tmp_path / "a.jsonl") == ["naked", "one\n\ntwo"]


def test_several_keys_are_read_together_and_a_missing_one_makes_the_document_bad(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"b": "2", "a": "1"}\n{"a": "1"}\n"naked"\n')
    good, missing, naked = documents(tmp_path / "a.jsonl", "a", "b")
    assert good == ("1", "2")
    assert isinstance(missing, Bad)
    assert 'has no key "b"' in missing.describe()
    assert isinstance(naked, Bad)
    (tmp_path / "a.txt").write_text("x")
    (plain,) = documents(tmp_path / "a.txt", "a", "b")
    assert isinstance(plain, Bad)
    assert "a.txt is plain text, which has no keys, but 2 are asked for" in plain.describe()


def write_parquet(path: Path, row_group_size: int = 4, **columns: list[object]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, row_group_size=row_group_size)


@pytest.mark.parametrize("piece_bytes", [1, 500, 1 << 20])
def test_parquet_is_read_by_row_groups(piece_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    expected = [f"{i} ж" for i in range(1023)]
    write_parquet(path, text=expected, id=list(range(1023)), row_group_size=100)
    assert texts(path, piece_bytes=piece_bytes) == expected
    assert len(list(cut(str(path), path.stat().st_size, 1))) == 11
    assert sum(span.size for span in cut(str(path), path.stat().st_size, 1)) == path.stat().st_size


def test_parquet_rows_that_are_not_texts_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, text=["a", "b", "c", "d", "e", None], more=["1", None, "3", "4", "5", "6"])
    found = documents(path, "text", piece_bytes=1)
    assert found[:5] == [("a",), ("b",), ("c",), ("d",), ("e",)]
    assert isinstance(found[5], Bad)
    assert found[5].describe() == f'row 6 of {path} has a null under "text", where a text is needed.'
    assert [isinstance(one, Bad) for one in documents(path, "text", "more")] == [False, True, False, False, False, True]
    with pytest.raises(DataError, match=r"has no column body \(it has text, more\)"):
        documents(path, "body")


def test_files_that_are_not_what_their_name_says_are_bad(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for name in ("a.parquet", "a.jsonl.gz", "a.jsonl.zst", "a.txt.xz", "a.txt.bz2", "a.zip", "a.tar", "a.dat", "a.txt"):
        path = tmp_path / name
        path.write_bytes(b"\xff\x00 not it" * 100)
        (bad,) = documents(path)
        assert isinstance(bad, Bad), name
        assert name in bad.describe()


def test_an_archive_that_ends_early_is_bad_after_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(dat("one", "two")[:-1])
    first, bad = documents(tmp_path / "a.dat")
    assert first == ("one",)
    assert isinstance(bad, Bad)
    tar({"a.txt": b"x" * 2000, "b.txt": b"y" * 2000}, tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:4000])
    first, bad = documents(tmp_path / "a.tar")
    assert first == ("x" * 2000,)
    assert isinstance(bad, Bad)


def test_packages_that_are_missing_are_told_with_the_file_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, package in (("a.jsonl.zst", "zstandard"), ("a.parquet", "pyarrow")):
        (tmp_path / name).write_bytes(b"x")
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingRequirement, match=rf"{name} .*{package}.*requirements-preprocessing\.txt"):
            documents(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "b.tgz", "x_data.xz", "a.jsonl.zst.tar", "a.b.parquet"])
def test_names_that_are_known(name: str) -> None:
    assert format_of(name) is not None


@pytest.mark.parametrize(
    "name", ["a", "a.csv", "a.parquet.gz", "a.gz", "jsonl", "current_chunk_incomplete", "a.partial"]
)
def test_names_that_are_not_known(name: str) -> None:
    assert format_of(name) is None


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt", "a.jsonl.gz", "a.zip"])
def test_an_empty_file_has_no_documents(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert documents(tmp_path / name) == []
