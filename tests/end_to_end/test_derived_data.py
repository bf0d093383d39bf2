"""The commands that make labels and rewards, and merge datasets, as a user starts them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron.data.indexed_dataset import IndexedDataset
from tests.end_to_end.test_prepare_data import run
from tests.unit.data.derived.chats import CHATML, LLAMA3, chat, write_tokenizer

WITH_MASK = "tools/datasets/preprocess_data_with_mask.py"
WITH_CHAT_TEMPLATE = "tools/datasets/preprocess_data_with_chat_template.py"
MERGE = "tools/datasets/merge_datasets.py"


def write_lines(path: Path, *records: object) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def documents(prefix: Path) -> list[list[float]]:
    dataset = IndexedDataset(prefix)
    return [dataset[i].tolist() for i in range(len(dataset))]


def test_masks_are_written_and_merged(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", {"text": "Q:A"}, {"text": "none"}, {"text": "Q:"})
    tokenizer = ("--tokenizer-type", "CharLevelTokenizer", "--mask-before-token", "58")
    for name in ("parts/0", "parts/1"):
        result = run(WITH_MASK, "--input", "a.jsonl", "--output-prefix", name, *tokenizer, directory=tmp_path)
        assert result.returncode == 0, result.stderr
    assert "1 documents do not have the tokens 58: they are trained on as a whole\n" in result.stdout
    assert "1 documents have nothing after the tokens 58: they are not trained on\n" in result.stdout
    merged = run(MERGE, "--input", "parts", "--output-prefix", "all_text_document", directory=tmp_path)
    assert (merged.returncode, merged.stdout) == (0, "all_text_document.bin, .idx: 6 documents, 18 tokens\n")
    assert (
        "left out, as they belong to texts (--with-companions merges them, too): 0_text_label_document" in merged.stderr
    )
    merged = run(
        MERGE, "--input", "parts", "--with-companions", "--output-prefix", "all_text_document", directory=tmp_path
    )
    assert merged.returncode == 0, merged.stderr
    assert documents(tmp_path / "all_text_document") == [[*b"Q:A"], [*b"none"], [*b"Q:"]] * 2
    assert documents(tmp_path / "all_text_label_document") == [[-100, -100, 65], [*b"none"], [-100, -100]] * 2


def test_pairs_of_conversations_are_written_with_labels_and_rewards(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "hf", chat_template=CHATML)
    (tmp_path / "llama3.jinja").write_text(LLAMA3)
    good, bad = chat("user: a", "assistant: yes"), chat("user: a", "assistant: no")
    write_lines(
        tmp_path / "a.jsonl",
        {"chosen": good, "rejected": bad, "label": True},
        {"chosen": good, "rejected": "no", "label": True},
        {"chosen": bad[:1], "rejected": good, "label": 0.5},
    )
    command = [
        *(
            "--input",
            "a.jsonl",
            "--output-prefix",
            "out/x",
            "--jsonl-keys",
            "chosen",
            "rejected",
            "--tokenizer-path",
            "hf",
        ),
        *("--generation-role", "assistant", "--only-last", "--reward-key", "label", "--dataset-impl", "mmap"),
        *("--num-docs", 3, "--workers", 2, "--log-interval", 1, "--chat-template", "llama3.jinja"),
    ]
    failed = run(WITH_CHAT_TEMPLATE, *command, directory=tmp_path)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert (
        failed.stderr.splitlines()[-1] == 'a.jsonl:2 has a text under "rejected", where a list of messages is needed.'
    )
    result = run(WITH_CHAT_TEMPLATE, *command, "--on-error", "skip", "--resume", directory=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1 conversations have no turn that is trained on\n" in result.stdout
    assert len(result.stdout.splitlines()) == 8
    for key in ("chosen", "rejected"):
        tokens, labels, rewards = (
            documents(tmp_path / f"out/x_{key}{kind}_document") for kind in ("", "_label", "_reward")
        )
        assert list(map(len, tokens)) == list(map(len, labels))
        assert rewards == [[1.0], [0.5]]
    assert [label for label in labels[1] if label != -100] == tokens[1][-5:]


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--tokenizer-path", "nowhere"], "the tokenizer nowhere does not exist", 1),
        (["--tokenizer-path", "hf"], "hf has no chat template, neither in chat_template.jinja nor in", 1),
        (["--tokenizer-path", "hf", "--no-mask", "--only-last"], "--no-mask trains on everything", 2),
        (["--tokenizer-path", "hf", "--date", "today"], "'today' is not a date such as 2024-07-26", 2),
    ],
)
def test_a_mistake_is_told_without_a_traceback(arguments: list[str], message: str, code: int, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "hf")
    write_lines(tmp_path / "a.jsonl", {"conversation": chat("user: a")})
    result = run(WITH_CHAT_TEMPLATE, "--input", "a.jsonl", "--output-prefix", "x", *arguments, directory=tmp_path)
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
