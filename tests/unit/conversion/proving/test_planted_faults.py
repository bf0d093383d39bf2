"""Mistakes that converters make, planted one by one: each is caught, with a sentence that says where, and leaves no model behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from megatron.checkpointing.inspecting.lines import Line
from megatron.conversion.converting import (
    to_checkpoint_command,
    to_checkpoint_parser,
    to_hugging_face_command,
    to_hugging_face_parser,
)
from megatron.conversion.converting.to_hugging_face import to_hugging_face
from megatron.conversion.export.place import REPORT
from megatron.conversion.opening import open_model
from megatron.errors import CheckpointError
from tests.conversion_faults.table import EXPORT, FAULTS, IMPORT
from tests.hugging_face_models import MODELS, write_model
from tests.unit.conversion.test_loading import neox_run
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE

Models = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Of a model of MODELS the directory of transformers and our checkpoint of it; without a fault both conversions succeed."""
    place = tmp_path_factory.mktemp("models")
    made: dict[str, tuple[Path, Path]] = {}

    def model(name: str) -> tuple[Path, Path]:
        if name not in made:
            theirs, ours = write_model(name, place / name), place / f"{name} of ours"
            assert converted(IMPORT, theirs, ours, name) == ""
            assert converted(EXPORT, ours, place / f"{name} back", name) == ""
            made[name] = theirs, ours
        return made[name]

    return model


def converted(way: str, source: Path, target: Path, model: str) -> str:
    """What the tool says when it fails, "" when it succeeds."""
    printed: list[Line] = []
    show: Callable[[Iterable[Line]], None] = printed.extend
    try:
        if way == EXPORT:
            words = ["--input_dir", source, "--output_dir", target, "--architecture", MODELS[model].family]
            status = to_hugging_face_command.run(to_hugging_face_parser.parse_arguments(list(map(str, words))), show)
        else:
            words = [source, "--output_dir", target]
            status = to_checkpoint_command.run(to_checkpoint_parser.parse_arguments(list(map(str, words))), show)
    except (CheckpointError, AssertionError) as error:
        return str(error)
    return "".join(text for text, _ in printed[-1]) if status else ""


CASES = [(name, way) for name, fault in FAULTS.items() for way in fault.ways]


@pytest.mark.parametrize(("name", "way"), CASES, ids=[", ".join(case) for case in CASES])
def test_a_fault_is_caught_and_leaves_no_model(
    models: Models, name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = FAULTS[name]
    theirs, ours = models(fault.model)
    fault.plant(monkeypatch, fault.model)
    said = converted(way, ours if way == EXPORT else theirs, tmp_path / "target", fault.model)
    assert re.search(fault.ways[way], said), said
    assert {path.name for path in tmp_path.rglob("*")} <= {"target", REPORT}


def test_a_model_of_transformers_that_is_read_wrongly_is_not_written_as_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = write_model("phi-3", tmp_path / "phi-3")
    assert to_hugging_face(open_model(theirs), tmp_path / "right", wanted="mistral").equal
    FAULTS["gate and up exchanged in one tensor"].plant(monkeypatch, "phi-3")
    conversion = to_hugging_face(open_model(theirs), tmp_path / "wrong", wanted="mistral")
    assert re.search("^it is not read as it should be: Phi3ForCausalLM .* is block 0$", conversion.proof.problem)
    assert [path.name for path in (tmp_path / "wrong").iterdir()] == [REPORT]


def test_what_a_proof_does_not_show_of_files_of_gpt_neox_is_said(tmp_path: Path) -> None:
    neox_run(tmp_path / "neox", dict(VARIANTS["llama"]), dict(VARIANTS["llama"]))
    conversion = to_hugging_face(open_model(tmp_path / "neox", vocab_size=VOCAB_SIZE), tmp_path / "model")
    assert conversion.equal
    assert any(
        "does not show that every tensor of those files is in its place" in remark for remark in conversion.all_remarks
    )
