"""Models of other programs that a configuration names in `load`: they are the model that is configured, or it is said what is not."""

from __future__ import annotations

from dataclasses import Field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from megatron.conversion import agreement, loading
from megatron.conversion.agreement import check_agreement
from megatron.conversion.loading import is_of_another_program, load_into_module, open_for_all
from megatron.conversion.mapping.architecture import Architecture, architecture_of, config_keys
from megatron.conversion.opening import open_model
from megatron.errors import CheckpointError, NeoXError
from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments import NeoXArgs
from tests.unit.conversion.in_memory import weights_of
from tests.unit.conversion.legacy.neox_files import write_neox
from tests.unit.conversion.reading.test_hugging_face import tensors, write
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args, build_model, parameters_by_name

FP32 = BuildContext(dtype=torch.float32)
ROWS = 11
RUN = {"seq_length": 8, "train_iters": 1, "train_micro_batch_size_per_gpu": 1, "precision": "fp32"}


def configured(directory: Path, **changes: Any) -> NeoXArgs:
    """A run that begins from the model in a directory, with changes of what that needs."""
    keys = config_keys(open_model(f"hf:{directory}").architecture)
    return NeoXArgs.from_dict({**RUN, **keys, "load": f"hf:{directory}", **changes})


def module(args: NeoXArgs, rows: int = ROWS) -> SequentialModel:
    specs = build_layer_specs(args, vocab_size=rows, padded_vocab_size=16)
    return SequentialModel(specs, FP32, seed=3)


def test_a_module_gets_the_weights_in_its_dtype_and_no_padding(tmp_path: Path) -> None:
    directory = write(tmp_path / "model", {name: tensor.bfloat16() for name, tensor in tensors().items()})
    args = configured(directory)
    with pytest.raises(CheckpointError, match="says by its own files what model it is: leave out the settings"):
        open_model(directory, args=args)
    model = module(args)
    parameters_by_name(model)["0.word_embeddings.weight"].data.fill_(7)
    assert is_of_another_program(args.load or "", SINGLE)
    load_into_module(args, model, vocab_size=ROWS, group=SINGLE)
    found = parameters_by_name(model)
    assert torch.equal(
        found["0.word_embeddings.weight"][:ROWS], tensors()["model.embed_tokens.weight"].bfloat16().float()
    )
    assert not found["0.word_embeddings.weight"][ROWS:].any()
    assert torch.equal(found["5.norm.scale"], tensors()["model.norm.weight"].bfloat16().float())


CHANGES: list[dict[str, Any]] = [
    {"rms_norm_epsilon": 1e-3},
    {"rotary_emb_base": 500000},
    {"norm": "layernorm"},
    {"num_kv_heads": 2, "hidden_size": 16},
    {"activation": "gelu", "intermediate_size": 12, "bias_gelu_fusion": True},
    {"no_weight_tying": False},
    {"rope_scaling": {"type": "linear", "factor": 2.0}, "sliding_window_width": 4},
    {"gpt_j_residual": True, "use_bias_in_mlp": True},
    {"pos_emb": "learned"},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "_".join(changes))
def test_another_model_is_refused_with_the_lines_that_make_it_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = write(tmp_path / "model", tensors())
    args = configured(directory, **changes)
    model = module(args)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(CheckpointError, match=r"is another model than the one configured\. It needs:\n") as error:
        load_into_module(args, model, vocab_size=ROWS, group=SINGLE)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    lines = str(error.value).splitlines()[1:]
    assert all(line.startswith("  ") and "# you have " in line for line in lines)
    wanted = yaml.safe_load("\n".join(lines))
    assert wanted.keys() >= changes.keys() - {"intermediate_size"}
    mended = configured(directory, **{**changes, **wanted})
    load_into_module(mended, module(mended), vocab_size=ROWS, group=SINGLE)


def test_a_model_with_rotary_positions_may_be_given_more_or_fewer_of_them(tmp_path: Path) -> None:
    directory = write(tmp_path / "model", tensors())
    for positions in (8, 16, 4096):
        open_for_all(configured(directory, max_position_embeddings=positions), SINGLE, vocab_size=ROWS)
    learned = open_model(directory).architecture
    args = build_args(**VARIANTS["gpt2"])
    ours = architecture_of(args, vocab_size=VOCAB_SIZE)
    assert learned.pos_emb == "rotary"
    with pytest.raises(CheckpointError, match="max_position_embeddings: 1024  # you have 16"):
        check_agreement(replace(ours, max_position_embeddings=1024), args, vocab_size=VOCAB_SIZE, description="x")


