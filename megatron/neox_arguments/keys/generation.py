"""Text generation and evaluation (generate.py, eval.py)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from megatron.neox_arguments.keys.types import DERIVED, Group, Integer, Number, Texts


class GenerationArgs(Group):
    """How text is sampled and where it goes."""

    text_gen_type: Literal["unconditional", "input-file", "interactive", "precompute"] = Field(DERIVED)
    """`unconditional` starts from the end-of-document token, `input-file` continues each line of sample_input_file, `interactive` asks
    in the terminal, `precompute` stores the log-probability of every token of the configured datasets beside them. Default: input-file when sample_input_file is given, else
    unconditional."""

    precompute_model_name: str | None = None
    """Name of the model whose log-probabilities `precompute` stores: beside DATASET lies DATASET_NAME, an fp32 dataset of the same sequences.
    Its number i is the log-probability of token i + 1, given all before it that the model can read; the last is 0."""

    temperature: Number = Field(0.0, ge=0)
    """Logits are divided by this before sampling: below 1 sharper, above 1 flatter. 0 always takes the most likely token."""

    top_p: Number = Field(0.0, ge=0, le=1)
    """Sample among the fewest most likely tokens that together have this probability. 0 switches it off."""

    top_k: Integer = Field(0, ge=0)
    """Sample among this many most likely tokens only. 0 switches it off."""

    return_logits: bool = False
    """Also write the logits of every generated token to the output file (large: one number for each vocabulary entry)."""

    maximum_tokens: Integer = Field(64, ge=1)
    """Tokens generated at most for each prompt; an end-of-document token, a stop string or a stop token ends it earlier."""

    stop_strings: Texts = ()
    """Texts that end a completion and are no part of it, e.g. `["\\n\\n", "Question:"]`, wherever the borders of tokens lie."""

    stop_tokens: tuple[Annotated[Integer, Field(ge=0)], ...] = ()
    """Numbers of tokens that end a completion, besides the end-of-document token."""

    generation_batch_size: Integer = Field(16, ge=1)
    """Prompts that are completed at once. More are faster and take more memory; the samples stay the same."""

    prompt_end: str = "\n"
    """In interactive mode, the text that ends a prompt."""

    sample_input_file: str | None = None
    """File with one prompt a line."""

    sample_output_file: str = "samples.txt"
    """File the generated samples are written to, one JSON object a line."""

    num_samples: Integer = Field(1, ge=1)
    """Samples drawn for each prompt, or in all when unconditional."""

    recompute: bool = False
    """Run the whole sequence again for each token instead of keeping keys and values: slow, for checking the cache."""
