"""Models of other programs that are damaged or contradict themselves: refused in one sentence, with nothing loaded and nothing written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from megatron.conversion.converting.to_checkpoint_command import run
from megatron.conversion.converting.to_checkpoint_parser import parse_arguments
from megatron.conversion.loading import load_into_module
from megatron.conversion.mapping.architecture import config_keys
from megatron.conversion.opening import open_model
from megatron.errors import CheckpointError
from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments import NeoXArgs
from tests.unit.conversion.reading.test_hugging_face import EMBEDDING, HEAD, QUERIES, tensors, write, write_in_two
from tests.unit.conversion.test_loading import neox_run
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE

Damage = Callable[[Path], Any]
RUN = {"seq_length": 8, "train_iters": 1, "train_micro_batch_size_per_gpu": 1, "precision": "fp32"}


@dataclass(frozen=True)
class Sound:
    """A model that is read without complaint, and a run that begins from it."""

    directory: Path
    args: NeoXArgs
    rows: int


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sound]:
    """One for each form: a file of transformers, two with an index, a pickled one, and a directory of GPT-NeoX."""
    place = tmp_path_factory.mktemp("sound")
    (place / "two").mkdir()
    pickled = write(place / "pickled", tensors())
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    found = {}
    for directory in (write(place / "one", tensors()), write_in_two(place / "two", "safetensors"), pickled):
        keys = config_keys(open_model(directory).architecture)
        args = NeoXArgs.from_dict({**RUN, **keys, "load": f"hf:{directory}"})
        found[directory.name] = Sound(directory, args, rows=11)
    args, _ = neox_run(place / "neox", dict(VARIANTS["llama"]), dict(VARIANTS["llama"]))
    found["neox"] = Sound(place / "neox", args, rows=VOCAB_SIZE)
    for each in found.values():
        assert loaded(each.args, each.rows, changed=True)
    return found


def loaded(args: NeoXArgs, rows: int, *, changed: bool) -> str:
    """What is said when a module is loaded, "sound" if nothing; whether its weights are others then."""
    specs = build_layer_specs(args, vocab_size=rows, padded_vocab_size=64)
    model = SequentialModel(specs, BuildContext(dtype=torch.float32), seed=3)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    try:
        load_into_module(args, model, vocab_size=rows, group=SINGLE)
        said = "sound"
    except CheckpointError as error:
        said = str(error)
    assert changed != all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    return said


def tensors_with(change: Callable[[dict[str, Tensor]], Any]) -> Damage:
    def damage(directory: Path) -> None:
        file = directory / "model.safetensors"
        weights = load_file(file)
        change(weights)
        save_file(weights, file)

    return damage


def config_with(**keys: Any) -> Damage:
    def damage(directory: Path) -> None:
        file = directory / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))

    return damage


def cut(pattern: str) -> Damage:
    def damage(directory: Path) -> None:
        file = next(directory.glob(pattern))
        file.write_bytes(file.read_bytes()[:-200])

    return damage


def removed(pattern: str) -> Damage:
    return lambda directory: next(directory.glob(pattern)).unlink()


def layer_with(change: Callable[[dict[str, Tensor]], Any]) -> Damage:
    def damage(directory: Path) -> None:
        for file in directory.glob("global_step7/layer_02-*"):
            content = torch.load(file)
            change(content)
            torch.save(content, file)

    return damage


DAMAGES: dict[str, tuple[str, Damage, str]] = {
    "a tensor is missing": ("one", tensors_with(lambda found: found.pop(QUERIES)), rf"1 is missing \({QUERIES} "),
    "a tensor too many": (
        "one",
        tensors_with(lambda found: found.update({"model.layers.2.mlp.up_proj.weight": torch.ones(12, 8)})),
        r"1 is not known there \(model\.layers\.2\.mlp\.up_proj\.weight \[12, 8\]\)",
    ),
    "another shape": (
        "one",
        tensors_with(lambda found: found.update({QUERIES: torch.ones(8, 6)})),
        rf"1 has another shape \({QUERIES} is \[8, 6\] and by config.json \[8, 8\]\)",
    ),
    "integers": (
        "one",
        tensors_with(lambda found: found.update({QUERIES: torch.ones(8, 8, dtype=torch.int8)})),
        r"q_proj\.weight \(i8\); weights that were quantized cannot be trained$",
    ),
    "a file that ends early": ("one", cut("model.safetensors"), r"model\.safetensors is damaged or incomplete"),
    "a pickled file that ends early": ("pickled", cut("pytorch_model.bin"), r"pytorch_model\.bin"),
    "a file of the index is not there": (
        "two",
        removed("*-00002-*"),
        "names 2 files, of which 1 is missing: model-00002",
    ),
    "a second output layer that differs": (
        "one",
        config_with(tie_word_embeddings=True),
        rf"{HEAD} differs from {EMBEDDING}",
    ),
    "an output layer that is not there": (
        "one",
        tensors_with(lambda found: found.pop(HEAD)),
        "1 is missing .* saved without its output layer",
    ),
    "another width": ("one", config_with(intermediate_size=16), r"6 have another shape \("),
    "more layers": ("one", config_with(num_hidden_layers=3), r"9 are missing \(model\.layers\.2\."),
    "fewer layers": ("one", config_with(num_hidden_layers=1), r"9 are not known there \(model\.layers\.1\."),
    "other groups": (
        "one",
        config_with(num_key_value_heads=2),
        r"k_proj\.weight is \[4, 8\] and by config\.json \[8, 8\]",
    ),
    "a setting that is not known": (
        "one",
        config_with(router_aux_loss=0.1),
        "router_aux_loss is 0.1, a setting that is not known",
    ),
    "quantized weights": ("one", config_with(quantization_config={"quant_method": "awq"}), "is quantized .*method awq"),
    "experts": ("one", config_with(model_type="mixtral"), "a model of type mixtral cannot be expressed"),
    "GPT-NeoX: a tensor is missing": (
        "neox",
        layer_with(lambda found: found.pop("attention.dense.weight")),
        r"does not hold this model: .*2\.attention\.dense\.weight is missing",
    ),
    "GPT-NeoX: a tensor too many": (
        "neox",
        layer_with(lambda found: found.update({"attention.rpe.weight": torch.ones(3)})),
        r"2\.attention\.rpe\.weight is unknown",
    ),
    "GPT-NeoX: another shape": (
        "neox",
        layer_with(lambda found: found.update({"mlp.linear2.weight": torch.ones(3, 3)})),
        r"2\.mlp\.linear2\.weight is \[3, 3\] where a rank has",
    ),
    "GPT-NeoX: a file that ends early": (
        "neox",
        cut("global_step7/layer_03-model_01*"),
        "layer_03-model_01-model_states.pt",
    ),
    "GPT-NeoX: a file is not there": (
        "neox",
        removed("global_step7/layer_03-model_01*"),
        "no file of layer 3 of rank 1",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_refused_with_nothing_loaded_and_nothing_written(
    sound: dict[str, Sound], name: str, tmp_path: Path
) -> None:
    form, damage, sentence = DAMAGES[name]
    directory = tmp_path / "models" / form
    shutil.copytree(sound[form].directory, directory)
    damage(directory)
    args = sound[form].args.model_copy(update={"load": str(directory)})
    said = loaded(args, sound[form].rows, changed=False)
    assert "\n" not in said
    rows = ["--vocab-size", str(VOCAB_SIZE)] if form == "neox" else []
    with pytest.raises(CheckpointError, match=sentence) as error:
        run(parse_arguments([str(directory), "--output_dir", str(tmp_path / "converted"), *rows]), lambda lines: None)
    assert "\n" not in str(error.value)
    assert re.search(sentence, said), said
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
