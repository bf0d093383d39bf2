"""What does not fit together is refused in a sentence: missing files and tensors, unknown ones, other shapes, other vocabularies."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.conversion.legacy.layout import find_layout, saved_values
from megatron.conversion.legacy.source import NeoXSource
from megatron.errors import CheckpointError
from megatron.neox_arguments import NeoXArgs
from tests.unit.conversion.legacy.neox_files import write_neox
from tests.unit.conversion.legacy.test_source import full_tensors
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args

LLAMA = VARIANTS["llama"]


@pytest.fixture
def args() -> NeoXArgs:
    return build_args(**LLAMA)


@pytest.fixture
def checkpoint(tmp_path: Path, args: NeoXArgs) -> Path:
    """Two ranks, with 64 rows for 59 tokens."""
    write_neox(tmp_path / "run", args, full_tensors(args), ranks=2, rows=64)
    return tmp_path / "run"


def change(checkpoint: Path, layer: int, **changes: Any) -> None:
    """Set (or, with None, remove) tensors in the files of a layer; `__` stands for the dots in names."""
    for file in checkpoint.glob(f"global_step7/layer_{layer:02d}-*"):
        content = torch.load(file, weights_only=False)
        for name, value in changes.items():
            content.pop(name.replace("__", "."), None)
            if value is not None:
                content[name.replace("__", ".")] = value
        torch.save(content, file)


def refusal(directory: Path, args: NeoXArgs, *, vocab_rows: int = VOCAB_SIZE, iteration: int | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        NeoXSource(directory, args, vocab_rows=vocab_rows, iteration=iteration)
    return str(caught.value).replace(str(directory), "DIR")


def test_unknown_and_missing_tensors_are_named(checkpoint: Path, args: NeoXArgs) -> None:
    change(checkpoint, 3, attention__rpe__weight=torch.ones(3), mlp__linear2__weight=None)
    change(checkpoint, 2, mlp__linear1__weight=torch.ones(7, 32))
    assert refusal(checkpoint, args) == (
        "DIR/global_step7 does not hold this model: 2.mlp.linear1.weight is [7, 32] where a rank has [48, 32], 3.mlp.linear2.weight is missing, "
        "3.attention.rpe.weight is unknown; compare the settings of the model with those the checkpoint was trained with"
    )


def test_what_is_no_tensor_is_named(checkpoint: Path, args: NeoXArgs) -> None:
    change(checkpoint, 2, attention__x="text", mlp___extra_state="text")
    words = refusal(checkpoint, args)
    assert 'layer_02-model_00-model_states.pt holds "attention.x", a str where a tensor belongs' in words


def test_parameters_that_zero_3_keeps_elsewhere_are_told(checkpoint: Path, args: NeoXArgs) -> None:
    change(checkpoint, 2, mlp__linear1__weight=torch.ones(0))
    assert refusal(checkpoint, args).endswith("; tensors without elements are what ZeRO stage 3 leaves in these files")


def test_what_transformer_engine_sums_twice_is_refused(tmp_path: Path) -> None:
    args = build_args(**VARIANTS["pythia"])
    write_neox(tmp_path, args, full_tensors(args), ranks=2, rows=64, names="engine")
    assert "2.attention.proj.weight is of Transformer Engine, with which gpt_j_residual sums twice" in refusal(
        tmp_path, args
    )


def test_files_that_would_run_something_need_trust(checkpoint: Path, args: NeoXArgs) -> None:
    change(checkpoint, 2, extra_state=timedelta(1), attention___extra_state=timedelta(1))
    assert "names datetime.timedelta, " in refusal(checkpoint, args)
    change(checkpoint, 2, extra_state=None)
    source = NeoXSource(checkpoint, args, vocab_rows=VOCAB_SIZE, trusted=True)
    assert source.read("2.mlp.linear2.weight/weight").shape == (32, 48)


def test_heads_that_are_tied_here_and_not_there_are_told(checkpoint: Path, args: NeoXArgs, tmp_path: Path) -> None:
    tied = build_args(**{**LLAMA, "no_weight_tying": False})
    words = refusal(checkpoint, tied)
    assert words.endswith(
        "6.final_linear.weight is unknown; the checkpoint has an output layer of its own: set no_weight_tying: true"
    )
    write_neox(tmp_path / "tied", tied, full_tensors(tied), sequential=True)
    words = refusal(tmp_path / "tied", args)
    assert "has no layer 6, only 0, 2-3, 5: it has no output layer of its own, so set no_weight_tying: false" in words


def test_missing_files_are_named(checkpoint: Path, args: NeoXArgs) -> None:
    (checkpoint / "global_step7" / "layer_03-model_01-model_states.pt").unlink()
    words = refusal(checkpoint, args)
    assert "of 2 tensor-parallel ranks there is no file of layer 3 of rank 1; copy all files" in words
    (checkpoint / "global_step7" / "layer_03-model_00-model_states.pt").unlink()
    assert "has no layer 3, only 0, 2, 5-6: a model of num_layers 2 has 0, 2-3, 5-6" in refusal(checkpoint, args)
    for file in checkpoint.glob("global_step7/layer_*"):
        file.unlink()
    assert "mp_rank_00_model_states.pt holds no weights: they are in files layer_" in refusal(checkpoint, args)
    (checkpoint / "global_step7" / "mp_rank_00_model_states.pt").unlink()
    assert refusal(checkpoint, args) == "DIR/global_step7 is incomplete: there is no mp_rank_00_model_states.pt"


def test_models_of_other_depths_are_told(checkpoint: Path, tmp_path: Path) -> None:
    deep = build_args(**LLAMA, num_layers=3)
    assert "has no layer 4, 7, only 0, 2-3, 5-6: a model of num_layers 3 has 0, 2-4, 6-7" in refusal(checkpoint, deep)
    deep = build_args(**LLAMA, num_layers=4)
    write_neox(tmp_path / "deep", deep, full_tensors(deep))
    words = refusal(tmp_path / "deep", build_args(**LLAMA))
    assert "has no layer 6, only 0, 2-5, 7-8: a model of num_layers 2 has 0, 2-3, 5-6; set num_layers" in words


def test_files_that_lack_a_whole_rank_are_told(checkpoint: Path, args: NeoXArgs) -> None:
    for file in checkpoint.glob("global_step7/layer_*-model_01-*"):
        file.unlink()
    words = refusal(checkpoint, args)
    assert "2.attention.dense.weight is [32, 16] where a rank has [32, 32]" in words
    assert words.endswith("; the saved settings have model_parallel_size 2, and there are files of 1: copy all files")


def test_files_of_other_models_are_told(checkpoint: Path, args: NeoXArgs) -> None:
    file = checkpoint / "global_step7" / "layer_02-model_01-model_states.pt"
    torch.save({**torch.load(file), "mlp.linear2.weight": torch.ones(32, 1)}, file)
    assert "2.mlp.linear2.weight is [32, 1] and [32, 24]" in refusal(checkpoint, args)


def test_files_of_deepspeed_that_are_not_of_gpt_neox_are_told(tmp_path: Path, args: NeoXArgs) -> None:
    (tmp_path / "global_step1").mkdir()
    torch.save({"module": {"lm_head.weight": torch.ones(1)}}, tmp_path / "global_step1" / "mp_rank_00_model_states.pt")
    assert 'holds "lm_head.weight": this is no checkpoint of GPT-NeoX' in refusal(tmp_path, args)


def test_the_vocabulary_must_be_the_tokenizers(checkpoint: Path, args: NeoXArgs) -> None:
    words = refusal(checkpoint, args, vocab_rows=65)
    assert "has 64 rows of vocabulary, fewer than the 65 tokens of the tokenizer: likely" in words
    settings = '{"make-vocab-size-divisible-by": 2, "model_parallel_size": 2}'
    (checkpoint / "global_step7" / "configs" / "run.yml").write_text(settings)
    words = refusal(checkpoint, args)
    assert "has 64 rows of vocabulary, and the tokenizer has 59 tokens: padding to a multiple of 4" in words
    assert words.endswith("or vocab_size: 64 to keep all rows")
    assert "leaves fewer than 4 rows over, not 4" in refusal(checkpoint, args, vocab_rows=60)
    NeoXSource(checkpoint, args, vocab_rows=61)
    of_four = settings.replace(": 2}", ": 4}")  # saved by more ranks than the files are of now
    (checkpoint / "global_step7" / "configs" / "run.yml").write_text(of_four)
    NeoXSource(checkpoint, args, vocab_rows=57)


def test_dropped_padding_is_said_and_all_rows_can_be_kept(checkpoint: Path, args: NeoXArgs) -> None:
    (remark,) = NeoXSource(checkpoint, args, vocab_rows=VOCAB_SIZE).remarks(args)
    assert "the 5 rows of padding are dropped" in remark
    assert remark.endswith("vocab_size: 64 keeps them")
    whole = NeoXSource(checkpoint, args, vocab_rows=64)
    assert whole.remarks(args) == []
    assert whole.read("6.final_linear.weight/weight")[59:].eq(1).all()


def test_other_computations_of_gpt_neox_are_remarked(tmp_path: Path) -> None:
    wanted = {**LLAMA, "sliding_window_width": 5, "gpt_j_residual": True}
    args = build_args(**wanted)
    settings = {"sliding_window_width": 5, "mlp_type": "llama"}
    write_neox(tmp_path, args, full_tensors(args), names="w", by_query_head=True, settings=settings)
    source = NeoXSource(tmp_path, args, vocab_rows=VOCAB_SIZE)
    words = " ".join(source.remarks(args))
    assert "set sliding_window_width: 6 " in words
    assert "leaves out the output of attention" in words
    assert "an rms_norm_epsilon of 1e-12 comes closest" in words
    assert "sliding" not in " ".join(source.remarks(build_args(**{**wanted, "sliding_window_width": 6})))


def test_steps_are_found(checkpoint: Path, args: NeoXArgs) -> None:
    (checkpoint / "global_step7").rename(checkpoint / "global_step9")
    words = refusal(checkpoint, args)
    assert 'latest names "global_step7", where there are no weights (there are 9): set iteration' in words
    assert find_layout(checkpoint, 9).iteration == 9
    assert "holds no checkpoint of GPT-NeoX of step 8 (there are 9)" in refusal(checkpoint, args, iteration=8)
    assert "is the checkpoint of step 9, not of 8" in refusal(checkpoint / "global_step9", args, iteration=8)
    (checkpoint / "latest").unlink()
    (checkpoint / "global_step10").mkdir()  # empty: saving it broke off
    assert find_layout(checkpoint, None).iteration == 9
    shutil.copytree(checkpoint / "global_step9", checkpoint / "global_step11")
    assert find_layout(checkpoint, None).iteration == 11, "the last, by number"
    (checkpoint / "global_step11" / "layer_02_expert_0_mp_rank_00_model_states.pt").write_text("")
    assert "global_step11 holds experts of a mixture of experts of DeepSpeed" in refusal(checkpoint, args)
    assert refusal(checkpoint.parent / "absent", args).endswith("holds no checkpoint of GPT-NeoX")


def test_settings_are_found_beside_the_steps_as_well(checkpoint: Path) -> None:
    step = checkpoint / "global_step7"
    assert saved_values(step) == {"make_vocab_size_divisible_by": 32, "model_parallel_size": 2}
    (step / "configs").rename(checkpoint / "configs")
    (checkpoint / "configs" / "more.yml").write_text('# comment\n"lr-decay-style": "cosine",\n')
    with pytest.raises(CheckpointError, match=r"more\.yml cannot be read"):
        saved_values(step)
    (checkpoint / "configs" / "more.yml").write_text('{"lr-decay-style": "cosine",}\n')
    assert saved_values(step)["lr_decay_style"] == "cosine"
    (checkpoint / "configs").rename(checkpoint / "elsewhere")
    assert saved_values(step) == {}
