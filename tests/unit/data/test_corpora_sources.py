"""Corpora from elsewhere: how they are named, listed and read; the servers are local."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from megatron.components import CORPORA
from megatron.data.corpora import gpt2, pile, reading
from megatron.data.corpora.base import Corpus
from megatron.data.corpora.c4 import C4, C4_OPENWEBTEXT
from megatron.data.corpora.download.parallel import DownloadSettings
from megatron.data.corpora.download.record import RemoteFile
from megatron.data.corpora.download.single import Patience
from megatron.data.corpora.enwik8 import ARCHIVE, Enwik8
from megatron.data.corpora.gone import Gone
from megatron.data.corpora.hub import HubCorpus, HubSelection
from megatron.data.corpora.listing import show_corpora
from megatron.data.corpora.local import LocalCorpus, name_of_files
from megatron.data.corpora.names import Choice, build_corpora, build_corpus
from megatron.data.corpora.openwebtext import OPENWEBTEXT
from megatron.data.corpora.prepare import PreparedCorpus, prepare_corpus
from megatron.data.corpora.remote import RemoteCorpus
from megatron.data.corpora.wikipedia import WIKIPEDIA
from megatron.data.indexed_dataset import IndexedDataset
from megatron.errors import DataError, MissingRequirement, NeoXError
from megatron.tokenizer.base import TokenizerSettings
from tests.file_server import FileServer, Served

BYTES = TokenizerSettings("CharLevelTokenizer")
FAST = DownloadSettings(timeout=5.0, patience=Patience(tries=2, first_wait=0.01))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    server = FileServer()
    yield server
    server.close()


def lines(*records: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def texts(*texts: str) -> bytes:
    return lines(*({"text": text} for text in texts))


def prepare(corpus: Corpus, **options: Any) -> PreparedCorpus:
    return prepare_corpus(corpus, tokenizer=BYTES, downloads=FAST, **options)


def decoded(prepared: PreparedCorpus) -> list[str]:
    """The documents of a dataset of bytes, without their end."""
    dataset = IndexedDataset(prepared.prefix)
    return [bytes(dataset[i].tolist()[:-1]).decode() for i in range(len(dataset))]


# Names


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("python_stdlib", ["python_stdlib"]),
        ("ENWIK8,pile_subset", ["enwik8", "pile_subset"]),
        ("hf:org/set", ["org_set"]),
        ("hf:org/set:20231101.de,enwik8", ["org_set_20231101.de", "enwik8"]),
        ("file:a.jsonl,file:b.jsonl", ["a", "b"]),
        ("file:a.jsonl,b/c.jsonl,enwik8", ["a_and_1_more", "enwik8"]),
        ("b/c.jsonl.gz", ["c"]),
        ("file:no-such-file", ["no-such-file"]),
        ("*.jsonl", ["files"]),
        ("https://x.example/data/one.jsonl.gz?download=1,https://x.example/two.txt", ["one_and_1_more"]),
    ],
)
def test_the_words_of_a_command_line_are_corpora(
    words: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.jsonl").write_text("")
    corpora = build_corpora(words, data_directory=Path("data"))
    assert [corpus.name for corpus in corpora] == expected
    assert [corpus.directory for corpus in corpora] == [Path("data", name) for name in expected]


def test_a_name_of_the_registry_is_not_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "enwik8").write_text("")
    assert isinstance(build_corpus("enwik8", data_directory=tmp_path), Enwik8)
    assert isinstance(build_corpus("file:enwik8", data_directory=tmp_path), LocalCorpus)


@pytest.mark.parametrize(
    ("words", "choice", "message"),
    [
        ("enwik9", Choice(), r'did you mean "enwik8".*or give files \(file:PATH\)'),
        ("hf:", Choice(), '"hf:" names no dataset'),
        ("", Choice(), "no corpus is named"),
        ("enwik8,c4", Choice(name="x"), "cannot be the name of 2 corpora"),
        ("enwik8,enwik8", Choice(), "would be made in .*enwik8"),
        ("http://x.example/", Choice(), "does not end in a file name of its own"),
        ("http://x.example/a,http://y.example/a", Choice(), "does not end in a file name of its own"),
        ("c4", Choice(first_files=0), "--files 0 cannot be: the corpus has 1024 files"),
        ("c4", Choice(first_files=1025), "take 1 to 1024"),
        ("python_stdlib", Choice(first_files=1), "--files 1 cannot be: python_stdlib is one whole"),
        ("enwik8", Choice(split="test"), r"--split is for hub datasets \(hf:NAME\), and none is named"),
        ("enwik8", Choice(hub_files="*"), "--hf-files is for hub datasets"),
        ("enwik8,pile", Choice(key="content"), "--text-key is for files, addresses and hub datasets"),
        ("books3", Choice(), 'the corpus "books3" cannot be had: books under copyright, taken down .*; use gutenberg'),
        ("youtube_subtitles", Choice(), "cannot be had"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_what_there_is(
    words: str, choice: Choice, message: str, tmp_path: Path
) -> None:
    with pytest.raises(NeoXError, match=message):
        build_corpora(words, data_directory=tmp_path, choice=choice)


@pytest.mark.parametrize(
    "name",
    [
        "enron",
        "pile_subset",
        "pile",
        "github",
        "arxiv",
        "europarl",
        "freelaw",
        "nih",
        "pubmed",
        "books1",
        "books3",
        "hackernews",
        "openwebtext2",
        "stackexchange",
        "ubuntu_irc",
        "youtube_subtitles",
        "c4",
        "c4_openwebtext",
        "enwik8",
        "proof-pile",
        "arxiv-pilev2",
        "arxiv-rp",
        "open-web-math",
        "open-web-math-hq",
        "proof-pile-v1",
        "pile-sample",
        "pile-sample-1",
        "pile-sample-2",
        "code-no-matlab",
    ],
)
def test_every_name_of_gpt_neox_is_known(name: str) -> None:
    assert name in CORPORA


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["a.jsonl"], "a"),
        (["/x/y/a.b.jsonl.zst", "c"], "a_and_1_more"),
        (["texts/"], "texts"),
        (["../*.txt"], "files"),
        (["ü b.txt"], "b"),
    ],
)
def test_files_give_a_corpus_its_name(words: list[str], name: str) -> None:
    assert name_of_files(words) == name


def test_the_list_tells_size_licence_and_tokens_and_what_is_gone() -> None:
    output = Console(file=io.StringIO(), width=200, soft_wrap=True)
    show_corpora(output)
    listed = output.file.getvalue()
    assert "c4                  305 GB              156 B   ODC-BY" in listed
    there, _, gone = listed.partition("not to be had:")
    assert all(name in there or name in gone for name in CORPORA)
    assert "books3" in gone
    assert "books3" not in there


# The tables


def test_addresses_are_those_of_the_published_files() -> None:
    hub = "https://huggingface.co/datasets"
    expected = {
        C4: (1024, f"{hub}/allenai/c4/resolve/main/en/c4-train.01023-of-01024.json.gz"),
        C4_OPENWEBTEXT: (512, f"{hub}/allenai/c4/resolve/main/realnewslike/c4-train.00511-of-00512.json.gz"),
        pile.PILE: (30, f"{hub}/monology/pile-uncopyrighted/resolve/main/train/29.jsonl.zst"),
        OPENWEBTEXT: (80, f"{hub}/Skylion007/openwebtext/resolve/main/plain_text/train-00079-of-00080.parquet"),
        WIKIPEDIA: (41, f"{hub}/wikimedia/wikipedia/resolve/main/20231101.en/train-00040-of-00041.parquet"),
    }
    for kind, (count, last) in expected.items():
        assert len({file.name for file in kind.remote}) == len(kind.remote) == count
        assert kind.remote[-1].urls[0] == last


def test_the_subset_and_the_components_share_the_files_of_the_pile(tmp_path: Path) -> None:
    corpora = build_corpora("pile,pile_subset,europarl", data_directory=tmp_path)
    assert [corpus.directory.name for corpus in corpora] == ["pile", "pile_subset", "europarl"]
    assert {corpus.raw for corpus in corpora if isinstance(corpus, RemoteCorpus)} == {tmp_path / "pile/raw"}
    assert [len(corpus.remote) for corpus in corpora if isinstance(corpus, RemoteCorpus)] == [30, 1, 30]


def test_a_missing_package_is_told_before_the_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reading.importlib.util, "find_spec", lambda _: None)
    for name, package in (("pile_subset", "zstandard"), ("wikipedia", "pyarrow")):
        with pytest.raises(MissingRequirement, match=f'needs the package "{package}"'):
            build_corpus(name, data_directory=tmp_path).prepare(FAST)


# Files on servers


def test_files_on_a_server_become_a_dataset(server: FileServer, tmp_path: Path) -> None:
    server.files["b.jsonl.gz"] = Served(gzip.compress(texts("three")))
    server.files["a.jsonl"] = Served(texts("one", "", "two"))
    words = f"{server.url('a.jsonl')},{server.url('b.jsonl.gz')}"
    prepared = prepare(build_corpus(words, data_directory=tmp_path))
    assert decoded(prepared) == ["one", "two", "three"]
    assert prepared.prefix == tmp_path / "a_and_1_more/a_and_1_more_text_document"
    server.close()
    assert not prepare(build_corpus(words, data_directory=tmp_path)).remade, "without the server"


def test_downloaded_files_may_be_deleted_once_the_dataset_is_made(server: FileServer, tmp_path: Path) -> None:
    server.files["a.jsonl"] = Served(texts("one"))
    prepare(build_corpus(server.url("a.jsonl"), data_directory=tmp_path))
    (tmp_path / "a/raw/a.jsonl").unlink()
    server.requests.clear()
    assert not prepare(build_corpus(server.url("a.jsonl"), data_directory=tmp_path)).remade
    assert server.requests == []
    (tmp_path / "a/a_text_document.bin").unlink()
    assert decoded(prepare(build_corpus(server.url("a.jsonl"), data_directory=tmp_path))) == ["one"]
    assert len(server.gets()) == 1


def test_another_key_and_the_first_files_alone_are_taken(server: FileServer, tmp_path: Path) -> None:
    server.files["a.jsonl"] = Served(lines({"content": "one", "text": "no"}))
    server.files["b.jsonl"] = Served(lines({"content": "two", "text": "no"}))
    words = f"{server.url('a.jsonl')},{server.url('b.jsonl')}"
    choice = Choice(key="content", name="mine")
    prepared = prepare(build_corpus(words, data_directory=tmp_path, choice=choice))
    assert decoded(prepared) == ["one", "two"]
    assert prepared.prefix == tmp_path / "mine/mine_content_document"
    prepared = prepare(build_corpus(words, data_directory=tmp_path, choice=replace(choice, first_files=1)))
    assert decoded(prepared) == ["one"]


def test_raw_files_that_were_damaged_meanwhile_are_not_tokenised(server: FileServer, tmp_path: Path) -> None:
    server.files["a.jsonl"] = Served(texts("one"))
    corpus = build_corpus(server.url("a.jsonl"), data_directory=tmp_path)
    prepare(corpus)
    (tmp_path / "a/raw/a.jsonl").write_bytes(texts("two"))
    with pytest.raises(DataError, match="has other bytes than those that were downloaded"):
        prepare_corpus(
            build_corpus(server.url("a.jsonl"), data_directory=tmp_path), tokenizer=TokenizerSettings("HFTokenizer")
        )
    server.files["a.jsonl"] = Served(texts("three"))
    assert decoded(prepare(corpus, force=True)) == ["three"]


def test_a_directory_that_holds_another_corpus_is_left_alone(server: FileServer, tmp_path: Path) -> None:
    server.files["a.jsonl"] = Served(texts("remote"))
    (tmp_path / "a.jsonl").write_bytes(texts("local"))
    data = tmp_path / "data"
    prepare(build_corpus(server.url("a.jsonl"), data_directory=data))
    local = build_corpus(f"file:{tmp_path}/a.jsonl", data_directory=data)
    with pytest.raises(DataError, match=r"holds another corpus .*--name, or replace the other with --force"):
        prepare(local)
    assert decoded(prepare(local, force=True)) == ["local"]


def test_a_bad_document_ends_or_is_left_out_as_asked(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(texts("one") + b"{\n" + texts("two"))
    told = io.StringIO()
    with pytest.raises(DataError, match=r"a.jsonl:2 is not valid JSON"):
        prepare(build_corpus(f"file:{tmp_path}/a.jsonl", data_directory=tmp_path / "data"))
    corpus = build_corpus(f"file:{tmp_path}/a.jsonl", data_directory=tmp_path / "data")
    prepared = prepare(corpus, on_error="skip", console=Console(file=told, width=300))
    assert decoded(prepared) == ["one", "two"]
    assert "left out 1 bad documents, the first: " in told.getvalue()


def test_local_files_are_made_anew_when_they_change(tmp_path: Path) -> None:
    for name, text in (("b.jsonl", "b"), ("a.jsonl", "a")):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / name).write_bytes(texts(text))
    corpus = build_corpus(f"{tmp_path}/texts", data_directory=tmp_path / "data")
    assert decoded(prepare(corpus)) == ["a", "b"]
    first = build_corpus(f"{tmp_path}/texts", data_directory=tmp_path / "first", choice=Choice(first_files=1))
    assert decoded(prepare(first)) == ["a"]
    assert not prepare(build_corpus(f"{tmp_path}/texts", data_directory=tmp_path / "data")).remade
    (tmp_path / "texts/a.jsonl").write_bytes(texts("c"))
    assert decoded(prepare(build_corpus(f"{tmp_path}/texts", data_directory=tmp_path / "data"))) == ["c", "b"]
    with pytest.raises(DataError, match=r"absent.jsonl does not exist"):
        prepare(build_corpus("file:absent.jsonl", data_directory=tmp_path / "data"))


# The Pile


def pile_lines(*documents: tuple[str, str]) -> bytes:
    return lines(*({"text": text, "meta": {"pile_set_name": name}} for name, text in documents))


def test_a_component_is_cut_out_of_the_files_of_the_pile(server: FileServer, tmp_path: Path) -> None:
    import zstandard

    compressor = zstandard.ZstdCompressor()
    contents = (
        pile_lines(("EuroParl", "one"), ("FreeLaw", "no"), ("FreeLaw", 'it says "EuroParl"'), ("EuroParl", "two")),
        pile_lines(("FreeLaw", "law"), ("EuroParl", "three")),
    )
    remote = []
    for i, content in enumerate(contents):
        server.files[f"0{i}.jsonl.zst"] = Served(compressor.compress(content))
        remote.append(RemoteFile(f"0{i}.jsonl.zst", (server.url(f"0{i}.jsonl.zst"),)))

    def component(name: str, set_name: str) -> Corpus:
        return pile.PileComponent(
            tmp_path / name, name=name, set_name=set_name, remote=remote, raw=tmp_path / "pile/raw"
        )

    assert decoded(prepare(component("europarl", "EuroParl"))) == ["one", "two", "three"]
    server.close()  # the second component needs no download
    assert decoded(prepare(component("freelaw", "FreeLaw"))) == ["no", 'it says "EuroParl"', "law"]
    assert component("a", "EuroParl").fingerprint() != component("b", "FreeLaw").fingerprint()
    with pytest.raises(DataError, match="no documents with tokens"):
        prepare(component("nih", "NIH ExPorter"))


def test_a_line_that_is_none_of_the_pile_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/00.jsonl").write_bytes(
        pile_lines(("EuroParl", "one")) + b'{"text": "EuroParl", "meta": "EuroParl"}\n'
    )
    corpus = pile.PileComponent(
        tmp_path, name="europarl", set_name="EuroParl", remote=[RemoteFile("00.jsonl", ("x",))], raw=tmp_path / "raw"
    )
    with pytest.raises(DataError, match=r"00.jsonl:2 is not a document of the Pile"):
        list(corpus.documents())


def test_a_damaged_file_of_the_pile_is_told(tmp_path: Path) -> None:
    import zstandard

    (tmp_path / "00.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(pile_lines(("A", "x")) * 99)[:-9])
    with pytest.raises(DataError, match=r"00.jsonl.zst cannot be read or decompressed"):
        list(reading.lines_of(tmp_path / "00.jsonl.zst"))


# enwik8


def archive_of(text: bytes, name: str = "enwik8") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return file.getvalue()


def served_enwik8(server: FileServer, directory: Path, content: bytes) -> Enwik8:
    server.files["enwik8.zip"] = Served(content)
    remote = replace(
        ARCHIVE, urls=(server.url("enwik8.zip"),), sha256=hashlib.sha256(content).hexdigest(), size=len(content)
    )
    return Enwik8(directory, archive=remote)


def test_pages_of_enwik8_are_documents_and_together_the_file(server: FileServer, tmp_path: Path) -> None:
    text = "<mediawiki>\n  <page>\n    eins\n  </page>\n  <page>\n    zwei ü\n  </page>\n  <page>\n    dr"
    corpus = served_enwik8(server, tmp_path / "enwik8", archive_of(text.encode()))
    documents = decoded(prepare(corpus))
    assert len(documents) == 3
    assert documents[0].startswith("<mediawiki>")
    assert "".join(documents) == text


@pytest.mark.parametrize("content", [b"no archive", archive_of(b"x", name="other")], ids=["no archive", "other member"])
def test_an_archive_that_is_not_enwik8_is_told(server: FileServer, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"enwik8.zip cannot be read"):
        prepare(served_enwik8(server, tmp_path / "enwik8", content))


# The Hugging Face hub


@pytest.fixture
def hub(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A server with a dataset `org/set` of two configs, the second of which is complete up to 5 GB only."""
    import pyarrow
    import pyarrow.parquet

    entries = []
    for config, split, number, words in (
        ("de", "train", 0, ["eins", "zwei"]),
        ("de", "train", 1, ["drei"]),
        ("de", "test", 0, ["vier"]),
        ("big", "train", 0, ["one"]),
    ):
        file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"text": words, "title": [word.upper() for word in words]}), file)
        folder = f"{config}/{'partial-' if config == 'big' else ''}{split}"
        path = f"datasets/org/set/resolve/refs%2Fconvert%2Fparquet/{folder}/000{number}.parquet"
        server.files[path] = Served(file.getvalue())
        entries.append(
            {
                "dataset": "org/set",
                "config": config,
                "split": split,
                "url": f"https://huggingface.co/{path}",
                "filename": f"000{number}.parquet",
                "size": len(file.getvalue()),
            }
        )
    answer = {"parquet_files": entries, "pending": [], "failed": [], "partial": True}
    server.files["parquet?dataset=org%2Fset"] = Served(json.dumps(answer).encode())
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    return server


