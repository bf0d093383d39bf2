"""Whether a model has the number of parameters that its configuration's name says, as `7B` or `1-4B`."""

from __future__ import annotations

import re

from megatron.neox_arguments.reading.values import ConfigValues
from megatron.planning.model.parameters import count_parameters
from tests.shipped import arguments

VOCABULARY = 50_304
"""Of GPT-NeoX-20B's tokenizer, which most sizes are counted with."""
LLAMA_VOCABULARIES = {"llama3": 128_256, "llama": 32_000, "llemma": 32_000, "mistral": 32_000}


def size_in(name: str) -> float | None:
    """The number of parameters in the name of a file, None when it has none."""
    match = re.search(r"(?<![a-z\d])(\d+(?:[-.]\d+)?)([MB])(?=\W|$)", name, re.IGNORECASE)
    if match is None:
        return None
    return float(match[1].replace("-", ".")) * {"M": 1e6, "B": 1e9}[match[2].upper()]


def has_the_size_of_its_name(name: str, values: ConfigValues) -> bool:
    """Within 10 %: of all parameters, or as some count, of those without the head or without head and embedding."""
    args = arguments(values)
    vocabulary = next((size for family, size in LLAMA_VOCABULARIES.items() if family in name), VOCABULARY)
    body = count_parameters(args, vocab_size=0)
    counts = (body, body + vocabulary * args.hidden_size, count_parameters(args, vocab_size=vocabulary))
    size = size_in(name)
    assert size is not None
    return any(abs(count / size - 1) < 0.1 for count in counts)
