"""prepare_data.py with files on a server, as a user starts it, and as it is killed, interrupted and started again."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron.tokenizer.train import train_bpe
from tests.conftest import REPOSITORY
from tests.file_server import FileServer, Served, drop_after, status

DOCUMENTS = [f"document {i}: " + "the quick brown fox jumps over the lazy dog " * (i % 7) for i in range(20_000)]
FILES = 4


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    for i in range(FILES):
        text = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS[i::FILES]).encode()
        server.files[f"{i}.jsonl"] = Served(text)
    yield server
    server.close()


@pytest.fixture
def words(server: FileServer) -> str:
    return ",".join(server.url(f"{i}.jsonl") for i in range(FILES))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_bpe(DOCUMENTS[:500], vocab_size=300).save(path)
    return path


def command(words: str, data: Path, tokenizer: Path, *options: str) -> list[str]:
    """The command line of GPT-NeoX's script."""
    script = str(REPOSITORY / "prepare_data.py")
    return [sys.executable, script, "-d", str(data), "-t", "HFTokenizer", "-v", str(tokenizer), words, *options]


def environment() -> dict[str, str]:
    """This process's, without proxies."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, env=environment(), check=False)


def outputs(data: Path) -> dict[str, bytes]:
    """The dataset of the one corpus in a directory of data."""
    (index,) = data.glob("*/*.idx")
    return {path.suffix: path.read_bytes() for path in (index, index.with_suffix(".bin"))}


@pytest.fixture
def expected(words: str, tokenizer: Path, tmp_path: Path) -> dict[str, bytes]:
    """The dataset as one undisturbed call makes it of the same texts on the disk."""
    for i in range(FILES):
        text = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS[i::FILES])
        (tmp_path / f"{i}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    paths = ",".join(f"file:{tmp_path}/{i}.jsonl.gz" if i == 0 else f"{tmp_path}/{i}.jsonl.gz" for i in range(FILES))
    result = run(*command(paths, tmp_path / "expected", tokenizer, "-nw", "1"))
    assert result.returncode == 0, result.stderr
    return outputs(tmp_path / "expected")


def start_until(arguments: list[str], reached: Path, *, pattern: str, least_bytes: int = 1) -> subprocess.Popen[str]:
    """Start a command and wait until a file of that pattern has so many bytes."""
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size >= least_bytes for path in reached.rglob(pattern) if path.is_file()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def test_a_download_over_a_bad_network_gives_the_same_bytes_as_local_files(
    server: FileServer, words: str, tokenizer: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    server.faults["0.jsonl"] = [status(503), drop_after(100_000)]
    server.faults["2.jsonl"] = [drop_after(10), drop_after(10_000)]
    server.files["3.jsonl"].ranges = False
    result = run(*command(words, tmp_path / "data", tokenizer, "-nw", "2"))
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "trying again" in result.stderr
    assert "0_and_3_more is ready: 20,000 documents" in result.stdout
    assert outputs(tmp_path / "data") == expected
    server.close()
    again = run(*command(words, tmp_path / "data", tokenizer))
    assert "already there, nothing to do" in again.stdout


def test_a_killed_download_and_a_killed_tokenisation_are_continued(
    server: FileServer, words: str, tokenizer: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    arguments = command(words, data, tokenizer, "-nw", "2", "--connections", "2")
    server.files["1.jsonl"].bytes_a_second = 4_000_000
    server.files["2.jsonl"].bytes_a_second = 300_000
    process = start_until(arguments, data, pattern="2.jsonl.partial", least_bytes=100_000)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(data.rglob("*.bin"))
    partial = next(data.rglob("2.jsonl.partial")).stat().st_size
    here = {path.name for path in data.rglob("*.jsonl")}
    assert here

    server.files["2.jsonl"].bytes_a_second = None
    server.requests.clear()
    process = start_until(arguments, data, pattern="manifest.json")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not {one.path for one in server.gets()} & here, "files that were here are not downloaded again"
    assert [one.range for one in server.gets("2.jsonl")] == [f"bytes={partial}-"]

    server.close()
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert outputs(data) == expected
    assert not list(data.rglob("*.partial"))


def test_ctrl_c_keeps_the_download_and_says_how_to_go_on(
    server: FileServer, words: str, tokenizer: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    arguments = command(words, data, tokenizer, "-nw", "2")
    for i in range(FILES):
        server.files[f"{i}.jsonl"].bytes_a_second = 200_000
    process = start_until(arguments, data, pattern="0.jsonl.partial")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert "the same command continues" in told
    kept = {path.name: path.stat().st_size for path in data.rglob("*.jsonl.partial")}
    assert kept
    for i in range(FILES):
        server.files[f"{i}.jsonl"].bytes_a_second = None
    server.requests.clear()
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert outputs(data) == expected
    assert {one.range for one in server.gets()} >= {f"bytes={size}-" for size in kept.values() if size}
    assert any(kept.values())


def test_a_network_error_is_a_sentence_and_exit_code_1(server: FileServer, tokenizer: Path, tmp_path: Path) -> None:
    result = run(*command(server.url("gone.jsonl"), tmp_path / "data", tokenizer))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"{server.url('gone.jsonl')} answered 404 (Not Found): ")
    assert "Traceback" not in result.stderr
    result = run(*command("books3", tmp_path / "data", tokenizer))
    assert result.returncode == 1
    assert result.stderr.startswith('the corpus "books3" cannot be had: ')


def test_several_corpora_share_the_tokenizer_of_the_first(server: FileServer, tmp_path: Path) -> None:
    script = str(REPOSITORY / "prepare_data.py")
    (tmp_path / "mine.jsonl").write_text('{"text": "the quick brown fox"}\n' * 9)
    words = f"{server.url('0.jsonl')},file:{tmp_path}/mine.jsonl"
    result = run(sys.executable, script, words, "-d", str(tmp_path / "data"), "--vocab-size", "300", "-nw", "1")
    assert result.returncode == 0, result.stderr
    prefixes = [tmp_path / "data" / name / f"{name}_text_document" for name in ("0", "mine")]
    assert f"  train_data_paths: [{prefixes[0]}, {prefixes[1]}]" in result.stdout
    assert result.stdout.count(f"vocab_file: {tmp_path / 'data/0/tokenizer.json'}") == 2
    assert all(prefix.with_suffix(".idx").exists() for prefix in prefixes)