OTHERS: dict[str, Any] = {
    **dict.fromkeys(("num_layers", "hidden_size", "num_attention_heads", "num_kv_heads", "head_dim"), 6),
    **dict.fromkeys(("mlp_width", "vocab_size", "opt_pos_emb_offset", "sliding_window_width"), 6),
    "max_position_embeddings": 8,
    "activation": "gelu_tanh",
    "norm": "rmsnorm",
    "norm_epsilon": 1e-3,
    "norm_position": "post",
    "qk_layernorm_scope": "all_heads",
    "pos_emb": "none",
    "train_impl": "rm",
    "rotary_pct": 0.5,
    "rotary_emb_base": 500000,
    "rope_scaling": {"type": "linear", "factor": 2.0},
}
"""A value that a model of another program may have instead of ours; of switches it is the other one."""


@pytest.mark.parametrize("field", fields(Architecture), ids=lambda field: field.name)
def test_whatever_differs_is_found_alone(field: Field[Any]) -> None:
    learned = {"pos_emb": "learned"} if field.name in ("max_position_embeddings", "opt_pos_emb_offset") else {}
    scope = {"use_qk_layernorm": True} if field.name == "qk_layernorm_scope" else {}
    tied = {"gpt_j_residual": True} if field.name == "gpt_j_tied" else {}
    args = build_args(**{"activation": "gelu", "layernorm_epsilon": 1e-4, **learned, **scope, **tied})
    ours = architecture_of(args, vocab_size=VOCAB_SIZE)
    mine = getattr(ours, field.name)
    theirs = replace(ours, **{field.name: not mine if isinstance(mine, bool) else OTHERS[field.name]})
    check_agreement(ours, args, vocab_size=VOCAB_SIZE, description="x")
    with pytest.raises(CheckpointError) as error:
        check_agreement(theirs, args, vocab_size=VOCAB_SIZE, description="x")
    lines = {"vocab_size": 0, "norm": 2}.get(field.name, 1)  # another norm has another epsilon
    assert str(error.value).count("# you have") == lines


def test_the_lines_make_it_the_same_model_where_widths_are_rounded_as_well() -> None:
    rounded = {**VARIANTS["llama"], "mlp_multiple_of": 32}
    args = build_args(**rounded)
    theirs = replace(architecture_of(args, vocab_size=VOCAB_SIZE), mlp_width=48)
    with pytest.raises(CheckpointError) as error:
        check_agreement(theirs, args, vocab_size=VOCAB_SIZE, description="x")
    mended = build_args(**{**rounded, **yaml.safe_load("\n".join(str(error.value).splitlines()[1:]))})
    check_agreement(theirs, mended, vocab_size=VOCAB_SIZE, description="x")


@pytest.mark.parametrize(
    ("theirs", "tokens", "vocab_size", "sentence"),
    [
        (
            50304,
            50277,
            None,
            "has 50304 rows of vocabulary, and the tokenizer has 50277 tokens: set vocab_size: 50304 (rows",
        ),
        (32000, 50277, None, "each token needs a row, so it was trained with another tokenizer; take its own"),
        (
            128256,
            50277,
            None,
            "likely it was trained with another tokenizer; take its own (tokenizer_type, vocab_file), or set",
        ),
        (50304, 50277, 50400, "and vocab_size is 50400 in the configuration: set vocab_size: 50304"),
        (128256, 50277, 50400, "and vocab_size is 50400 in the configuration: set vocab_size: 128256"),
    ],
)
def test_other_rows_of_the_vocabulary_are_explained(
    theirs: int, tokens: int, vocab_size: int | None, sentence: str
) -> None:
    args = build_args(**VARIANTS["llama"], vocab_size=vocab_size)
    rows = tokens if vocab_size is None else vocab_size
    architecture = architecture_of(args, vocab_size=rows)
    check_agreement(architecture, args, vocab_size=rows, description="the model")
    with pytest.raises(CheckpointError) as error:
        check_agreement(replace(architecture, vocab_size=theirs), args, vocab_size=rows, description="the model")
    assert sentence in str(error.value)
    assert str(error.value).startswith("the model has ")


def test_a_checkpoint_of_gpt_neox_is_compared_with_the_settings_that_were_saved_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {**VARIANTS["llama"], "sliding_window_width": 8}
    args, weights = neox_run(tmp_path, {**wanted, "sliding_window_width": 7, "rms_norm_epsilon": 1e-3}, wanted)
    model = build_model(args, context=FP32, padded_vocab_size=64)
    load_into_module(args, model, vocab_size=VOCAB_SIZE, group=SINGLE)
    found = parameters_by_name(model)
    assert torch.equal(found["2.mlp.linear2.weight"], weights["2.mlp.linear2.weight"])

    other = args.model_copy(update={"rotary_emb_base": 500000})
    with pytest.raises(CheckpointError, match="rotary_emb_base: 10000  # you have 500000"):
        open_for_all(other, SINGLE, vocab_size=VOCAB_SIZE)
    said: list[str] = []
    monkeypatch.setattr(agreement.logger, "warning", said.append)
    (tmp_path / "global_step7" / "configs" / "run.yml").write_text("num_layers: many\n")
    open_for_all(other, SINGLE, vocab_size=VOCAB_SIZE)
    assert "is known by its shapes alone" in said[0]
    assert "--config_file" not in said[0], "which a run does not have"


