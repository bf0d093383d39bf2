"""Encoding files: the same bytes for any number of workers, however the input is cut, and after any number of kills."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from megatron.data.encoding import assembly
from megatron.data.encoding.files import EncodedFiles, encode_files
from megatron.data.encoding.progress import EncodeProgress, LineProgress
from megatron.data.encoding.shard import LISTED, OnError
from megatron.data.encoding.texts import encode_texts
from megatron.data.encoding.work import WorkDirectory, is_unfinished
from megatron.data.encoding.worker import Counts, EncodeRecipe
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.inputs import pieces
from megatron.errors import DataError
from megatron.tokenizer.base import TokenizerSettings
from tests.unit.data.encoding.test_texts import CHARACTERS, REPOSITORY, group_lives, texts_of

RECIPE = EncodeRecipe(CHARACTERS, append_eod=True)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs of some kilobytes are cut, too."""
    monkeypatch.setattr(pieces, "SMALLEST_PIECE", 1000)


def write_lines(path: Path, *records: object) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def many(count: int = 1500) -> list[str]:
    return [f"document {i} é " * (i * 37 % 40) for i in range(count)]


def bytes_of(prefix: Path, key: str = "text") -> tuple[bytes, bytes]:
    """The `.bin` and the `.idx`."""
    name = f"{prefix}_{key}_document"
    return Path(name + ".bin").read_bytes(), Path(name + ".idx").read_bytes()


def test_a_key_that_cannot_be_in_a_file_name_is_told(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"a/b": "text"})
    with pytest.raises(DataError, match='--jsonl-keys has "a/b", but files are named by keys'):
        encode_files([path], EncodeRecipe(CHARACTERS, keys=("a/b",)), output_prefix=tmp_path / "x")
    assert [each.name for each in tmp_path.iterdir()] == ["a.jsonl"]


def test_no_more_workers_are_started_than_there_are_pieces(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"text": "one piece"})
    assert encode_files([path], RECIPE, output_prefix=tmp_path / "x", workers=10**6).counts.documents == 1


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_oracles_files_come_out_to_the_byte(oracle: Path, tmp_path: Path, workers: int) -> None:
    tokenizer = TokenizerSettings("HFTokenizer", str(oracle / "data" / "tok" / "small1k.json"))
    encode_files(
        [oracle / "data" / "raw" / "docs_a.jsonl"],
        EncodeRecipe(tokenizer, append_eod=True),
        output_prefix=tmp_path / "a",
        workers=workers,
    )
    expected = oracle / "data" / "bin" / "a_small1k_eod_text_document"
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"a_text_document{suffix}").read_bytes() == expected.with_suffix(suffix).read_bytes()
    assert files_in(tmp_path) == {f"a_text_document.{suffix}" for suffix in ("bin", "idx", "sources.json")}


def test_the_bytes_are_those_of_the_same_texts_in_memory(small_pieces: None, tmp_path: Path) -> None:
    texts = many()
    encode_texts(texts, RECIPE, origin="a list", output_prefix=tmp_path / "memory")
    half = len(texts) // 2
    paths = [
        write_lines(tmp_path / "a.jsonl", *({"text": text} for text in texts[:half])),
        write_lines(tmp_path / "b.jsonl", *({"text": text} for text in texts[half:])),
    ]
    for workers in (1, 2, 3):
        encoded = encode_files(paths, RECIPE, output_prefix=tmp_path / "files", workers=workers)
        assert bytes_of(tmp_path / "files") == bytes_of(tmp_path / "memory")
        assert encoded.datasets[0].documents == sum(map(bool, texts))
        assert encoded.counts.skipped == sum(not text for text in texts)


