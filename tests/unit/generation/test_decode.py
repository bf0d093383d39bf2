"""Cached decoding gives what running the whole text for every token gives, for prompts of any lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron.errors import DataError
from megatron.generation.decode import Decoder
from megatron.generation.model import InferenceModel
from megatron.generation.sampling import SamplingSettings, draws_of
from megatron.model.gpt import build_layer_specs
from megatron.model.head import TiedHead
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from megatron.mpu.linear import ParallelLinear
from megatron.neox_arguments import NeoXArgs
from tests.unit.generation.models import inference_model

VOCABULARY = 61
PROMPTS = [[5, 6, 7, 8, 9], [10], [11, 12, 13]]


def model(*, rows: int = VOCABULARY, **changes: Any) -> InferenceModel:
    config = {
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "seq_length": 16,
        "max_position_embeddings": 16,
        "train_micro_batch_size_per_gpu": 1,
        "train_iters": 1,
        "pos_emb": "rotary",
        "init_method_std": 0.3,
        **changes,
    }
    specs = build_layer_specs(NeoXArgs.from_dict(config), vocab_size=rows, padded_vocab_size=64)
    return inference_model(SequentialModel(specs, BuildContext(), seed=1))


def decode(network: InferenceModel, prompts: list[list[int]], **changes: Any) -> list[list[int]]:
    settings, seed = changes.pop("settings", SamplingSettings()), changes.pop("seed", 0)
    decoder = Decoder(network, vocab_size=VOCABULARY, max_positions=16, **changes)
    draws = [draws_of(seed, row) for row in range(len(prompts))]
    steps = [step.tokens for step in decoder.steps(prompts, maximum_tokens=8, sampling=settings, draws=draws)]
    return torch.stack(steps, dim=1).tolist()


def logits_of(network: InferenceModel, text: list[int]) -> torch.Tensor:
    """[s, v] of a text that is run whole, without a cache."""
    hidden = network.hidden(torch.tensor([text]), torch.arange(len(text))[None])
    assert hidden is not None
    return network.logits(hidden[:, 0])


def greedy_by_whole_texts(network: InferenceModel, prompt: list[int], count: int) -> list[int]:
    text = list(prompt)
    for _ in range(count):
        text.append(int(logits_of(network, text)[-1, :VOCABULARY].argmax()))
    return text[len(prompt) :]


OLMO_NORMS = {
    "norm": "rmsnorm",
    "norm_position": "post",
    "use_qk_layernorm": True,
    "qk_layernorm_scope": "all_heads",
}
YARN = {"type": "yarn", "factor": 2, "original_max_position_embeddings": 8, "beta_fast": 1, "beta_slow": 0.1}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pos_emb": "learned"},
        {"num_kv_heads": 2},
        {"attention_config": [[["flash"], 2]]},
        {"head_dim": 12, "num_kv_heads": 2, "use_qk_layernorm": True, "use_bias_in_attn_output": False},
        OLMO_NORMS,
        {"rope_scaling": YARN},
        {"sliding_window_width": 3},
        {"sliding_window_width": 3, "attention_config": [[["flash"], 2]]},
        {"pos_emb": "alibi"},
        {"pos_emb": "alibi", "num_kv_heads": 2, "sliding_window_width": 6, "attention_config": [[["flash"], 2]]},
    ],
)
def test_greedy_decoding_equals_running_each_text_alone_and_whole(changes: dict[str, Any]) -> None:
    network = model(**changes)
    assert decode(network, PROMPTS) == [greedy_by_whole_texts(network, prompt, 8) for prompt in PROMPTS]


@pytest.mark.parametrize(
    "changes", [{}, OLMO_NORMS, {"rope_scaling": YARN}, {"sliding_window_width": 3}, {"pos_emb": "alibi"}]
)
def test_recomputing_gives_the_same_tokens_as_the_cache(changes: dict[str, Any]) -> None:
    network = model(**changes)
    settings = SamplingSettings(temperature=1.0, top_p=0.9)
    assert decode(network, PROMPTS, settings=settings, recompute=True) == decode(network, PROMPTS, settings=settings)


@pytest.mark.parametrize(
    "changes", [{}, {"no_weight_tying": True, "gpt_j_residual": True}, {"num_kv_heads": 2, "activation": "swiglu"}]
)
def test_packed_weights_give_the_same_tokens(changes: dict[str, Any]) -> None:
    network = model(**changes)
    expected, logits = decode(network, PROMPTS), logits_of(network, PROMPTS[0])
    network.pack_weights()
    products = [module for module in network.modules() if isinstance(module, ParallelLinear | TiedHead)]
    packed = [module.product if isinstance(module, ParallelLinear) else module._packed for module in products]
    assert all(packed), "something was not packed"
    assert decode(network, PROMPTS) == expected
    torch.testing.assert_close(logits_of(network, PROMPTS[0]), logits)


def test_another_seed_gives_other_samples() -> None:
    network = model()
    settings = SamplingSettings(temperature=1.0)
    assert decode(network, PROMPTS, settings=settings, seed=1) != decode(network, PROMPTS, settings=settings, seed=2)


def test_padding_of_the_vocabulary_is_never_chosen() -> None:
    tokens = decode(model(), [[1]] * 64, settings=SamplingSettings(temperature=100.0))
    assert max(max(row) for row in tokens) < VOCABULARY


def test_rows_that_no_token_has_are_never_chosen() -> None:
    """The model has 64 rows, of which those beyond the tokenizer's are by far the likeliest."""
    network = model(rows=64, no_weight_tying=True, use_bias_in_output_layer=True)
    with torch.no_grad():
        network.get_parameter("6.final_linear.bias")[VOCABULARY:] = 1e4
    assert int(logits_of(network, [1]).argmax()) >= VOCABULARY
    for settings in (
        SamplingSettings(),
        SamplingSettings(temperature=1.0),
        SamplingSettings(temperature=1.0, top_p=0.9),
    ):
        tokens = decode(network, [[1]] * 64, settings=settings)
        assert max(max(row) for row in tokens) < VOCABULARY


def test_decoding_stops_where_the_positions_end() -> None:
    assert [len(row) for row in decode(model(), [list(range(13)), [1]])] == [3, 3]


def test_prompts_that_cannot_be_decoded_are_refused() -> None:
    with pytest.raises(DataError, match="at most 16"):
        decode(model(), [list(range(16))])
    with pytest.raises(DataError, match="no tokens"):
        decode(model(), [[1], []])