def test_the_settings_of_the_step_that_is_loaded_are_compared(tmp_path: Path) -> None:
    pythia = VARIANTS["pythia"]
    args, _ = neox_run(tmp_path, {**pythia, "layernorm_epsilon": 1e-3}, pythia)
    with pytest.raises(CheckpointError, match=r"layernorm_epsilon: 0\.001  # you have 1\.0e-05"):
        open_for_all(args, SINGLE, vocab_size=VOCAB_SIZE)
    (tmp_path / "global_step7").rename(tmp_path / "global_step6")
    neox_run(tmp_path, pythia, pythia)
    open_for_all(args, SINGLE, vocab_size=VOCAB_SIZE)
    with pytest.raises(CheckpointError, match="global_step6"):
        open_for_all(args.model_copy(update={"iteration": 6}), SINGLE, vocab_size=VOCAB_SIZE)
    same = args.model_copy(update={"iteration": 6, "layernorm_epsilon": 1e-3})
    assert "global_step6" in open_for_all(same, SINGLE, vocab_size=VOCAB_SIZE).description


def test_what_gpt_neox_did_otherwise_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args, _ = neox_run(tmp_path, VARIANTS["llama"], VARIANTS["llama"])
    said: list[str] = []
    monkeypatch.setattr(loading.logger, "warning", said.append)
    open_for_all(args, SINGLE, vocab_size=VOCAB_SIZE)
    assert "the 5 rows of padding are dropped" in said[0]


def test_files_run_code_only_where_that_is_allowed(tmp_path: Path) -> None:
    args, _ = neox_run(tmp_path / "neox", VARIANTS["llama"], VARIANTS["llama"])
    file = tmp_path / "neox" / "global_step7" / "layer_02-model_00-model_states.pt"
    torch.save({**torch.load(file), "attention._extra_state": timedelta(1)}, file)
    model = write(tmp_path / "model", tensors())
    (model / "model.safetensors").unlink()
    theirs = configured(write(tmp_path / "other", tensors()), load=f"hf:{model}")
    torch.save({**tensors(), "more": timedelta(1)}, model / "pytorch_model.bin")
    for asked, rows in ((args, VOCAB_SIZE), (theirs, ROWS)):
        with pytest.raises(CheckpointError, match=r"datetime\.timedelta, .*set trust_checkpoint: true"):
            open_for_all(asked, SINGLE, vocab_size=rows)
        open_for_all(asked.model_copy(update={"trust_checkpoint": True}), SINGLE, vocab_size=rows)


def neox_run(directory: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> tuple[NeoXArgs, dict[str, Tensor]]:
    """A run that loads what GPT-NeoX saved, and the weights."""
    weights = {name.removesuffix("/weight"): tensor for name, tensor in weights_of(wanted).items()}
    settings = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 16, **saved}
    settings |= {"max_position_embeddings": 16, "train_iters": 1, "train_micro_batch_size_per_gpu": 2}
    write_neox(
        directory, build_args(**wanted), weights, ranks=2, rows=64, settings={"model_parallel_size": 2, **settings}
    )
    return build_args(**wanted, load=str(directory)), weights


def test_a_checkpoint_of_gpt_neox_is_opened_by_its_own_settings(tmp_path: Path) -> None:
    of_the_run = {"load": "/gone", "iteration": 5, "finetune": True, "use_checkpoint_lr_scheduler": True}
    _, weights = neox_run(tmp_path, {**VARIANTS["llama"], **of_the_run}, VARIANTS["llama"])
    opened = open_model(tmp_path, vocab_size=VOCAB_SIZE)
    assert opened.directory == tmp_path / "global_step7"
    assert opened.saved_args is not None
    assert opened.architecture == architecture_of(build_args(**VARIANTS["llama"]), vocab_size=VOCAB_SIZE)
    for name, weight in weights.items():
        assert torch.equal(opened.source.read(f"{name}/weight"), weight)
    assert open_model(tmp_path).source.shapes["0.word_embeddings.weight/weight"] == (64, 32)  # padding cannot be told
    (tmp_path / "global_step7" / "configs" / "run.yml").write_text("{}\n")
    no_settings = r"has no settings \(YAML files in a folder configs\)\. Give those .* \(--config_file\)$"
    with pytest.raises(CheckpointError, match=no_settings):
        open_model(tmp_path)
    with pytest.raises(NeoXError, match="holds no checkpoint of GPT-NeoX of step 8"):
        open_model(tmp_path, iteration=8)
