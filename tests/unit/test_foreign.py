"""What is said of directories that hold no checkpoint of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.foreign import Program, is_free, may_be_on_the_hub, program_of, program_of_load, what_is_there

FOREIGN = [
    (
        ("config.json", "model.safetensors"),
        "a model of Hugging Face transformers (config.json, model.safetensors)",
        Program.HUGGING_FACE,
    ),
    (
        ("config.json", "pytorch_model-00001-of-00002.bin"),
        "a model of Hugging Face transformers",
        Program.HUGGING_FACE,
    ),
    (("adapter_config.json", "adapter_model.safetensors"), "an adapter of Hugging Face PEFT", Program.PEFT),
    (("params.json", "consolidated.00.pth"), "a Llama as Meta publishes it", Program.META),
    (
        ("latest_checkpointed_iteration.txt", "iter_0000100/mp_rank_00/model_optim_rng.pt"),
        "checkpoints of Megatron-LM",
        Program.MEGATRON,
    ),
    (("mp_rank_00_model_states.pt",), "it holds a checkpoint of GPT-NeoX or DeepSpeed,", Program.NEOX),
    (
        ("latest", "epoch1/mp_rank_00_model_states.pt"),
        "it holds a checkpoint of GPT-NeoX or DeepSpeed (epoch1),",
        Program.NEOX,
    ),
]
READ = (Program.HUGGING_FACE, Program.NEOX, Program.META)


def make(directory: Path, *names: str) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return directory


@pytest.mark.parametrize(("names", "kind", "program"), FOREIGN)
def test_what_other_programs_write_is_recognised(
    tmp_path: Path, names: tuple[str, ...], kind: str, program: Program
) -> None:
    sentence = what_is_there(make(tmp_path, *names))
    assert kind in sentence
    assert sentence.endswith("convert_hf_to_neox.py)" if program in READ else ", which cannot be loaded")
    assert program_of(tmp_path) is program
    assert program_of_load(str(tmp_path)) is (program if program in READ else None)
    assert not is_free(tmp_path)


def test_a_directory_with_a_checkpoint_of_ours_is_ours_whatever_else_lies_there(tmp_path: Path) -> None:
    make(tmp_path, "global_step10/layer_00-model_00-model_states.pt", "latest")
    assert program_of_load(str(tmp_path)) is Program.NEOX
    make(tmp_path, "global_step20/manifest.json")
    assert program_of_load(str(tmp_path)) is None
    assert program_of_load(str(tmp_path / "nowhere")) is None
    assert program_of_load("s3://bucket/models") is None


def test_what_gpt_neox_has_trained_since_is_what_latest_names(tmp_path: Path) -> None:
    make(tmp_path, "global_step10/mp_rank_00_model_states.pt", "global_step20/manifest.json")
    named = {"global_step20": None, "global_step10": Program.NEOX, "global_step30": None, "": None, "\xff": None}
    for tag, program in named.items():
        (tmp_path / "latest").write_text(tag + "\n", encoding="latin-1")
        assert program_of_load(str(tmp_path)) is program, tag
    assert program_of_load(str(tmp_path / "global_step10")) is Program.NEOX


@pytest.mark.parametrize(
    ("load", "may_be"),
    [
        ("hf:EleutherAI/pythia-160m", True),
        ("hf:gpt2", True),
        ("hf:EleutherAI/pythia-160m@step3000", True),
        ("hf:./model", False),
        ("hf:/models/llama", False),
        ("hf:~/llama", False),
        ("hf:a/b/c", False),
        ("hf:", False),
    ],
)
def test_what_begins_with_hf_is_a_model_of_transformers_and_may_be_one_of_the_hub(load: str, may_be: bool) -> None:
    assert program_of_load(load) is Program.HUGGING_FACE
    assert may_be_on_the_hub(load) is may_be


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
