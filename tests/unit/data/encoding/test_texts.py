"""Encoding texts in memory: the same bytes for any number of workers, and nothing half written after an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron.data.documents import chunk_texts
from megatron.data.encoding.progress import EncodeProgress
from megatron.data.encoding.texts import encode_texts
from megatron.data.encoding.worker import EncodeRecipe
from megatron.data.indexed_dataset import IndexedDataset
from megatron.errors import DataError, MissingRequirement
from megatron.tokenizer.base import TokenizerSettings

CHARACTERS = TokenizerSettings("CharLevelTokenizer")
REPOSITORY = Path(__file__).resolve().parents[4]


def texts_of(prefix: Path) -> list[str]:
    """The documents of a dataset of characters."""
    dataset = IndexedDataset(prefix)
    return [bytes(dataset[i].astype("u1")).decode() for i in range(len(dataset))]


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    texts = [f"document {i} " * (i * 37 % 400) for i in range(1500)]
    assert sum(1 for _ in chunk_texts(texts, origin="a list")) > 10
    outputs = []
    for workers in (1, 3):
        prefix = tmp_path / f"with_{workers}"
        progress = EncodeProgress()
        recipe = EncodeRecipe(CHARACTERS)
        encode_texts(texts, recipe, origin="a list", output_prefix=prefix, workers=workers, progress=progress)
        assert (progress.counts.consumed, progress.text_bytes) == (1500, sum(map(len, texts)))
        outputs.append([Path(f"{prefix}_text_document{suffix}").read_bytes() for suffix in (".bin", ".idx")])
    assert outputs[0] == outputs[1]
    assert texts_of(tmp_path / "with_3_text_document") == [text for text in texts if text]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_text_at_all_is_refused(workers: int, tmp_path: Path) -> None:
    for texts in ([], [""]):
        with pytest.raises(DataError, match="no documents with tokens"):
            encode_texts(
                texts, EncodeRecipe(CHARACTERS), origin="a list", output_prefix=tmp_path / "x", workers=workers
            )
    assert not list(tmp_path.iterdir())


def test_the_end_of_document_is_appended_on_request_only(tmp_path: Path) -> None:
    for append_eod, expected in ((True, [97, 0]), (False, [97])):
        recipe = EncodeRecipe(CHARACTERS, append_eod=append_eod)
        dataset = encode_texts(["a"], recipe, origin="a list", output_prefix=tmp_path / "x")
        assert IndexedDataset(dataset.prefix)[0].tolist() == expected


def test_an_error_leaves_an_older_dataset_as_it_was(tmp_path: Path) -> None:
    encode_texts(["old"], EncodeRecipe(CHARACTERS), origin="a list", output_prefix=tmp_path / "x")
    with pytest.raises(DataError, match="document 2 of a list has the code 0xdc00"):
        encode_texts(["new", "\udc00"], EncodeRecipe(CHARACTERS), origin="a list", output_prefix=tmp_path / "x")
    assert texts_of(tmp_path / "x_text_document") == ["old"]


def test_ftfy_repairs_texts_and_is_told_of_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = EncodeRecipe(CHARACTERS, fix_text=True)
    pytest.importorskip("ftfy")
    encode_texts(["schÃ¶n"], recipe, origin="a list", output_prefix=tmp_path / "x")
    assert texts_of(tmp_path / "x_text_document") == ["schön"]
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(MissingRequirement, match=r"--ftfy .*requirements-preprocessing\.txt"):
        encode_texts(["a"], recipe, origin="a list", output_prefix=tmp_path / "y")
    assert not list(tmp_path.glob("y*"))


def test_chunks_of_texts_keep_every_text_and_its_number() -> None:
    chunks = list(chunk_texts(["aa", "b", "cccc", "", "d"], origin="here", chunk_characters=3))
    assert [(chunk.first, chunk.texts) for chunk in chunks] == [(1, ["aa", "b"]), (3, ["cccc"]), (4, ["", "d"])]


ENDLESS = """
import itertools, sys
from pathlib import Path
from megatron.data.encoding.texts import encode_texts
from megatron.data.encoding.worker import EncodeRecipe
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
    code = "import megatron.data.corpora.prepare, megatron.data.derived.chat, megatron.data.derived.mask, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
    code = "import megatron.data.encoding.shard_worker, sys; assert 'rich.progress' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
