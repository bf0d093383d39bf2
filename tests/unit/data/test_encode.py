"""Encoding: documents to indexed datasets, the same for any number of workers, and nothing half written after an error."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron.data.documents import chunk_texts, read_chunks
from megatron.data.encode import encode_jsonl, encode_texts
from megatron.data.encode_progress import EncodeProgress, LineProgress
from megatron.data.encode_worker import EncodeRecipe
from megatron.data.indexed_dataset import IndexedDataset
from megatron.errors import DataError, MissingRequirement
from megatron.tokenizer.base import TokenizerSettings

CHARACTERS = TokenizerSettings("CharLevelTokenizer")
REPOSITORY = Path(__file__).resolve().parents[3]


def write_lines(path: Path, *records: object) -> Path:
    """A file of JSON lines."""
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def texts_of(prefix: Path) -> list[str]:
    """The documents of a dataset of characters."""
    dataset = IndexedDataset(prefix)
    return [bytes(dataset[i].astype("u1")).decode() for i in range(len(dataset))]


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_oracles_files_come_out_to_the_byte(oracle: Path, tmp_path: Path, workers: int) -> None:
    tokenizer = TokenizerSettings("HFTokenizer", str(oracle / "data" / "tok" / "small1k.json"))
    (dataset,) = encode_jsonl(
        [oracle / "data" / "raw" / "docs_a.jsonl"],
        EncodeRecipe(tokenizer, append_eod=True),
        output_prefix=tmp_path / "a",
        workers=workers,
    )
    expected = oracle / "data" / "bin" / "a_small1k_eod_text_document"
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"a_text_document{suffix}").read_bytes() == expected.with_suffix(suffix).read_bytes()
    assert dataset.documents == len(IndexedDataset(expected))


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    texts = [f"document {i} " * (i * 37 % 400) for i in range(1500)]
    write_lines(tmp_path / "a.jsonl", *({"text": text} for text in texts))
    assert sum(1 for _ in read_chunks([tmp_path / "a.jsonl"])) > 10
    outputs = []
    for workers in (1, 3):
        prefix = tmp_path / f"with_{workers}"
        encode_jsonl([tmp_path / "a.jsonl"], EncodeRecipe(CHARACTERS), output_prefix=prefix, workers=workers)
        outputs.append([Path(f"{prefix}_text_document{suffix}").read_bytes() for suffix in (".bin", ".idx")])
    assert outputs[0] == outputs[1]
    assert texts_of(tmp_path / "with_3_text_document") == [text for text in texts if text]


def test_documents_in_memory_give_the_same_bytes_as_the_same_documents_in_a_file(tmp_path: Path) -> None:
    texts = ["one", "", "two", "ж"]
    write_lines(tmp_path / "a.jsonl", *({"text": text} for text in texts))
    recipe = EncodeRecipe(CHARACTERS, append_eod=True)
    encode_jsonl([tmp_path / "a.jsonl"], recipe, output_prefix=tmp_path / "file")
    dataset = encode_texts(texts, recipe, origin="a list", output_prefix=tmp_path / "memory")
    assert (dataset.documents, dataset.tokens) == (3, 3 + 3 + 2 + 3)
    for suffix in (".bin", ".idx"):
        file, memory = (tmp_path / f"{name}_text_document{suffix}" for name in ("file", "memory"))
        assert file.read_bytes() == memory.read_bytes()


def test_the_end_of_document_is_appended_on_request_only(tmp_path: Path) -> None:
    for append_eod, expected in ((True, [97, 0]), (False, [97])):
        recipe = EncodeRecipe(CHARACTERS, append_eod=append_eod)
        dataset = encode_texts(["a"], recipe, origin="a list", output_prefix=tmp_path / "x")
        assert IndexedDataset(dataset.prefix)[0].tolist() == expected


def test_files_are_read_in_the_order_given_compressed_or_not(tmp_path: Path) -> None:
    paths = [
        write_lines(tmp_path / "b.jsonl.gz", {"text": "first"}, {"text": "second"}),
        write_lines(tmp_path / "a.json", {"text": "third"}),
    ]
    encode_jsonl(paths, EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x")
    assert texts_of(tmp_path / "x_text_document") == ["first", "second", "third"]


def test_zstandard_is_read_when_its_package_is_there(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    data = b'{"text": "one"}\n{"text": "two"}\n'
    frames = [zstandard.ZstdCompressor().compress(part) for part in (data[:20], data[20:])]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    encode_jsonl([tmp_path / "a.jsonl.zst"], EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x")
    assert texts_of(tmp_path / "x_text_document") == ["one", "two"]


def test_several_keys_give_several_outputs_whose_documents_stay_aligned(tmp_path: Path) -> None:
    records = [{"a": "x", "b": "yy"}, {"a": "", "b": "lost"}, {"a": "z", "b": "w"}]
    write_lines(tmp_path / "in.jsonl", *records)
    progress = EncodeProgress()
    recipe = EncodeRecipe(CHARACTERS, keys=("a", "b"))
    datasets = encode_jsonl([tmp_path / "in.jsonl"], recipe, output_prefix=tmp_path / "x", progress=progress)
    assert [(d.key, d.prefix.name, d.documents, d.tokens) for d in datasets] == [
        ("a", "x_a_document", 2, 2),
        ("b", "x_b_document", 2, 3),
    ]
    assert texts_of(tmp_path / "x_b_document") == ["yy", "w"]
    assert progress.skipped == 1


BAD_LINES = {
    b'{"text": "unfinished': "is not valid JSON",
    b"\xff\xfe{": "is not valid JSON",
    b'["text"]': "holds a list, not an object",
    b'{"body": "x", "id": 1}': r'has no key "text" \(it has "body", "id"\)',
    b'{"text": null}': 'has a null under "text"',
    b'{"text": 5}': 'has a number under "text"',
    b'{"text": "a \\ud800"}': "has the code 0xd800, half of a surrogate pair",
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.items())
def test_a_bad_line_is_named_and_leaves_nothing_behind(line: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "fine"}\n\n' + line + b"\n")
    with pytest.raises(DataError, match=rf"in\.jsonl:3 {message}"):
        encode_jsonl([tmp_path / "in.jsonl"], EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x")
    assert files_in(tmp_path) == {"in.jsonl"}


def test_a_bad_line_in_a_worker_is_named_with_its_line_in_the_file(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "x" * 10000})] * 100
    lines[76] = "{"
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"in\.jsonl:77 is not valid JSON"):
        encode_jsonl([tmp_path / "in.jsonl"], EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x", workers=2)
    assert files_in(tmp_path) == {"in.jsonl"}


def test_an_error_leaves_an_older_dataset_as_it_was(tmp_path: Path) -> None:
    encode_texts(["old"], EncodeRecipe(CHARACTERS), origin="a list", output_prefix=tmp_path / "x")
    with pytest.raises(DataError, match="document 2 of a list has the code 0xdc00"):
        encode_texts(["new", "\udc00"], EncodeRecipe(CHARACTERS), origin="a list", output_prefix=tmp_path / "x")
    assert texts_of(tmp_path / "x_text_document") == ["old"]


def test_inputs_that_do_not_exist_or_are_of_an_unknown_kind_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    with pytest.raises(DataError) as caught:
        encode_jsonl(
            [tmp_path / "absent.jsonl", tmp_path / "a.parquet"], EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x"
        )
    assert "absent.jsonl does not exist" in str(caught.value)
    assert "a.parquet is of an unknown kind" in str(caught.value)


def test_input_without_any_document_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", {"text": ""})
    with pytest.raises(DataError, match="no documents with tokens"):
        encode_jsonl([tmp_path / "in.jsonl"], EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x")
    assert files_in(tmp_path) == {"in.jsonl"}


def test_a_truncated_compressed_file_is_a_data_error(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl.gz", *({"text": os.urandom(50).hex()} for _ in range(100)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"in\.jsonl\.gz cannot be read or decompressed"):
        encode_jsonl([path], EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x")


def test_missing_optional_packages_are_told_with_the_file_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingRequirement, match=r"--ftfy .*requirements-preprocessing\.txt"):
        encode_texts(["a"], EncodeRecipe(CHARACTERS, fix_text=True), origin="a list", output_prefix=tmp_path / "x")
    (tmp_path / "a.jsonl.zst").touch()
    with pytest.raises(MissingRequirement, match=r"a\.jsonl\.zst .*requirements-preprocessing\.txt"):
        encode_jsonl([tmp_path / "a.jsonl.zst"], EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x")
    assert files_in(tmp_path) == {"a.jsonl.zst"}


def test_progress_counts_the_whole_input(tmp_path: Path) -> None:
    from rich.console import Console

    path = write_lines(tmp_path / "in.jsonl", *({"text": "é" * 1000} for _ in range(500)))
    console = Console(record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115 - lives as long as the test
    progress = LineProgress(console, total=path.stat().st_size, log_interval=100)
    encode_jsonl([path], EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x", progress=progress)
    assert (progress.documents, progress.text_bytes) == (500, 500 * 2000)
    assert progress.consumed == path.stat().st_size
    assert console.export_text().startswith("100 %  500 documents")


def test_chunks_of_texts_keep_every_text_and_its_number() -> None:
    chunks = list(chunk_texts(["aa", "b", "cccc", "", "d"], origin="here", chunk_characters=3))
    assert [(chunk.first, chunk.texts) for chunk in chunks] == [(1, ["aa", "b"]), (3, ["cccc"]), (4, ["", "d"])]


ENDLESS = """
import itertools, sys
from pathlib import Path
from megatron.data.encode import encode_texts
from megatron.data.encode_worker import EncodeRecipe
from megatron.tokenizer.base import TokenizerSettings

def texts():
    for i in itertools.count():
        if i == 2000:
            print("started", flush=True)
        yield "word " * 1000

if __name__ == "__main__":
    recipe = EncodeRecipe(TokenizerSettings("CharLevelTokenizer"))
    encode_texts(texts(), recipe, origin="for ever", output_prefix=Path(sys.argv[1]), workers=2)
"""


def test_a_killed_process_leaves_no_dataset_and_no_worker(tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "x")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("*.bin"))
    assert not list(tmp_path.glob("*.idx"))
    deadline = time.monotonic() + 20
    while group_lives(process.pid):
        assert time.monotonic() < deadline, "workers outlive their killed parent"
        time.sleep(0.05)


def group_lives(group: int) -> bool:
    """Whether any process of the group is left, apart from dead ones that wait to be collected."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:
            continue
        if int(process_group) == group and state != "Z":
            return True
    return False


def test_encoding_needs_no_torch_so_that_workers_start_quickly() -> None:
    code = "import megatron.data.corpora.prepare, megatron.data.encode, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
