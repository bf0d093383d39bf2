"""tools/datasets/show.py shows the samples that a run of a config reads, with the labels it reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from tests.conftest import REPOSITORY
from tests.end_to_end.runs import write_config


def test_samples_of_a_run_with_labels(small_data: Path, tmp_path: Path) -> None:
    text = IndexedDataset(small_data)
    with IndexedDatasetWriter(tmp_path / "labels", dtype="i4") as writer:
        for document in text:
            writer.add_document(np.where(np.isin(document, list(b"class")), document.astype(np.int32), -100))
    config = write_config(
        tmp_path,
        small_data,
        data_path=None,
        **{f"{part}_data_paths": [str(small_data)] for part in ("train", "valid", "test")},
        train_label_data_paths=[str(tmp_path / "labels")],
        pack_impl="unpacked",
        seq_length=400,
        max_position_embeddings=400,
        train_iters=50,
    )
    command = [sys.executable, REPOSITORY / "tools/datasets/show.py", "--config", config, "--sample", "7", "0"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    legend, *views = shown.split("\n\n")
    assert legend.startswith("+ loss is taken")
    assert [view.split(":")[0] for view in views] == ["train sample 7", "train sample 0"]
    for view in views:
        _, note, *lines = view.rstrip("\n").split("\n")
        document = int(note.split()[1])
        assert note.endswith(f"of {small_data}")
        assert lines[-1].startswith("  padding")
        tokens = [(line[9], token) for line in lines[:-1] for token in line[11:].split("│")]
        spelled = [chr(token).replace(" ", "·").replace("\0", "\\x00") for token in text[document].tolist()]
        assert [token for _, token in tokens] == spelled[:401]
        expected = ["+" if place and token in "class" else "-" for place, token in enumerate(spelled[:401])]
        assert [mark for mark, _ in tokens] == expected
