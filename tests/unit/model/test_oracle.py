"""Models load what GPT-NeoX saved and compute what it computed: logits, losses and gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import yaml
from torch import Tensor

from megatron.model.gpt import build_layer_specs
from megatron.model.loss import masked_loss_sum
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.cross_entropy import vocab_parallel_cross_entropy
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments import NeoXArgs
from tests.unit.model.builders import parameters_by_name

MODELS = ["b_pythia", "b2_pythia_erfgelu", "d_llama_gqa", "e_gpt2_learned_tied"]
PADDED_VOCAB_SIZE = 1024  # the original's loss counts padding columns, so here they are ordinary ones
PATHS = ("data_path", "vocab_file")  # of files this test does not read


def load_oracle_model(folder: Path) -> SequentialModel:
    """The model of the folder's configuration with the weights of its checkpoint."""
    config = {
        key: value for key, value in yaml.safe_load((folder / "config.yml").read_text()).items() if key not in PATHS
    }
    args = NeoXArgs.from_dict(config)
    specs = build_layer_specs(args, vocab_size=PADDED_VOCAB_SIZE, padded_vocab_size=PADDED_VOCAB_SIZE)
    model = SequentialModel(specs, BuildContext(), seed=None)
    saved = read_checkpoint(folder)
    parameters = parameters_by_name(model)
    assert set(saved) == set(parameters)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
    return model


def read_checkpoint(folder: Path) -> dict[str, Tensor]:
    """Tensors by layout-free name from the files of the layers."""
    sibling = folder / "CKPT_SAME_AS"
    checkpoint = folder / sibling.read_text().strip() if sibling.exists() else folder / "ckpt"
    tensors = {}
    for file in sorted((checkpoint / "global_step0").glob("layer_*-model_00-model_states.pt")):
        number = int(file.name.removeprefix("layer_").partition("-")[0])
        tensors.update({f"{number}.{name}": value for name, value in torch.load(file, weights_only=True).items()})
    return tensors


def our_name(name: str) -> str:
    """Our name of a parameter that GPT-NeoX calls `name`."""
    return name.replace("tied_modules.embed.", "0.")


def run_oracle_model(folder: Path) -> dict[str, Any]:
    """One forward and backward pass over the recorded batch, beside what was recorded."""
    arrays = {name: torch.from_numpy(value) for name, value in numpy.load(folder / "oracle.npz").items()}
    model = load_oracle_model(folder)
    logits = model(arrays["tokens"], arrays["position_ids"])
    loss = masked_loss_sum(logits, arrays["labels"], arrays["loss_mask"], SINGLE, PADDED_VOCAB_SIZE)
    mean_loss = loss / arrays["loss_mask"].sum()
    mean_loss.backward()
    info = json.loads((folder / "info.json").read_text())
    return {"model": model, "logits": logits, "loss": mean_loss, "expected": arrays, "info": info}


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, oracle: Path) -> dict[str, Any]:
    return run_oracle_model(oracle / "models" / request.param)


def test_parameters_have_the_names_and_shapes_of_the_original(case: dict[str, Any]) -> None:
    expected = {our_name(name): tuple(shape) for name, shape in case["info"]["params"]}
    assert {name: tuple(value.shape) for name, value in parameters_by_name(case["model"]).items()} == expected
    assert sum(parameter.numel() for parameter in case["model"].parameters()) == case["info"]["n_params"]


def test_logits_are_those_of_the_original(case: dict[str, Any]) -> None:
    torch.testing.assert_close(case["logits"][:2], case["expected"]["logits"], atol=1e-5, rtol=0)


def test_losses_are_those_of_the_original(case: dict[str, Any]) -> None:
    expected = case["expected"]
    token_losses = vocab_parallel_cross_entropy(case["logits"], expected["labels"], SINGLE)
    torch.testing.assert_close(token_losses, expected["token_losses"], atol=1e-5, rtol=0)
    torch.testing.assert_close(case["loss"], expected["loss"], atol=2e-6, rtol=0)


def test_gradient_norms_are_those_of_the_original(case: dict[str, Any]) -> None:
    parameters = parameters_by_name(case["model"])
    for name, norm in case["info"]["grad_l2_norms"].items():
        assert parameters[our_name(name)].grad.norm().item() == pytest.approx(norm, rel=1e-5), name


def test_gradients_of_a_tied_model_are_those_of_the_original(oracle: Path) -> None:
    folder = oracle / "models" / "e_gpt2_learned_tied"
    parameters = parameters_by_name(run_oracle_model(folder)["model"])
    expected = {our_name(name): torch.from_numpy(value) for name, value in numpy.load(folder / "grads.npz").items()}
    del expected["train_loss"]
    assert set(expected) == set(parameters)
    for name, gradient in expected.items():
        torch.testing.assert_close(parameters[name].grad, gradient, atol=1e-6, rtol=1e-4)


def test_the_two_gelus_are_told_apart(oracle: Path) -> None:
    with_tanh, with_erf = (numpy.load(oracle / "models" / name / "oracle.npz")["logits"] for name in MODELS[:2])
    assert numpy.abs(with_tanh - with_erf).max() > 1e-4