def hub_corpus(hub: FileServer, directory: Path, **selection: Any) -> HubCorpus:
    return HubCorpus(directory, HubSelection("org/set", **selection), viewer=hub.address)


def test_a_dataset_of_the_hub_is_prepared_from_its_parquet_version(hub: FileServer, tmp_path: Path) -> None:
    assert decoded(prepare(hub_corpus(hub, tmp_path / "a", config="de"))) == ["eins", "zwei", "drei"]
    assert decoded(prepare(hub_corpus(hub, tmp_path / "b", config="de", split="test"))) == ["vier"]
    prepared = prepare(hub_corpus(hub, tmp_path / "c", config="de", column="title"))
    assert decoded(prepared) == ["EINS", "ZWEI", "DREI"]
    assert prepared.prefix == tmp_path / "c/c_title_document"


def test_the_files_of_the_first_call_stay_those_of_the_corpus(hub: FileServer, tmp_path: Path) -> None:
    prepare(hub_corpus(hub, tmp_path / "a", config="de"))
    hub.files.clear()
    hub.requests.clear()
    assert not prepare(hub_corpus(hub, tmp_path / "a", config="de")).remade
    assert hub.requests == []


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"config": "fr"}, r'hf:org/set:fr has no config "fr": choose one of big, de as hf:org/set:CONFIG'),
        ({}, r"hf:org/set has several configs: choose one of big, de"),
        ({"config": "de", "split": "dev"}, r'has no split "dev": choose one of test, train as --split SPLIT'),
        ({"config": "big"}, r"holds only the first 5 GB of its split train: .*--hf-files PATTERN"),
    ],
)
def test_what_a_dataset_does_not_have_is_told_with_what_it_has(
    hub: FileServer, tmp_path: Path, selection: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepare(hub_corpus(hub, tmp_path / "a", **selection))


def test_a_column_that_is_not_there_is_told(hub: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="body"):
        prepare(hub_corpus(hub, tmp_path / "a", config="de", column="body"))


def test_a_dataset_that_does_not_exist_is_one_sentence(hub: FileServer, tmp_path: Path) -> None:
    corpus = HubCorpus(tmp_path, HubSelection("no/set"), viewer=hub.address)
    with pytest.raises(DataError, match=r"parquet\?dataset=no%2Fset answered 404"):
        corpus.prepare(FAST)


def test_files_of_the_repository_itself_are_chosen_by_a_pattern(hub: FileServer, tmp_path: Path) -> None:
    contents = {"train/b.jsonl": texts("two"), "train/a.jsonl": texts("one"), "test.jsonl": texts("no")}
    entries: list[dict[str, Any]] = [{"type": "directory", "path": "train"}]
    for path, content in contents.items():
        hub.files[f"datasets/org/set/resolve/main/{path}"] = Served(content)
        entry = {"type": "file", "path": path, "size": 130}
        entries.append(entry | {"lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}})
    tree = "api/datasets/org/set/tree/main?recursive=true"
    following = hub.url(f"{tree}&cursor=x")
    hub.files[tree] = Served(json.dumps(entries[:2]).encode(), headers={"Link": f'<{following}>; rel="next"'})
    hub.files[f"{tree}&cursor=x"] = Served(json.dumps(entries[2:]).encode())
    assert decoded(prepare(hub_corpus(hub, tmp_path / "a", pattern="train/*"))) == ["one", "two"]
    with pytest.raises(DataError, match=r'no file of hf:org/set matches "\*\.csv": it has train/b.jsonl, '):
        prepare(hub_corpus(hub, tmp_path / "b", pattern="*.csv"))


# GPT-2's vocabulary


def test_gpt2_s_files_are_fetched_once_when_none_are_given(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("VOCABULARY", b"{}"), ("MERGES", b"#version: 0.2\n")):
        file = getattr(gpt2, name)
        server.files[file.name] = Served(content)
        served = RemoteFile(file.name, (server.url(file.name),), hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(gpt2, name, served)
    wanted = TokenizerSettings("GPT2BPETokenizer")
    for _ in range(2):
        got = gpt2.with_gpt2_files(wanted, tmp_path, FAST)
        assert got.vocab_file == str(tmp_path / "gpt2-vocab.json")
        assert got.merge_file == str(tmp_path / "gpt2-merges.txt")
    assert len(server.gets()) == 2
    given = TokenizerSettings("GPT2BPETokenizer", "v.json", "m.txt")
    assert gpt2.with_gpt2_files(given, tmp_path, FAST) == given
    assert gpt2.with_gpt2_files(BYTES, tmp_path, FAST) == BYTES


def test_gone_corpora_tell_why_and_what_instead(tmp_path: Path) -> None:
    gone = [kind for name in CORPORA if isinstance(kind := CORPORA.load(name), Gone)]
    assert len(gone) == 14
    for kind in gone:
        with pytest.raises(DataError, match=r"cannot be had: .*; .*\. Files you have are given as file:PATH"):
            kind(tmp_path)
