"""Shipped models have the parameters that their heads tell, and named ones those of the released weights."""

from __future__ import annotations

import pytest

from megatron.planning.model.parameters import count_parameters
from tests.shipped import (
    MODELS,
    arguments,
    header_of,
    read,
)

PUBLISHED = {
    "20B.yml": 20_554_567_680,
    "pythia/14M.yml": 14_067_712,
    "pythia/31M.yml": 30_494_720,
    "pythia/70M.yml": 70_426_624,
    "pythia/160M.yml": 162_322_944,
    "pythia/410M.yml": 405_334_016,
    "pythia/1B.yml": 1_011_781_632,
    "pythia/1-4B.yml": 1_414_647_808,
    "pythia/2-8B.yml": 2_775_208_960,
    "pythia/6-9B.yml": 6_857_302_016,
    "pythia/12B.yml": 11_846_072_320,
    "finetuning_configs/6-9B.yml": 6_857_302_016,
    "llama/7B.yml": 6_738_415_616,
    "llama/13B.yml": 13_015_864_320,
    "llama/30B.yml": 32_528_943_616,
    "llama/65B.yml": 65_285_660_672,
    "llama2/7B.yml": 6_738_415_616,
    "llama2/13B.yml": 13_015_864_320,
    "llama2/70B.yml": 68_976_648_192,
    "llama2/codellama_7B.yml": 6_738_546_688,
    "llama2/codellama_34B.yml": 33_743_970_304,
    "llemma/7B.yml": 6_738_546_688,
    "llemma/34B.yml": 33_743_970_304,
    "mistral/7B.yml": 7_241_732_096,
    "llama3/8B.yml": 8_030_261_248,
    "llama3/70B.yml": 70_553_706_496,
    "llama3.1/8B.yml": 8_030_261_248,
    "llama3.1/70B.yml": 70_553_706_496,
    "llama3.1/405B.yml": 405_853_388_800,
    "llama3.2/1B.yml": 1_235_814_400,
    "llama3.2/3B.yml": 3_212_749_824,
    "qwen2.5/0.5B.yml": 494_032_768,
    "qwen2.5/1.5B.yml": 1_543_714_304,
    "qwen2.5/3B.yml": 3_085_938_688,
    "qwen2.5/7B.yml": 7_615_616_512,
    "qwen2.5/14B.yml": 14_770_033_664,
    "qwen2.5/32B.yml": 32_763_876_352,
    "qwen2.5/72B.yml": 72_706_203_648,
    "qwen3/0.6B.yml": 596_049_920,
    "qwen3/1.7B.yml": 1_720_574_976,
    "qwen3/4B.yml": 4_022_468_096,
    "qwen3/8B.yml": 8_190_735_360,
    "qwen3/14B.yml": 14_768_307_200,
    "qwen3/32B.yml": 32_762_123_264,
    "olmo2/1B.yml": 1_484_916_736,
    "olmo2/7B.yml": 7_298_617_344,
    "olmo2/13B.yml": 13_716_198_400,
    "smollm2/135M.yml": 134_515_008,
    "smollm2/360M.yml": 361_821_120,
    "smollm2/1.7B.yml": 1_711_376_384,
    "mamba/mamba-130M.yml": 129_135_360,
    "mamba/mamba-370M.yml": 371_516_416,
    "mamba/mamba-790M.yml": 793_204_224,
    "mamba/mamba-1.4B.yml": 1_372_178_432,
    "mamba/mamba-2.8B.yml": 2_768_345_600,
}
"""Parameters of the released weights."""

RELEASED_ROWS = dict.fromkeys((file for file in PUBLISHED if file.startswith("mamba/")), 50_280)
"""Rows of a released embedding that is padded less than ours."""


@pytest.mark.parametrize("file", MODELS)
def test_the_head_of_a_model_tells_its_parameters(file: str) -> None:
    header = header_of(file)
    assert header.vocabulary is not None
    assert count_parameters(arguments(read(file)), vocab_size=header.vocabulary) == header.parameters


@pytest.mark.parametrize("file", PUBLISHED)
def test_a_named_model_has_the_parameters_of_the_released_one(file: str) -> None:
    rows = RELEASED_ROWS.get(file, header_of(file).vocabulary or 0)
    assert count_parameters(arguments(read(file)), vocab_size=rows) == PUBLISHED[file]
