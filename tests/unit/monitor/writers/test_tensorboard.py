"""TensorBoard files are only a view of the records: what matters here is that they can be made, or that one is told why not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron.errors import NeoXError
from megatron.monitor.writers.tensorboard import TensorBoardWriter


def arguments(directory: Path) -> Any:
    return SimpleNamespace(tensorboard_dir=str(directory))


def test_an_event_file_appears_in_the_directory(tmp_path: Path) -> None:
    writer = TensorBoardWriter(arguments(tmp_path / "events"))
    writer.write(1, {"loss": 2.5, "validation/loss": 2.0})
    writer.close()
    assert len(list((tmp_path / "events").glob("events.out.tfevents.*"))) == 1


def test_a_directory_that_cannot_be_made_is_a_sentence_with_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NeoXError, match=r'"tensorboard_dir" is ".*file", and nothing can be written there'):
        TensorBoardWriter(arguments(tmp_path / "file"))
