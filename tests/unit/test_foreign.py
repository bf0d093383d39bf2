"""What is said of directories that hold no checkpoint of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.foreign import foreign_kind, is_free, what_is_there

FOREIGN = [
    (("config.json", "model.safetensors"), "a model of Hugging Face transformers (config.json, model.safetensors)"),
    (("config.json", "pytorch_model-00001-of-00002.bin"), "a model of Hugging Face transformers"),
    (("adapter_config.json", "adapter_model.safetensors"), "an adapter of Hugging Face PEFT"),
    (("latest_checkpointed_iteration.txt", "iter_0000100/mp_rank_00/model_optim_rng.pt"), "checkpoints of Megatron-LM"),
    (("mp_rank_00_model_states.pt",), "it holds a checkpoint of GPT-NeoX or DeepSpeed,"),
    (("latest", "epoch1/mp_rank_00_model_states.pt"), "it holds a checkpoint of GPT-NeoX or DeepSpeed (epoch1),"),
]


def make(directory: Path, *names: str) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return directory


@pytest.mark.parametrize(("names", "kind"), FOREIGN)
def test_what_other_programs_write_is_recognised(tmp_path: Path, names: tuple[str, ...], kind: str) -> None:
    sentence = what_is_there(make(tmp_path, *names))
    assert kind in sentence
    assert sentence.endswith(", which cannot be loaded without being converted")
    assert foreign_kind(tmp_path) is not None
    assert not is_free(tmp_path)


def test_a_parent_of_runs_names_them(tmp_path: Path) -> None:
    make(tmp_path, "first/global_step10/manifest.json", "second/global_step5/manifest.json", "notes.txt")
    first, second = tmp_path / "first", tmp_path / "second"
    assert what_is_there(tmp_path) == f"there are checkpoints further down; give {first} (or {second})"
    assert is_free(tmp_path)


def test_checkpoints_two_levels_down_are_found_and_deeper_ones_are_not_looked_for(tmp_path: Path) -> None:
    make(tmp_path, "run/checkpoints/global_step10/manifest.json", "run/logs/metrics.jsonl")
    assert what_is_there(tmp_path) == f"there are checkpoints further down; give {tmp_path / 'run' / 'checkpoints'}"
    assert "further down" not in what_is_there(make(tmp_path / "deep", "a/b/c/global_step1/manifest.json"))


def test_everything_else_is_described(tmp_path: Path) -> None:
    assert what_is_there(tmp_path) == "the directory is empty"
    assert what_is_there(make(tmp_path, ".lock", ".tmp-a")) == "the directory is empty"
    assert what_is_there(make(tmp_path, "b", "a")) == "it contains a, b"
    assert what_is_there(make(tmp_path, *(f"c{number:02d}" for number in range(20)))).endswith("c09 and 10 more")
    assert what_is_there(tmp_path / "a") == "it is a file, not a directory"
    assert what_is_there(tmp_path / "nowhere") == "the directory does not exist"
    assert not is_free(tmp_path / "a")
    assert is_free(tmp_path / "nowhere")
