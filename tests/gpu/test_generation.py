"""Cached greedy decoding on the GPU chooses the tokens the CPU chooses, for every kind of model and prompts of any lengths."""

from __future__ import annotations

import pytest
import torch

from megatron.generation.decode import Decoder
from megatron.generation.sampling import SamplingSettings, draws_of
from megatron.model.spec import BuildContext
from tests.gpu.compare import CPU, FP32_LIMIT, deviation
from tests.unit.generation.models import inference_model
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args, build_model

pytestmark = pytest.mark.gpu

PROMPTS = {"of one length": [[5, 6, 7], [8, 9, 10]], "padded": [[5, 6, 7, 8, 9], [10], [11, 12, 13]]}
TOKENS = 8


def decoder(variant: str, device: torch.device, *, dtype: torch.dtype = torch.float32) -> Decoder:
    trained = build_model(build_args(**VARIANTS[variant]), context=BuildContext(dtype=dtype, device=device))
    return Decoder(inference_model(trained), vocab_size=VOCAB_SIZE, max_positions=16)


def decode(
    decoder: Decoder, prompts: list[list[int]], *, temperature: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [b, n] and the logits [b, n, v] they were chosen from."""
    sampling = SamplingSettings(temperature, top_p=0.9)
    draws = [draws_of(1, row) for row in range(len(prompts))]
    steps = list(decoder.steps(prompts, maximum_tokens=TOKENS, sampling=sampling, draws=draws, keep_logits=True))
    logits = [step.logits for step in steps if step.logits is not None]
    return torch.stack([step.tokens for step in steps], dim=1), torch.stack(logits, dim=1)


@pytest.mark.parametrize("prompts", PROMPTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_tokens_and_logits_are_those_of_the_cpu(variant: str, prompts: str, device: torch.device) -> None:
    found, expected = (decode(decoder(variant, each), PROMPTS[prompts]) for each in (device, CPU))
    assert found[0].tolist() == expected[0].tolist()
    assert deviation(found[1], expected[1]) <= FP32_LIMIT


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_samples_real_tokens(variant: str, dtype: torch.dtype, device: torch.device) -> None:
    tokens, logits = decode(decoder(variant, device, dtype=dtype), PROMPTS["padded"], temperature=1.0)
    assert logits.isfinite().all()
    assert tokens.min() >= 0
    assert tokens.max() < VOCAB_SIZE


def test_sampling_is_repeatable(device: torch.device) -> None:
    first, again = (decode(decoder("llama", device), PROMPTS["padded"], temperature=1.0)[0] for _ in range(2))
    assert torch.equal(first, again)
