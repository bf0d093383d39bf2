"""A person talks with a model of two processes through `deepy.py`, at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from megatron.conversion.converting.write import write_checkpoint
from megatron.tokenizer.char_level import VOCAB_SIZE
from tests.conftest import REPOSITORY
from tests.end_to_end.runs import ON_CPU, deepy_command
from tests.terminal import BACKSPACE, CTRL_C, CTRL_D, UP, Terminal, at_terminal
from tests.unit.conversion.in_memory import opened
from tests.unit.model.builders import DEFAULTS, VARIANTS

POSITIONS = {"max_position_embeddings": 20000, "seq_length": 20000}


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "model").mkdir()
    write_checkpoint(opened("pythia", rows=VOCAB_SIZE, **POSITIONS).source, tmp_path / "model", config_yaml="")
    config = {
        **DEFAULTS,
        **VARIANTS["pythia"],
        **POSITIONS,
        "make_vocab_size_divisible_by": 1,
        "tokenizer_type": "CharLevelTokenizer",
        "load": str(tmp_path / "model"),
        "text_gen_type": "interactive",
        "maximum_tokens": 19000,
        "model_parallel_size": 2,
        "num_gpus": 2,
    }
    (tmp_path / "talk.yml").write_text(yaml.safe_dump(config))
    environment = {**ON_CPU, "XDG_STATE_HOME": str(tmp_path / "state")}
    command = deepy_command("generate.py", tmp_path / "talk.yml")
    with at_terminal(command, environment=environment, directory=REPOSITORY) as terminal:
        yield terminal


def test_answers_stream_and_stop_and_lines_come_back(terminal: Terminal, tmp_path: Path) -> None:
    before = terminal.settings
    terminal.await_text("Ctrl-D")
    terminal.await_text("> ")
    terminal.type("Once\r")
    terminal.await_text("Once")
    terminal.await_more(40)  # it streams: the whole answer takes minutes
    terminal.type(CTRL_C)
    terminal.await_text("(stopped)")
    terminal.await_text("> ")
    terminal.type(UP + BACKSPACE * 2 + "e\r")
    terminal.await_more(40)
    terminal.type(CTRL_C)
    terminal.await_text("(stopped)")
    terminal.await_text("> ")
    terminal.type("never sent")
    terminal.await_text("never sent")  # keys that nobody has read yet are dropped by the terminal itself
    terminal.type(CTRL_C)
    terminal.await_text("> ")
    terminal.type(CTRL_D)
    assert terminal.process.wait(timeout=30) == 0, terminal.printed
    assert terminal.settings == before
    assert (tmp_path / "state" / "neox" / "prompts").read_text().splitlines() == ["Once", "One"]
