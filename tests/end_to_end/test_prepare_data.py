"""The data commands themselves: prepare_data.py, preprocess_data.py and train_tokenizer.py, as a user starts them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron.components import CORPORA
from megatron.data.indexed_dataset import IndexedDataset
from megatron.tokenizer.hf import HFTokenizer
from megatron.tokenizer.sentencepiece import SPMTokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
PREPROCESS = "tools/datasets/preprocess_data.py"
TRAIN_TOKENIZER = "tools/datasets/train_tokenizer.py"


def run(script: str, *arguments: object, directory: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run a script of the repository with `directory` as the current one."""
    command = [sys.executable, str(REPOSITORY / script), *map(str, arguments)]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A directory in which `prepare_data.py` has run without any option, and what it said."""
    directory = tmp_path_factory.mktemp("prepared")
    return directory, run("prepare_data.py", directory=directory)


def test_the_default_corpus_is_prepared_and_the_config_lines_are_told(
    prepared: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    directory, result = prepared
    assert result.returncode == 0, result.stderr
    dataset = IndexedDataset(directory / "data/python_stdlib/python_stdlib_text_document")
    tokenizer = HFTokenizer.from_file(directory / "data/python_stdlib/tokenizer.json")
    assert tokenizer.vocab_size == 4096
    assert len(dataset) > 400
    assert dataset.sizes.sum() > 1_000_000
    assert "  data_path: data/python_stdlib/python_stdlib_text_document\n" in result.stdout
    assert "  tokenizer_type: HFTokenizer\n  vocab_file: data/python_stdlib/tokenizer.json\n" in result.stdout


def test_a_second_run_says_that_it_is_there_and_does_nothing(
    prepared: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    directory, _ = prepared
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    started = time.monotonic()
    result = run("prepare_data.py", "python_stdlib", "--workers", 1, directory=directory)
    assert time.monotonic() - started < 10
    assert result.returncode == 0
    assert "already there, nothing to do" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def test_the_list_names_every_corpus_with_a_line() -> None:
    result = run("prepare_data.py", "--list")
    assert result.returncode == 0
    assert "python_stdlib " in result.stdout
    assert "    sources of the running Python" in result.stdout
    assert all(name in result.stdout for name in CORPORA)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_corpus"], 'corpus "no_such_corpus" does not exist'),
        (["-t", "HFTokeniser"], '(did you mean "HFTokenizer"?)'),
        (["-v", "absent.json"], "absent.json cannot be read"),
        (["-t", "CharLevelTokenizer", "--workers", "0"], "0 workers cannot do anything"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run("prepare_data.py", "-d", "here", *arguments, directory=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("*.bin"))


def test_preprocess_data_takes_the_options_of_existing_scripts(tmp_path: Path) -> None:
    for name, texts in (("a", ["one", "", "two"]), ("b", ["three"])):
        lines = [json.dumps({"text": text, "title": text.upper()}) for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    trained = run(
        TRAIN_TOKENIZER,
        *("--input", "a.jsonl,b.jsonl", "--jsonl-keys", "text", "title"),
        *("--vocab-size", 270, "--output", "tok/tokenizer.json"),
        directory=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    result = run(
        PREPROCESS,
        *("--input", "a.jsonl,b.jsonl", "--output-prefix", "out/mine", "--jsonl-keys", "text", "title"),
        *("--vocab-file", "tok/tokenizer.json", "--dataset-impl", "mmap", "--tokenizer-type", "HFTokenizer"),
        *("--append-eod", "--workers", 2, "--num-docs", 4, "--log-interval", 1),
        directory=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "skipped 1 documents without tokens" in result.stdout
    tokenizer = HFTokenizer.from_file(tmp_path / "tok")
    for key, expected in (("text", ["one", "two", "three"]), ("title", ["ONE", "TWO", "THREE"])):
        dataset = IndexedDataset(tmp_path / f"out/mine_{key}_document")
        texts = [tokenizer.detokenize(dataset[i].tolist()) for i in range(len(dataset))]
        assert texts == [text + "<|endoftext|>" for text in expected]


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_sentencepiece_model_is_trained_and_used(model_type: str, tmp_path: Path) -> None:
    texts = ["the first line\n    and the second", "naïve 日本語", "another document " * 9]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    trained = run(
        TRAIN_TOKENIZER,
        *("--input", "a.jsonl", "--tokenizer-type", "SPMTokenizer", "--model-type", model_type),
        *("--vocab-size", 320, "--output", "new/tokenizer.model"),
        directory=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.startswith("new/tokenizer.model: ")
    tokenizer = ("--tokenizer-type", "SPMTokenizer", "--vocab-file", "new/tokenizer.model", "--append-eod")
    outputs = []
    for name, ending in (("a", ()), ("b", ("--eod-token", "<|padding|>"))):
        result = run(PREPROCESS, "--input", "a.jsonl", "--output-prefix", name, *tokenizer, *ending, directory=tmp_path)
        assert result.returncode == 0, result.stderr
        outputs.append(IndexedDataset(tmp_path / f"{name}_text_document"))
    model = SPMTokenizer((tmp_path / "new/tokenizer.model").read_bytes(), origin="new")
    for dataset, ending in zip(outputs, ("<|endoftext|>", "<|padding|>"), strict=True):
        assert [model.detokenize(dataset[i].tolist()) for i in range(3)] == [text + ending for text in texts]


def test_a_bad_line_ends_preprocess_data_with_its_place_and_no_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    result = run(
        PREPROCESS,
        *("--input", "a.jsonl", "--output-prefix", "out", "--tokenizer-type", "CharLevelTokenizer"),
        directory=tmp_path,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("a.jsonl:2 is not valid JSON")
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_bad_documents_are_left_out_and_listed_on_request(tmp_path: Path) -> None:
    (tmp_path / "in/more").mkdir(parents=True)
    (tmp_path / "in/a.jsonl").write_text('{"text": "one"}\n{"text": \n{"text": "two"}\n{"body": "x"}\n')
    (tmp_path / "in/more/b.txt").write_text("three\n")
    (tmp_path / "in/notes.md").write_text("# not an input")
    command = ["--output-prefix", "out", "--tokenizer-type", "CharLevelTokenizer", "--input", "in"]
    failed = run(PREPROCESS, *command, directory=tmp_path)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.splitlines()[-1].startswith("in/a.jsonl:2 is not valid JSON")
    result = run(PREPROCESS, *command, "--on-error", "skip", directory=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "out_text_document.bin, .idx: 3 documents, 12 tokens\nleft out 2 bad documents\n" in result.stdout
    lines = result.stderr.splitlines()
    assert "not read, as their names end in no known format: in/notes.md" in lines
    assert lines[-2].startswith("in/a.jsonl:2 is not valid JSON")
    assert lines[-1].startswith('in/a.jsonl:4 has no key "text" (it has "body")')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "absent.jsonl"], "the input absent.jsonl does not exist."),
        (["--input", "*.gz"], "the input *.gz holds no file of a known kind"),
        (["--input", "a.csv"], "the input a.csv is of an unknown kind: its name must end in .jsonl"),
        (["--input", "a.jsonl", "--workers", "0"], "0 workers cannot do anything"),
        (["--input", "a.jsonl", "--jsonl-keys", "body"], 'a.jsonl:1 has no key "body" (it has "text")'),
        (["--input", "empty.jsonl"], "the input has no documents with tokens"),
    ],
)
def test_a_mistake_of_preprocess_data_is_one_line_and_exit_code_1(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n')
    (tmp_path / "a.csv").touch()
    (tmp_path / "empty.jsonl").touch()
    before = set(tmp_path.iterdir())
    command = ["--output-prefix", "out", "--tokenizer-type", "CharLevelTokenizer", *arguments]
    result = run(PREPROCESS, *command, directory=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert set(tmp_path.iterdir()) == before


def test_after_sigterm_resume_completes_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "word"}\n' * 3_000_000)
    command = [
        *(sys.executable, str(REPOSITORY / PREPROCESS), "--input", "a.jsonl", "--output-prefix", "out"),
        *("--tokenizer-type", "CharLevelTokenizer", "--workers", "2"),
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out.partial/*/[0-9]*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, told = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "what is finished is kept in out.partial: the same command with --resume continues" in told
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "out.partial"}
    result = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    outputs = {f"out_text_document{suffix}" for suffix in (".bin", ".idx", ".sources.json")}
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", *outputs}
    dataset = IndexedDataset(tmp_path / "out_text_document")
    assert len(dataset) == 3_000_000
    assert (tmp_path / "out_text_document.bin").read_bytes() == dataset[0].tobytes() * 3_000_000
