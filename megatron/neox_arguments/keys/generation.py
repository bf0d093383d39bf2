"""Text generation and evaluation (generate.py, eval.py)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from megatron.neox_arguments.keys.types import DERIVED, Group, Integer, Number, Texts


class GenerationArgs(Group):
    """How text is sampled and where it goes."""

    text_gen_type: Literal["unconditional", "input-file", "interactive", "precompute"] = Field(DERIVED)
    """`unconditional` starts from the end-of-document token, `input-file` continues each line of sample_input_file, `interactive` asks
    in the terminal, `precompute` computes reference log-probabilities. Default: input-file when sample_input_file is given, else
    unconditional."""

    precompute_model_name: str | None = None
    """Name under which precomputed log-probabilities of a reference model are stored."""

    temperature: Number = Field(0.0, ge=0)
    """Logits are divided by this before sampling: below 1 sharper, above 1 flatter. 0 always takes the most likely token."""

    top_p: Number = Field(0.0, ge=0, le=1)
    """Sample among the fewest most likely tokens that together have this probability. 0 switches it off."""

    top_k: Integer = Field(0, ge=0)
    """Sample among this many most likely tokens only. 0 switches it off."""

    return_logits: bool = False
    """Also write the logits of every generated token to the output file (large: one number for each vocabulary entry)."""

    maximum_tokens: Integer = Field(64, ge=1)
    """Tokens generated at most for each prompt; an end-of-document token stops earlier."""

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

    eval_results_prefix: str = ""
    """Text put before the name of the file with evaluation results."""

    eval_tasks: Texts | None = None
    """Tasks of the evaluation harness to run, e.g. `["lambada_openai", "piqa"]`."""
