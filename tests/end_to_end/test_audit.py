"""A run's checkpoint says which documents its steps read, and notices when they are others."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from megatron.data.audit.segment import Moves
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.errors import DataError, NeoXError
from tests.conftest import REPOSITORY
from tests.end_to_end.forked import train_forked
from tests.end_to_end.runs import TrainedRun, run_deepy


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> TrainedRun:
    directory = tmp_path_factory.mktemp("audited")
    for path in small_data.parent.glob(f"{small_data.name}.*"):
        shutil.copy(path, directory / f"x{path.name.removeprefix(small_data.name)}")
    return train_forked(
        directory / "run", directory / "x", train_iters=4, num_gpus=2, eval_iters=0, pack_impl="unpacked"
    )


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """tools/datasets/audit.py, called in this process: importing torch takes longer than the rest of it."""
    spec = importlib.util.spec_from_file_location("audit_tool", REPOSITORY / "tools" / "datasets" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def audit(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the tool with some words; what it prints."""

    def call(*words: object) -> str:
        args = tool.parse_arguments([str(word) for word in words])
        args.run(args)
        return capsys.readouterr().out

    return call


def test_a_checkpoint_tells_the_documents_of_a_step_and_the_steps_of_a_document(
    run: TrainedRun, small_data: Path, audit: Any
) -> None:
    checkpoints = run.directory / "checkpoints"
    step = json.loads(audit("who", checkpoints, "--step", 3, "--json"))
    assert (step["done"], len(step["samples"])) == (True, 8)
    assert [sample["sample"] for sample in step["samples"]] == list(range(16, 24))
    assert [sample["ranks"] for sample in step["samples"]] == [[0]] * 4 + [[1]] * 4
    lines = (small_data.parent / "documents.jsonl").read_text().splitlines()
    for sample in step["samples"]:
        (document,) = sample["documents"]
        assert document["file"] == str(small_data.parent / "documents.jsonl")
        assert json.loads(lines[document["number"]])["text"].startswith(document["text"].rstrip("\0"))
        reads = json.loads(audit("when", checkpoints, "--doc", document["document"], "--json"))["reads"]
        assert [(read["step"], read["sample"], read["ranks"]) for read in reads] == [
            (3, sample["sample"], sample["ranks"])
        ]
    printed = audit("who", checkpoints, "--step", 3, "--rank", 1, "--text", 20)
    assert printed.count("sample ") == 4
    assert "rank 1, micro-batch 0" in printed
    assert "rank 0" not in printed


def test_data_that_was_changed_ends_the_run_and_the_audit(run: TrainedRun, tmp_path: Path, audit: Any) -> None:
    config, data = run.directory / "config.yml", run.directory.parent / "x"
    kept = tmp_path / "kept"
    kept.mkdir()
    for path in data.parent.glob("x.*"):
        shutil.copy(path, kept / path.name)
    documents = [document.copy() for document in IndexedDataset(data)]
    with IndexedDatasetWriter(data, dtype=IndexedDataset(data).dtype) as writer:
        for document in documents[::-1]:
            writer.add_document(document)
    longer = run_deepy(run.directory, "train.py", config, "train_iters=5", "num_gpus=1")
    assert longer.exit_code != 0
    assert "x.idx and " in longer.printed
    assert "x.bin hold something else than before" in longer.printed
    assert "allow_data_change" in longer.printed
    checkpoints = run.directory / "checkpoints"
    with pytest.raises(DataError, match="is not what the run read"):
        audit("who", checkpoints, "--step", 3)
    assert f"{kept}/x (" in audit("who", checkpoints, "--step", 3, "--data", f"{data.parent}={kept}")


def test_a_dataset_is_named_by_path_or_name_and_its_copies_are_the_same(tool: ModuleType, tmp_path: Path) -> None:
    for prefix, token in {"old/a": 1, "new/a": 1, "new/b": 2, "other/b": 3}.items():
        with IndexedDatasetWriter(tmp_path / prefix, dtype="<u2") as writer:
            writer.add_document([token])

    def named(name: str | None, *segments: tuple[str, ...]) -> str:
        opened = [
            SimpleNamespace(sources=[SimpleNamespace(dataset=IndexedDataset(tmp_path / prefix)) for prefix in prefixes])
            for prefixes in segments
        ]
        return str(tool.dataset_named(opened, name, Moves()).prefix.relative_to(tmp_path))

    moved = ("old/a", "new/b"), ("new/a", "new/b")
    assert named("a", *moved) == "old/a"
    assert named(str(tmp_path / "new" / "a"), *moved) == "new/a"
    assert named(None, ("old/a",), ("new/a",)) == "old/a"
    for name, segments in ((None, moved), ("b", (("new/b",), ("other/b",)))):
        with pytest.raises(DataError, match="so say whose document it is: --source /"):
            named(name, *segments)
    with pytest.raises(DataError, match=r"--source c is none of the datasets .* choose /"):
        named("c", *moved)


def test_a_mistake_is_told_in_a_sentence(run: TrainedRun, audit: Any, tmp_path: Path) -> None:
    checkpoints = run.directory / "checkpoints"
    for words, sentence in {
        ("who", checkpoints, "--step", 9): "step 9 is not in this checkpoint's record, which knows steps 1 to 4",
        ("who", checkpoints, "--step", 1, "--rank", 2): "--rank 2 is not there: step 1 has ranks 0 to 1",
        ("who", tmp_path, "--step", 1): "there is no checkpoint to load",
    }.items():
        with pytest.raises(NeoXError, match=sentence):
            audit(*words)