def test_many_small_files_share_pieces_and_keep_their_order(small_pieces: None, tmp_path: Path) -> None:
    directory = tmp_path / "in"
    directory.mkdir()
    texts = [f"{i}." * 20 for i in range(300)]
    for i, text in enumerate(texts):
        (directory / f"{i:04d}.txt").write_text(text)
    paths = sorted(directory.iterdir())
    encode_files(paths, EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x", workers=2)
    assert texts_of(tmp_path / "x_text_document") == texts


def test_a_long_index_is_written_in_parts(monkeypatch: pytest.MonkeyPatch, small_pieces: None, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", *({"text": text} for text in many()))
    encode_files([path], RECIPE, output_prefix=tmp_path / "whole")
    monkeypatch.setattr(assembly, "SIZES", 7)
    monkeypatch.setattr(assembly, "FLUSH_BYTES", 100)
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    encode_files([path], RECIPE, output_prefix=tmp_path / "parts")
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")


def test_several_keys_give_several_outputs_whose_documents_stay_aligned(small_pieces: None, tmp_path: Path) -> None:
    records = [{"a": f"a{i}", "b": f"b{i}" if i % 7 else "", "c": 1} for i in range(200)]
    records[11] = {"a": "alone"}
    path = write_lines(tmp_path / "in.jsonl", *records)
    recipe = EncodeRecipe(CHARACTERS, keys=("a", "b"))
    with pytest.raises(DataError, match=r'in\.jsonl:12 has no key "b" \(it has "a"\)'):
        encode_files([path], recipe, output_prefix=tmp_path / "x", workers=2)
    encoded = encode_files([path], recipe, output_prefix=tmp_path / "x", workers=2, on_error="skip")
    kept = [i for i in range(200) if i % 7 and i != 11]
    assert [(d.key, d.prefix.name, d.documents) for d in encoded.datasets] == [
        ("a", "x_a_document", len(kept)),
        ("b", "x_b_document", len(kept)),
    ]
    assert texts_of(tmp_path / "x_a_document") == [f"a{i}" for i in kept]
    assert texts_of(tmp_path / "x_b_document") == [f"b{i}" for i in kept]
    assert (encoded.counts.skipped, encoded.counts.bad) == (29, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_bad_document_ends_the_work_and_leaves_nothing(workers: int, tmp_path: Path) -> None:
    lines = [json.dumps({"text": "x" * 100})] * 400
    lines[76] = lines[311] = "{"
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"in\.jsonl:77 is not valid JSON"):
        encode_files([tmp_path / "in.jsonl"], RECIPE, output_prefix=tmp_path / "x", workers=workers)
    assert files_in(tmp_path) == {"in.jsonl"}


@pytest.mark.parametrize("workers", [1, 3])
def test_skipped_documents_are_counted_and_the_first_are_listed(
    workers: int, small_pieces: None, tmp_path: Path
) -> None:
    good, bad = json.dumps({"text": "x" * 100}), '{"text": 1}'
    lines = [bad if i % 5 == 0 else good for i in range(400)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    recipe = EncodeRecipe(CHARACTERS)
    encoded = encode_files(
        [tmp_path / "in.jsonl"], recipe, output_prefix=tmp_path / "x", workers=workers, on_error="skip"
    )
    assert (encoded.counts.documents, encoded.counts.bad, len(encoded.bad)) == (320, 80, LISTED)
    expected = [
        f'{tmp_path}/in.jsonl:{1 + 5 * i} has a number under "text", where a text is needed.' for i in range(LISTED)
    ]
    assert list(encoded.bad) == expected


def test_a_damaged_file_ends_the_work_or_is_left_where_it_is_damaged(tmp_path: Path) -> None:
    data = gzip.compress(b"".join(b'{"text": "%s"}\n' % random.randbytes(50).hex().encode() for _ in range(9000)))
    (tmp_path / "a.jsonl.gz").write_bytes(data[:-20])
    write_lines(tmp_path / "b.jsonl", {"text": "last"})
    paths = [tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl"]
    with pytest.raises(DataError, match=r"a\.jsonl\.gz cannot be read or decompressed"):
        encode_files(paths, EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x")
    encoded = encode_files(paths, EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x", on_error="skip")
    assert encoded.counts.bad == 1
    texts = texts_of(tmp_path / "x_text_document")
    assert 1000 < len(texts) < 9000
    assert texts[-1] == "last"


@pytest.mark.parametrize("contents", ["", "\n\n", '{"text": ""}\n', "{\n"])
def test_input_without_any_document_is_refused(contents: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(contents)
    with pytest.raises(DataError, match="no documents with tokens"):
        encode_files([tmp_path / "in.jsonl"], RECIPE, output_prefix=tmp_path / "x", on_error="skip")
    assert files_in(tmp_path) == {"in.jsonl"}


def test_an_error_leaves_an_older_dataset_as_it_was(tmp_path: Path) -> None:
    encode_texts(["old"], EncodeRecipe(CHARACTERS), origin="a list", output_prefix=tmp_path / "x")
    path = write_lines(tmp_path / "in.jsonl", {"text": "new"}, {"text": 1})
    with pytest.raises(DataError):
        encode_files([path], RECIPE, output_prefix=tmp_path / "x")
    assert texts_of(tmp_path / "x_text_document") == ["old"]


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_counts_the_whole_input(workers: int, small_pieces: None, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", *({"text": "é" * 1000} for _ in range(500)), {"text": ""})
    console = Console(record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115 - lives as long as the test
    progress = LineProgress(console, total=path.stat().st_size)
    encode_files([path], RECIPE, output_prefix=tmp_path / "x", progress=progress, workers=workers)
    assert (progress.counts.documents, progress.counts.skipped, progress.text_bytes) == (500, 1, 500 * 2000)
    assert progress.counts.consumed == path.stat().st_size
    assert console.export_text().startswith("100 %  500 documents")
    by_documents = EncodeProgress(total=path.stat().st_size, total_documents=1000)
    encode_files([path], RECIPE, output_prefix=tmp_path / "x", progress=by_documents)
    assert (by_documents.done, by_documents.total) == (501, 1000)


class Interrupted(Exception):
    """Raised by a test's progress, in the middle of the work."""


def interrupted_after(documents: int) -> EncodeProgress:
    """A progress that ends the work after so many documents."""

    class Ending(EncodeProgress):
        def advance(self, counts: Counts) -> None:
            super().advance(counts)
            if self.counts.documents >= documents:
                raise Interrupted

    return Ending()


def encode(
    path: Path, prefix: Path, recipe: EncodeRecipe = RECIPE, on_error: OnError = "fail", **options: object
) -> EncodedFiles:
    return encode_files([path], recipe, output_prefix=prefix, on_error=on_error, **options)  # type: ignore[arg-type]


@pytest.fixture
def unfinished(small_pieces: None, tmp_path: Path) -> Path:
    """The input of an encoding whose output `x` is half done."""
    path = write_lines(tmp_path / "in.jsonl", *({"text": text} for text in many()))
    encode(path, tmp_path / "whole")
    with pytest.raises(Interrupted):
        encode(path, tmp_path / "x", progress=interrupted_after(700))
    assert is_unfinished(tmp_path / "x")
    assert not list(tmp_path.glob("x_*"))
    return path


@pytest.mark.parametrize("workers", [1, 3])
def test_resume_encodes_only_what_is_left(workers: int, unfinished: Path, tmp_path: Path) -> None:
    finished = len(list((tmp_path / "x.partial").glob("*/[0-9]*.json")))
    progress = EncodeProgress()
    encoded = encode(unfinished, tmp_path / "x", resume=True, progress=progress, workers=workers)
    assert finished > 1
    assert progress._earlier.documents > 200
    assert progress.counts.consumed == unfinished.stat().st_size
    assert encoded.datasets[0].documents == progress.counts.documents
    assert bytes_of(tmp_path / "x") == bytes_of(tmp_path / "whole")
    assert not is_unfinished(tmp_path / "x")


def test_without_resume_everything_is_done_again(unfinished: Path, tmp_path: Path) -> None:
    progress = EncodeProgress()
    encode(unfinished, tmp_path / "x", progress=progress)
    assert progress._earlier.documents == 0
    assert bytes_of(tmp_path / "x") == bytes_of(tmp_path / "whole")


def test_resume_where_nothing_is_unfinished_is_an_ordinary_run(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", {"text": "a"})
    for _ in range(2):
        encode(path, tmp_path / "x", resume=True)
        assert texts_of(tmp_path / "x_text_document") == ["a\0"]


def changed_size(path: Path, prefix: Path) -> None:
    with open(path, "a") as file:
        file.write("\n")
    encode(path, prefix, resume=True)


def changed_time(path: Path, prefix: Path) -> None:
    os.utime(path, ns=(0, 0))
    encode(path, prefix, resume=True)


def one_more(path: Path, prefix: Path) -> None:
    other = write_lines(path.with_name("more.jsonl"), {"text": "x"})
    encode_files([path, other], RECIPE, output_prefix=prefix, resume=True)


def another(path: Path, prefix: Path) -> None:
    encode(path.rename(path.with_name("renamed.jsonl")), prefix, resume=True)


CHANGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "size": (changed_size, r"in\.jsonl had [\d,]+ bytes and has [\d,]+"),
    "time": (changed_time, r"in\.jsonl was written to"),
    "one more": (one_more, r"more\.jsonl is a new input"),
    "another": (another, r"in\.jsonl is no longer an input; .*renamed\.jsonl is a new input"),
    "eod": (lambda p, x: encode(p, x, EncodeRecipe(CHARACTERS), resume=True), "--append-eod was True and is False"),
    "keys": (lambda p, x: encode(p, x, EncodeRecipe(CHARACTERS, ("a",), True), resume=True), "--jsonl-keys was"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_resume_with_anything_changed_is_refused_with_what_changed(
    change: str, unfinished: Path, tmp_path: Path
) -> None:
    attempt, message = CHANGES[change]
    with pytest.raises(DataError, match=rf"--resume cannot continue.*{message}"):
        attempt(unfinished, tmp_path / "x")
    assert is_unfinished(tmp_path / "x")


def test_skipping_may_be_turned_on_when_resuming_and_not_off(small_pieces: None, tmp_path: Path) -> None:
    lines = [json.dumps({"text": "x" * 100})] * 200
    lines[150] = "{"
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"in\.jsonl:151 "):
        encode(path, tmp_path / "x")
    encoded = encode(path, tmp_path / "x", resume=True, on_error="skip")
    assert (encoded.counts.documents, encoded.counts.bad) == (199, 1)
    with pytest.raises(Interrupted):
        encode(path, tmp_path / "x", on_error="skip", progress=interrupted_after(180))
    with pytest.raises(DataError, match=r"in\.jsonl:151 "):
        encode(path, tmp_path / "x", resume=True)


def test_a_worker_that_dies_ends_the_work_which_can_be_resumed(small_pieces: None, tmp_path: Path) -> None:
    class Killing(EncodeProgress):
        def advance(self, counts: Counts) -> None:
            super().advance(counts)
            for worker in multiprocessing.active_children():
                worker.kill()

    path = write_lines(tmp_path / "in.jsonl", *({"text": text} for text in many()))
    with pytest.raises(DataError, match=r"a worker process died .* kept for --resume"):
        encode(path, tmp_path / "x", workers=2, progress=Killing())
    encode(path, tmp_path / "x", workers=2, resume=True)
    encode(path, tmp_path / "whole")
    assert bytes_of(tmp_path / "x") == bytes_of(tmp_path / "whole")


def test_a_worker_that_dies_at_once_does_not_block_its_parent(
    monkeypatch: pytest.MonkeyPatch, small_pieces: None, tmp_path: Path
) -> None:
    """It has read nothing of what it was given, which therefore must fit a pipe however long the texts of the sample are."""
    path = write_lines(tmp_path / "texts.jsonl", *({"text": "long " * 2000} for _ in range(40)))
    monkeypatch.setattr("multiprocessing.spawn._python_exe", os.fsencode("/bin/false"))
    with pytest.raises(DataError, match="a worker process died"):
        encode(path, tmp_path / "out", workers=2)


def test_two_runs_cannot_write_the_same_output(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", {"text": "a"})
    with (
        WorkDirectory(tmp_path / "x").opened(),
        pytest.raises(DataError, match="another process is writing this output"),
    ):
        encode(path, tmp_path / "x")


def test_a_file_system_without_locks_serves_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    encode(write_lines(tmp_path / "in.jsonl", {"text": "a"}), tmp_path / "x")
    assert texts_of(tmp_path / "x_text_document") == ["a\0"]


def test_an_output_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", {"text": "a"})
    with pytest.raises(DataError, match=r"in\.jsonl.* cannot be written: Not a directory"):
        encode(path, path / "x")

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DataError, match=r"x\.partial cannot be written: No space left on device"):
        encode(path, tmp_path / "x")
    assert files_in(tmp_path) == {"in.jsonl"}


def test_a_manifest_of_another_version_is_no_manifest(unfinished: Path, tmp_path: Path) -> None:
    for contents in (b"{}", b"[", b'{"recipe": {}, "inputs": []}'):
        (tmp_path / "x.partial" / "manifest.json").write_bytes(contents)
        assert WorkDirectory(tmp_path / "x").manifest() is None


def test_a_shard_that_someone_removed_is_told(unfinished: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "x.partial").glob("*/*.bin"):
        path.unlink()
    with pytest.raises(DataError, match="was changed by something else; run again without --resume"):
        encode(unfinished, tmp_path / "x", resume=True)


@contextlib.contextmanager
def dying_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> Iterator[None]:
    """The process dies before the call number `moment` that changes a file or a directory: nothing is cleaned up."""
    left = [moment]
    names = ["replace", "unlink", "fsync", "ftruncate", "copy_file_range", "rmdir", "open", "mkdir"]
    with monkeypatch.context() as patch:
        for name in names:
            original = getattr(os, name)

            def dying(*arguments: object, original: Callable[..., object] = original, **options: object) -> object:
                left[0] -= 1
                if left[0] == 0:
                    os._exit(77)
                return original(*arguments, **options)

            patch.setattr(os, name, dying)
        yield


def test_death_before_any_change_to_a_file_is_harmless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pieces, "SMALLEST_PIECE", 300)
    records = [{"a": f"a{i}" * 9, "b": f"b{i}" * (i % 5 + 1)} for i in range(30)]
    path = write_lines(tmp_path / "in.jsonl", *records)
    recipe = EncodeRecipe(CHARACTERS, keys=("a", "b"), append_eod=True)
    encode(path, tmp_path / "whole", recipe)
    expected = [bytes_of(tmp_path / "whole", key) for key in ("a", "b")]
    encode_texts(["older"], EncodeRecipe(CHARACTERS, keys=("a",)), origin="a list", output_prefix=tmp_path / "x")
    moment, status = 0, 77
    while status == 77:
        moment += 1
        child = os.fork()
        if child == 0:
            with dying_at(monkeypatch, moment):
                encode(path, tmp_path / "x", recipe, resume=True)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for key in ("a", "b"):  # whoever sees an index sees a whole dataset
            if (tmp_path / f"x_{key}_document.idx").exists():
                assert len(IndexedDataset(tmp_path / f"x_{key}_document")) in (1, 30)
    assert status == 0
    assert moment > 20
    assert [bytes_of(tmp_path / "x", key) for key in ("a", "b")] == expected
    assert not (tmp_path / "x.partial").exists()


SCRIPT = """
import sys
from pathlib import Path
from megatron.data.encoding import pool
from megatron.data.encoding.files import encode_files
from megatron.data.encoding.worker import Counts, EncodeRecipe
from megatron.data.inputs import pieces
from megatron.tokenizer.base import TokenizerSettings

if __name__ == "__main__":
    pieces.SMALLEST_PIECE = 100_000
    recipe = EncodeRecipe(TokenizerSettings("CharLevelTokenizer"), append_eod=True)
    print("begins", flush=True)
    encode_files([Path(sys.argv[1])], recipe, output_prefix=Path(sys.argv[2]), workers=int(sys.argv[3]), resume=True)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_at_random_moments_and_resume_gives_the_same_bytes(workers: int, tmp_path: Path) -> None:
    texts = [f"document {i} " * (i * 37 % 400) for i in range(20_000)]
    path = write_lines(tmp_path / "in.jsonl", *({"text": text} for text in texts))
    encode(path, tmp_path / "whole")
    script = tmp_path / "encode.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(path), str(tmp_path / "x"), str(workers)]
    moments = random.Random(workers)
    killed = 0
    for attempt in range(5):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moments.uniform(0.1, 1.2) if attempt < 4 else 120)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    assert process.returncode == 0
    assert killed >= 1
    assert bytes_of(tmp_path / "x") == bytes_of(tmp_path / "whole")
    origins = [(tmp_path / f"{name}_text_document.sources.json").read_bytes() for name in ("x", "whole")]
    assert origins[0] == origins[1]
    assert files_in(tmp_path) == {
        *("in.jsonl", "encode.py", "x_text_document.bin", "x_text_document.idx", "x_text_document.sources.json"),
        *(f"whole_text_document.{suffix}" for suffix in ("bin", "idx", "sources.json")),
    }
    deadline = time.monotonic() + 20
    while group_lives(process.pid):
        assert time.monotonic() < deadline, "workers outlive their killed parent"
        time.sleep(0.05)
