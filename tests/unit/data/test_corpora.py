"""Corpora: which documents python_stdlib has, and when prepared files are made anew."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from megatron.components import CORPORA
from megatron.data.corpora.base import Corpus, CorpusKind
from megatron.data.corpora.names import build_corpus
from megatron.data.corpora.prepare import PreparedCorpus, prepare_corpus
from megatron.data.corpora.python_stdlib import PythonStandardLibrary
from megatron.data.indexed_dataset import IndexedDataset
from megatron.errors import DataError, NeoXError
from megatron.tokenizer.base import TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.train import train_bpe

FILES = {
    "alpha.py": "def alpha():\n    return 1\n" * 30,
    "beta/__init__.py": "",
    "beta/gamma.py": "class Gamma:\n    pass\n" * 30,
    "latin.py": b"# -*- coding: latin-1 -*-\nname = '\xe9'\n",
    "undecodable.py": b"name = '\xe9'\n",
    "unknown_encoding.py": b"# -*- coding: klingon -*-\n",
    "beta/test/test_gamma.py": "test",
    "test/test_alpha.py": "test",
    "idlelib/idle_test/x.py": "test",
    "lib2to3/tests/data/x.py": "test",
    "encodings/cp1250.py": "table",
    "html/entities.py": "table",
    "html/parser.py": "class HTMLParser: ...\n",
    "pydoc_data/topics.py": "table",
    "site-packages/other.py": "other",
    "__pycache__/alpha.py": "cache",
    "_sysconfigdata__linux.py": "paths of the build",
    "config-3.11-x86_64/makesetup.py": "paths of the build",
    "sitecustomize.py": "local",
    "LICENSE.txt": "licence",
}
HF = TokenizerSettings("HFTokenizer")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "library" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / "library"


@pytest.fixture
def corpus(library: Path, tmp_path: Path) -> Corpus:
    return PythonStandardLibrary(tmp_path / "out", library=library)


def prepare(corpus: Corpus, tokenizer: TokenizerSettings = HF, vocab_size: int = 280) -> PreparedCorpus:
    return prepare_corpus(corpus, tokenizer=tokenizer, vocab_size=vocab_size)


def test_only_readable_modules_that_are_no_tests_or_tables_are_documents(corpus: Corpus) -> None:
    expected = [
        FILES["alpha.py"],
        FILES["beta/gamma.py"],
        FILES["html/parser.py"],
        "# -*- coding: latin-1 -*-\nname = 'é'\n",
    ]
    assert sorted(corpus.documents()) == sorted(expected)


def test_documents_are_in_an_order_that_neither_alphabet_nor_disk_decides(library: Path, tmp_path: Path) -> None:
    for i in range(50):
        (library / f"module_{i:02}.py").write_text(f"x = {i}\n")
    order = [str(path) for path in PythonStandardLibrary(tmp_path, library=library).paths()]
    assert order != sorted(order)
    (library / "one_more.py").write_text("x = 1\n")
    longer = [str(path) for path in PythonStandardLibrary(tmp_path, library=library).paths()]
    assert [path for path in longer if path != "one_more.py"] == order


def test_the_running_python_gives_megabytes_of_modules_without_tests(tmp_path: Path) -> None:
    corpus = build_corpus("python_stdlib", data_directory=tmp_path)
    assert isinstance(corpus, PythonStandardLibrary)
    paths = corpus.paths()
    assert not [path for path in paths if {"test", "tests", "idle_test", "site-packages"} & set(path.parts)]
    assert {"argparse.py", "json/decoder.py", "asyncio/tasks.py"} <= {str(path) for path in paths}
    documents = list(corpus.documents())
    assert 0.95 * len(paths) < len(documents) <= len(paths)
    assert sum(map(len, documents)) > 5_000_000
    assert corpus.fingerprint() == corpus.fingerprint()


def test_a_library_without_sources_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no Python sources"):
        list(PythonStandardLibrary(tmp_path, library=tmp_path / "empty").documents())


def test_every_registered_corpus_has_its_name_and_a_description() -> None:
    for name in CORPORA:
        kind: CorpusKind = CORPORA.load(name)
        assert kind.name == name
        about = kind.about
        assert about.description
        assert about.size
        assert not any("\n" in text for text in (about.description, about.size, about.licence, about.tokens))


def test_an_unknown_corpus_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(NeoXError, match=r'corpus "python_stdlb" does not exist: choose one of .*python_stdlib'):
        build_corpus("python_stdlb", data_directory=tmp_path)


def test_prepared_files_hold_the_documents_each_ended_by_the_end_of_document(corpus: Corpus) -> None:
    prepared = prepare(corpus)
    assert prepared.remade
    dataset, tokenizer = IndexedDataset(prepared.prefix), build_tokenizer(prepared.tokenizer)
    assert prepared.vocab_size == tokenizer.vocab_size
    assert prepared.documents == len(dataset)
    assert prepared.tokens == sum(dataset.sizes)
    for i, text in enumerate(corpus.documents()):
        ids = dataset[i].tolist()
        assert ids[-1] == tokenizer.eod
        assert tokenizer.detokenize(ids[:-1]) == text
    assert {path.name for path in corpus.directory.iterdir()} == {
        "prepared.json",
        "tokenizer.json",
        "python_stdlib_text_document.bin",
        "python_stdlib_text_document.idx",
        "python_stdlib_text_document.sources.json",
    }


def test_a_second_preparation_touches_nothing_and_says_the_same(corpus: Corpus) -> None:
    first = prepare(corpus)
    before = {path: path.stat().st_mtime_ns for path in corpus.directory.iterdir()}
    second = prepare(corpus)
    assert {path: path.stat().st_mtime_ns for path in corpus.directory.iterdir()} == before
    assert not second.remade
    assert (second.documents, second.tokens, second.prefix) == (first.documents, first.tokens, first.prefix)


def test_two_preparations_give_the_same_bytes(library: Path, tmp_path: Path) -> None:
    outputs = []
    for name in ("a", "b"):
        directory = tmp_path / name
        prepare(PythonStandardLibrary(directory, library=library))
        outputs.append({path.name: path.read_bytes() for path in directory.iterdir()})
    assert outputs[0] == outputs[1]


def test_preparation_is_repeated_when_anything_it_depends_on_has_changed(corpus: Corpus, library: Path) -> None:
    prepare(corpus)
    assert prepare(corpus, vocab_size=270).remade, "another vocabulary"
    assert prepare(corpus, TokenizerSettings("CharLevelTokenizer"), 270).remade, "another tokenizer"
    assert prepare(corpus, vocab_size=270).remade, "the first one again"
    (library / "alpha.py").write_text("other\n")
    assert prepare(corpus, vocab_size=270).remade, "another document"
    (corpus.directory / "python_stdlib_text_document.bin").unlink()
    assert prepare(corpus, vocab_size=270).remade, "a file is gone"
    (corpus.directory / "tokenizer.json").write_text("{}")
    assert prepare(corpus, vocab_size=270).remade, "a file was changed"
    (corpus.directory / "prepared.json").write_text('{"request"')
    assert prepare(corpus, vocab_size=270).remade, "the note is damaged"
    assert not prepare(corpus, vocab_size=270).remade
    assert prepare_corpus(corpus, tokenizer=HF, vocab_size=270, force=True).remade


@pytest.mark.parametrize("given", [True, False], ids=["a given tokenizer", "one trained here"])
def test_preparation_is_repeated_for_another_token_that_ends_documents(
    corpus: Corpus, tmp_path: Path, given: bool
) -> None:
    train_bpe(["def f(x)"], vocab_size=260).save(tmp_path / "tokenizer.json")
    tokenizer = TokenizerSettings("HFTokenizer", str(tmp_path / "tokenizer.json") if given else None)
    prepare(corpus, tokenizer)
    other = prepare(corpus, replace(tokenizer, eod_token="<|padding|>"))
    assert other.remade
    assert IndexedDataset(other.prefix)[0][-1] == 1
    assert not prepare(corpus, replace(tokenizer, eod_token="<|padding|>")).remade


def test_an_interrupted_preparation_is_never_taken_for_ready(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(corpus, vocab_size=280)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("megatron.data.corpora.make.encode_texts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(corpus, vocab_size=270)
    again = prepare(corpus, vocab_size=280)  # what is asked for was there, but its tokenizer has been replaced since
    assert again.remade
    assert again.vocab_size == 280
    assert build_tokenizer(again.tokenizer).vocab_size == 280


def test_the_console_is_told_the_steps(corpus: Corpus) -> None:
    console = Console(file=io.StringIO(), width=200)
    prepare_corpus(corpus, tokenizer=HF, vocab_size=280, console=console)
    told = console.file.getvalue()
    assert "training a tokenizer of 280 tokens on 4 documents" in told
    assert "100 %  4 documents" in told
